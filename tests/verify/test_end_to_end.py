"""The ladder with the real runtime, on a bundle of two tiny ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import Tower
from clipdeploy.verify import GoldenReference, ParityReport, text_table, verify, write_golden
from tests.bundles import IMAGE_SIZE, image_weights, make_bundle, text_weights, write_image_graph
from tests.verify.conftest import as_any
from tests.verify.fakes import FakeCheckpoint, unit

for library in ("onnx", "onnxruntime"):
    pytest.importorskip(library)
transforms = pytest.importorskip("torchvision.transforms")


class TinyCheckpoint(FakeCheckpoint):
    """torchvision's transform and the graphs' arithmetic in numpy."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(spec=bundle.model)
        self._tokenizer = Tokenizer(bundle.path("tokenizer.json"), bundle.model.tokens)
        bicubic = transforms.InterpolationMode.BICUBIC
        self._steps = [transforms.Resize(IMAGE_SIZE, bicubic), transforms.CenterCrop(IMAGE_SIZE)]

    def reference_crop(self, image: Image.Image) -> np.ndarray:
        for step in self._steps:
            image = step(image)
        return np.asarray(image.convert("RGB"))

    def reference_tokens(self, texts: Sequence[str]) -> np.ndarray:
        return self._tokenizer(list(texts))

    def reference_image_embeds(self, pixels: np.ndarray) -> np.ndarray:
        return unit(pixels.reshape(len(pixels), -1).astype(np.float64) @ image_weights())

    def reference_text_embeds(self, ids: np.ndarray) -> np.ndarray:
        return unit(text_weights(self.spec.tokens.vocab_size)[ids].mean(axis=1, dtype=np.float64))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle.open(make_bundle(tmp_path / "tiny"))
    write_golden(as_any(TinyCheckpoint(made)), made)
    return made


def climb(bundle: Bundle) -> ParityReport:
    with clipdeploy.load(bundle.folder, backend="onnxruntime", self_test=False) as clip:
        return verify(bundle, reference=GoldenReference(bundle), clip=clip)


def test_the_runtime_holds(bundle: Bundle) -> None:
    report = climb(bundle)
    assert report.passed, text_table(report)
    assert report.backend.startswith("onnxruntime")
    assert report.versions["tokenizers"]


def test_a_graph_of_other_weights_is_the_image_tower(bundle: Bundle, tmp_path: Path) -> None:
    other = write_image_graph(tmp_path / "other.onnx", image_weights(seed=9))
    entry = bundle.manifest.files["visual.onnx"]
    bundle.add("visual.onnx", other, kind="graph", origin="tests", tower=Tower.IMAGE, precision=entry.precision)
    report = climb(bundle)
    assert report.first_drift == "image_tower"
    assert report.stage("text_tower").passed
