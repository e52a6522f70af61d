"""Zero-shot top-1 of a demo model, on freshly rendered pictures: `python -m clipdeploy.demo.score MODEL_DIR`.

Each picture shows one object of a known colour and shape; the model picks one of *all* 120 colour-shape pairs.
Pictures come from a stream of seeds that training never draws from, at the four canvas sizes of `CANVASES`,
through the model's own preprocessing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from clipdeploy.demo.captions import TEMPLATE, class_name
from clipdeploy.demo.files import SCORE, write_json
from clipdeploy.demo.paint import render
from clipdeploy.demo.world import HELD_OUT, PAIRS, SCORE_STREAM, SEEN, sample_scene

CANVASES = ((64, 64), (96, 128), (160, 120), (224, 224))
SEED = 2


def score_pictures(
    pairs: Sequence[tuple[str, str]], a_pair: int, *, seed: int = SEED, clear: bool = False
) -> Iterator[tuple[Image.Image, tuple[str, str]]]:
    """`a_pair` pictures of every pair, and the pair. `clear` leaves out dark, bright, blurry and grainy ones."""
    for pair in pairs:
        for i in range(a_pair):
            rng = np.random.default_rng([SCORE_STREAM, seed, PAIRS.index(pair), i])
            yield render(sample_scene(rng, pair=pair, clear=clear), CANVASES[i % len(CANVASES)]), pair


def load_model(folder: Path) -> tuple[torch.nn.Module, Callable[[Image.Image], torch.Tensor], Any]:
    """(model, transform of one picture, tokenizer) of a `local-dir:` folder, through open_clip's own loading."""
    location = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(location)
    return model.eval(), transform, open_clip.get_tokenizer(location)


@torch.inference_mode()
def classifier(model: Any, tokenizer: Any, template: str = TEMPLATE) -> torch.Tensor:
    """(120, D) float32 unit vectors, one a pair of `PAIRS`."""
    texts = tokenizer([template.format(class_name(pair)) for pair in PAIRS])
    vectors: torch.Tensor = model.encode_text(texts, normalize=True)
    return vectors


@torch.inference_mode()
def top1(
    model: Any,
    transform: Callable[[Image.Image], torch.Tensor],
    bank: torch.Tensor,
    pictures: Iterator[tuple[Image.Image, tuple[str, str]]],
) -> dict[str, Any]:
    """Counts of right answers: pair, colour alone and shape alone."""
    seen = list(pictures)
    guesses: list[int] = []
    for start in range(0, len(seen), 128):
        batch = torch.stack([transform(picture) for picture, _ in seen[start : start + 128]])
        guesses += (model.encode_image(batch, normalize=True) @ bank.T).argmax(1).tolist()
    named = [(PAIRS[guess], pair) for guess, (_, pair) in zip(guesses, seen, strict=True)]
    return {
        "pictures": len(seen),
        "top1": round(sum(a == b for a, b in named) / len(seen), 4),
        "colour": round(sum(a[0] == b[0] for a, b in named) / len(seen), 4),
        "shape": round(sum(a[1] == b[1] for a, b in named) / len(seen), 4),
    }


def score(folder: Path, *, a_pair: int = 50, seed: int = SEED, template: str = TEMPLATE) -> dict[str, Any]:
    """Top-1 among all pairs, on held-out and on seen ones; `a_pair` pictures of each held-out pair."""
    started = time.perf_counter()
    model, transform, tokenizer = load_model(folder)
    bank = classifier(model, tokenizer, template)
    few = max(1, a_pair // 4)
    result = {
        "classes": len(PAIRS),
        "template": template,
        "seed": seed,
        "canvases": [list(canvas) for canvas in CANVASES],
        "held_out": top1(model, transform, bank, score_pictures(HELD_OUT, a_pair, seed=seed)),
        "seen": top1(model, transform, bank, score_pictures(SEEN, few, seed=seed)),
        "held_out_clear": top1(model, transform, bank, score_pictures(HELD_OUT, few, seed=seed + 1, clear=True)),
    }
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def main(argv: Sequence[str] | None = None) -> None:
    """Scores a folder, writes `score.json` and the model card into it."""
    from clipdeploy.demo.card import write_card

    parser = argparse.ArgumentParser(prog="python -m clipdeploy.demo.score", description=__doc__)
    parser.add_argument("model", type=Path, help="a folder with open_clip_config.json and its weights")
    parser.add_argument("--pictures", type=int, default=50, help="pictures of each held-out pair (default 50)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--write", action="store_true", help="keep the result and the model card in the folder")
    chosen = parser.parse_args(argv)
    result = score(chosen.model, a_pair=chosen.pictures, seed=chosen.seed, template=chosen.template)
    for name in ("held_out", "seen", "held_out_clear"):
        row = result[name]
        line = f"top-1 {row['top1']:.1%}  colour {row['colour']:.1%}  shape {row['shape']:.1%}"
        print(f"{name:16s} {line}  ({row['pictures']} pictures)")
    if chosen.write:
        write_json(chosen.model / SCORE, result)
        write_card(chosen.model)


if __name__ == "__main__":
    main()
