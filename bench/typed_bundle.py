"""A bundle of random weights with the graphs that the runtime's benchmarks compare, made once and kept.

The 8-bit graphs are written by `clipdeploy quantize` from drawn pictures. The accuracy budget is off: rounding costs a
network of random weights what it costs no trained one, and blocks given back for it would change the time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.common import OUT, random_bundle
from clipdeploy.bundle import Bundle
from clipdeploy.quantize import QuantizeRequest, quantize_bundle
from clipdeploy.spec import Precision, Target, Tower

Kind = tuple[Precision, Target | None]
INT8_CPU: Kind = (Precision.INT8, "cpu")
INT8_QDQ: Kind = (Precision.INT8, "tensorrt")
FP16: Kind = (Precision.FP16, None)
PICTURES = 48


def typed_bundle(model: str, kinds: Sequence[Kind], folder: Path | None = None) -> Path:
    """`folder`, or a bundle of `model` in out/bench, with a graph of the image encoder of each kind.

    What a bundle in out/bench lacks is made; one that the caller named is not changed.

    Raises:
        SystemExit: `folder` lacks one.
    """
    own = folder is None
    folder = folder or OUT / f"{model.rsplit('/', 1)[-1]}-typed"
    if own and not folder.is_dir():
        shutil.move(random_bundle(model), folder)
    lacking = [kind for kind in kinds if not _has(folder, kind)]
    if not lacking:
        return folder
    if not own:
        raise SystemExit(f"{folder} has no graph in {', '.join(map(kind_name, lacking))}: clipdeploy quantize makes it")
    with tempfile.TemporaryDirectory() as scratch:
        pictures = draw(Path(scratch))
        for precision, target in lacking:
            print(f"quantising the image encoder to {kind_name((precision, target))}", flush=True)
            request = QuantizeRequest(
                folder,
                precision.value,
                (str(pictures),),
                samples=PICTURES,
                target=target,
                cosine_mean=0.0,
                cosine_min=0.0,
                top1=0.0,
            )
            quantize_bundle(request)
    return folder


def kind_name(kind: Kind) -> str:
    """Such as `int8 for cpu`."""
    precision, target = kind
    return precision.value + (f" for {target}" if target else "")


def clouds(seed: int) -> Image.Image:
    """A picture of smooth colours, another one for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


def draw(folder: Path, count: int = PICTURES) -> Path:
    """`folder` with that many pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        clouds(seed).save(folder / f"{seed:04}.png")
    return folder


def _has(folder: Path, kind: Kind) -> bool:
    bundle = Bundle.open(folder, check_hashes=False)
    precision, target = kind
    if precision not in bundle.precisions(Tower.IMAGE):
        return False
    return target is None or target in bundle.targets(Tower.IMAGE, precision)
