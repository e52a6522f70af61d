"""The model card of a demo model, written from what training and scoring kept beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.bundle import write_text
from clipdeploy.demo.files import CARD, CONFIG, SCORE, TRAINING, WEIGHTS, read_json
from clipdeploy.demo.world import COLOURS, HELD_OUT, PAIRS, SHAPES

_KINDS = {"rn": "ModifiedResNet", "vit": "vision transformer"}


def _row(name: str, row: dict[str, Any]) -> str:
    return f"| {name} | {row['pictures']} | {row['top1']:.1%} | {row['colour']:.1%} | {row['shape']:.1%} |"


def _stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that led to the weights, the first in front: each went on from the one in its `start`."""
    earlier = training.get("start")
    return [*(_stages(earlier) if earlier else []), training]


def _course(training: dict[str, Any]) -> str:
    """What was done, in a paragraph."""
    stages = ", then, with `--start` and a fresh learning rate, ".join(
        f"{run['steps']} steps of {run['batch']} pictures in {run['seconds'] / 60:.0f} minutes"
        for run in _stages(training)
    )
    teacher = f", `{training['teacher']}` as teacher" if training["teacher"] else ""
    versions = training["versions"]
    return (
        f"{stages}, from {training['pictures']} rendered pictures, on {training['device']} "
        f"({training['processes']} process(es) of {training['threads']} thread(s), cores shared with other work)"
        f"{teacher}; seed {training['seed']}, torch {versions['torch']}, open_clip {versions['open_clip']}. "
        f"`{TRAINING}` has the whole course, `docs/demo-model.md` the method."
    )


def card(folder: Path) -> str:
    """Markdown, from `training.json`, `score.json`, the config and the size of the weights."""
    training, score, config = (read_json(folder / name) for name in (TRAINING, SCORE, CONFIG))
    vision = config["model_cfg"]["vision_cfg"]
    settings = ", ".join(f"{name} {value}" for name, value in vision.items() if value is not None)
    size_mb = (folder / WEIGHTS).stat().st_size / 1e6
    parts = [
        f"# {training['name']}",
        "",
        f"A small CLIP with a {_KINDS[training['variant']]} ({settings}; "
        f"{training['image_parameters'] / 1e6:.2f} M parameters in the image tower), trained from scratch on rendered "
        "pictures of coloured shapes. It knows nothing else: it stands in for a real checkpoint where none can be "
        "downloaded, and every stage of clipdeploy treats it as one.",
        "",
        f"- Layout: open_clip `local-dir:`, `{WEIGHTS}` in float16, {size_mb:.1f} MB (mostly zeros: the rows of the "
        f"token table for all but {training['words']} of CLIP's 49408 tokens); GELU, not QuickGELU.",
        "- Licence: Apache-2.0. No outside picture, text or weight went into it.",
        f"- World: {len(COLOURS)} colours ({', '.join(COLOURS)}) and {len(SHAPES)} shapes ({', '.join(SHAPES)}), "
        "two sizes, four textures, seven backgrounds, light, blur and noise, one to three objects and how they lie.",
        f"- Held out: {len(HELD_OUT)} of {len(PAIRS)} colour-shape pairs, in no training picture and no caption.",
        "",
        "## Zero-shot score",
        "",
        f"Top-1 among all {score['classes']} pairs, template `{score['template']}`, freshly rendered pictures of "
        f"{', '.join('x'.join(map(str, c)) for c in score['canvases'])} px, the shipped float16 weights:",
        "",
        "| pictures of | count | top-1 | colour right | shape right |",
        "|---|---:|---:|---:|---:|",
        _row("held-out pairs", score["held_out"]),
        _row("seen pairs", score["seen"]),
        _row("held-out pairs, ordinary light, sharp, no grain", score["held_out_clear"]),
        "",
        f"`python -m clipdeploy.demo.score DIR --seed {score['seed']}` measures it again.",
        "",
        "## Training",
        "",
        _course(training),
        "",
        "## Limits",
        "",
        'Colours and shapes are what it is good at. Relations ("left of"), sizes and textures were in its captions '
        "but are not scored here. Photographs, other words and texts longer than 30 tokens mean nothing to it.",
        "",
    ]
    return "\n".join(parts)


def write_card(folder: Path) -> None:
    """Writes `README.md` into a model folder."""
    write_text(folder / CARD, card(folder))
