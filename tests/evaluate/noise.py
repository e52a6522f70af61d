"""Pictures of noise in the folders of what a tiny bundle calls them in fp32; its fp16 graph is off on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipdeploy.bundle import Bundle
from clipdeploy.runtime.clip import load
from clipdeploy.spec import Precision, Tower
from tests.bundles import image_weights, make_bundle, write_image_graph

CLASSES = ("cat", "dog", "fox", "owl", "elk", "ant")
_NOISE = 0.2


def noise_bundle(folder: Path) -> Path:
    """fp32 graphs, and an image graph called fp16 whose weights are off."""
    make_bundle(folder)
    weights = image_weights()
    off = np.random.default_rng(5).standard_normal(weights.shape).astype(np.float32) * _NOISE
    graph = write_image_graph(folder.parent / "off.onnx", weights + off)
    kinds: dict[str, Any] = {"tower": Tower.IMAGE, "precision": Precision.FP16, "opset": 19}
    Bundle.open(folder).add(Tower.IMAGE.graph_name(Precision.FP16), graph, kind="graph", origin="tests", **kinds)
    return folder


def noise_data(folder: Path, bundle: Path, *, count: int) -> Path:
    """`count` pictures of 32 x 32 px, in a folder for each of `CLASSES`."""
    pictures = np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    with load(bundle, backend="onnxruntime") as clip:
        answers = [answer.label for answer in clip.classify(pictures, CLASSES, top=1)]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        Image.fromarray(picture).save(folder / answer / f"{number:03d}.png")
    return folder
