"""`clipdeploy quantize`: typed graphs for a bundle, inside an accuracy budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import Precision, Target, Tower
from clipdeploy.text import one_line, pairs, table

if TYPE_CHECKING:
    from clipdeploy.calibration.results import TowerQuantised
    from clipdeploy.calibration.statistics import Method
    from clipdeploy.quantize import QuantizeOutcome

EXAMPLES = (
    "clipdeploy quantize b32 --precision fp16 --calibration-data photos/",
    'clipdeploy quantize b32 --precision int8 --calibration-data photos/ --labels "a dog,a cat"',
    "clipdeploy quantize b32 --precision int8 --target cpu --calibration-data drive.mp4",
    "clipdeploy quantize b32 --precision fp8 --calibration-data photos/ --max-drop 0.005",
)

_METHODS = ("percentile", "entropy", "max")
_TOWERS = {"image": (Tower.IMAGE,), "text": (Tower.TEXT,), "both": tuple(Tower)}
_SHARE = click.FloatRange(0.0, 1.0)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option(
    "--precision",
    type=click.Choice([p.value for p in Precision if p is not Precision.FP32]),
    required=True,
    help="Number format of the new graphs.",
)
@click.option(
    "--calibration-data",
    "data",
    multiple=True,
    metavar="DATA",
    help="What the camera will see: a folder, picture files, a pattern, a video, or an .npz of pictures. Repeatable.",
)
@click.option("--samples", type=click.IntRange(16), default=512, show_default=True, help="Pictures to use at most.")
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    help="What will run int8 or fp8: they are placed and typed for it.  [default: tensorrt]",
)
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    help="Ranges of activations to begin with.  [default: percentile; max for fp8]",
)
@click.option("--tower", type=click.Choice(list(_TOWERS)), default="image", show_default=True, help="Which encoders.")
@click.option(
    "--labels", metavar="A,B,...", help="Labels that top-1 agreement is asked of.  [default: the bundle's golden texts]"
)
@click.option("--labels-file", type=options.PATH, metavar="FILE", help="UTF-8 file of labels, one a line.")
@click.option("--template", multiple=True, metavar="TEXT", help="Sentence with {} for the label. Repeatable.")
@click.option("--texts", type=options.PATH, metavar="FILE", help="Calibration texts for the text encoder, one a line.")
@click.option(
    "--max-drop", type=_SHARE, metavar="X", help="Mean cosine to fp32 may drop by this.  [default: 0.01 for 8 bits]"
)
@click.option("--min-cosine", type=_SHARE, metavar="X", help="Least cosine of any sample.  [default: 0.97 for 8 bits]")
@click.option("--min-top1", type=_SHARE, metavar="X", help="Least share of the same best match.  [default: 0.99]")
@click.option("--overwrite", is_flag=True, help="Replace a graph that is already there.")
@click.option("--seed", default=0, show_default=True, help="Chooses among the calibration data.")
def quantize(
    console: Console,
    bundle: Path,
    precision: str,
    data: tuple[str, ...],
    samples: int,
    target: Target | None,
    method: Method | None,
    tower: str,
    labels: str | None,
    labels_file: Path | None,
    template: tuple[str, ...],
    texts: Path | None,
    max_drop: float | None,
    min_cosine: float | None,
    min_top1: float | None,
    overwrite: bool,
    seed: int,
) -> None:
    """Add graphs in FP16, BF16, INT8 or FP8, inside an accuracy budget.

    The pictures of --calibration-data go through the bundle's own preprocessing. Ranges are
    measured on some and accuracy on others that were held out. 500 pictures or more of what the
    camera will see are a good number.

    When the budget is missed, outliers are moved into the weights (SmoothQuant), then other ranges
    are tried, then the most sensitive blocks go back to higher precision until it holds. When it
    cannot be held nothing is written, and the exit code is 1.

    A graph with 8 bits is made for --target: tensorrt (Q/DQ, the rest FP16) or cpu (ONNX Runtime).
    """
    from clipdeploy.pictures import read_lines
    from clipdeploy.quantize import QuantizeRequest, quantize_bundle

    request = QuantizeRequest(
        bundle=bundle,
        precision=precision,
        data=data,
        samples=samples,
        target=target,
        method=method,
        towers=_TOWERS[tower],
        labels=(
            *(part.strip() for part in (labels or "").split(",") if labels),
            *(read_lines(labels_file, what="labels") if labels_file else ()),
        ),
        templates=template,
        texts=() if texts is None else read_lines(texts, what="texts"),
        cosine_mean=None if max_drop is None else 1.0 - max_drop,
        cosine_min=min_cosine,
        top1=min_top1,
        overwrite=overwrite,
        seed=seed,
    )
    outcome = quantize_bundle(request, progress=console.progress)
    console.result(outcome_json(outcome), "\n\n".join(tower_text(result) for result in outcome.towers))
    name = one_line(str(bundle))
    chosen = f"--precision {precision}" + (" --target tensorrt" if outcome.towers[0].target == "tensorrt" else "")
    pages = [file for file in outcome.files if file.endswith(".html")]
    console.note(
        f"\nNext:\n  clipdeploy verify {name} {chosen}\n  and look at {', '.join(f'{name}/{p}' for p in pages)}"
    )


def outcome_json(outcome: QuantizeOutcome) -> dict[str, Any]:
    """The outcome as plain JSON types."""
    from clipdeploy.quantize.report import record

    return {
        "bundle": outcome.bundle,
        "seconds": outcome.seconds,
        "files": list(outcome.files),
        "towers": [record(result) for result in outcome.towers],
    }


def tower_text(result: TowerQuantised) -> str:
    """What became of an encoder: its layers, the frontier, and what came out."""
    from clipdeploy.quantize.report import LAYER_HEAD, TRIAL_HEAD, layer_rows, summary, trial_rows

    blocks = [
        f"{result.tower.value} encoder, {result.precision.value}",
        table(LAYER_HEAD, layer_rows(result), right=(2,)),
        "",
        table(TRIAL_HEAD, trial_rows(result), right=range(1, 6)),
        "",
        pairs(summary(result)),
    ]
    return "\n".join(blocks)
