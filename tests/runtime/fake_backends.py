"""Inference engines of the imagination, which answer rightly, wrongly, slowly or not at all; and a bundle for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.session import check_batch
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import ModelSpec, Precision, Tower
from clipdeploy.verify import write_golden
from tests.bundles import image_weights, make_bundle, text_weights
from tests.verify.conftest import as_any
from tests.verify.fakes import FakeCheckpoint, unit


def see(pixels: np.ndarray) -> np.ndarray:
    """What the tiny image graph computes: (N, 3, H, W) -> (N, D) float32."""
    return unit(pixels.reshape(len(pixels), -1).astype(np.float64) @ image_weights())


def read(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """What the tiny text graph computes: (N, L) -> (N, D) float32."""
    return unit(text_weights(vocab_size)[ids].mean(axis=1, dtype=np.float64))


class OwnCheckpoint(FakeCheckpoint):
    """The tiny graphs' arithmetic in numpy, behind the runtime's own preprocessing."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(spec=bundle.model)
        self._images = ImageProcessor(bundle.model.pixels, workers=1)
        self._tokenizer = Tokenizer(bundle.path("tokenizer.json"), bundle.model.tokens)

    def reference_crop(self, image: Image.Image) -> np.ndarray:
        return np.asarray(self._images.crop(image))

    def reference_tokens(self, texts: Sequence[str]) -> np.ndarray:
        return self._tokenizer(list(texts))

    def reference_image_embeds(self, pixels: np.ndarray) -> np.ndarray:
        return see(pixels)

    def reference_text_embeds(self, ids: np.ndarray) -> np.ndarray:
        return read(ids, self.spec.tokens.vocab_size)


def golden_bundle(folder: Path, precisions: Sequence[Precision] = (Precision.FP32, Precision.FP16)) -> Bundle:
    """A tiny bundle with golden samples."""
    bundle = Bundle.open(make_bundle(folder, precisions=precisions))
    write_golden(as_any(OwnCheckpoint(bundle)), bundle)
    return bundle


Change = Callable[[np.ndarray], np.ndarray]


@dataclass
class Nature:
    """How an engine of the imagination is.

    Attributes:
        seconds: that a run takes.
        changes: of an encoder's answers.
        loads: whether it does.
        largest: rows of a run, at most.
    """

    seconds: float = 0.0
    changes: dict[Tower, Change] = field(default_factory=dict)
    loads: bool = True
    largest: int | None = None


@dataclass
class Engines:
    """What `open_session` opens instead; counts and keeps what was opened."""

    spec: ModelSpec
    natures: dict[tuple[str, Precision], Nature] = field(default_factory=dict)
    opened: list[tuple[str, Precision, Tower]] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def open_session(
        self, graph: Path, *, backend: str, precision: Precision, usual_batch: int, **options: Any
    ) -> FakeSession:
        tower = Tower.IMAGE if graph.name.startswith("visual") else Tower.TEXT
        self.opened.append((backend, precision, tower))
        nature = self.natures.get((backend, precision), Nature())
        if not nature.loads:
            raise BackendError(f"{backend} cannot load {graph.name}", fix="none")
        self.sessions.append(FakeSession(f"{backend}:fake", tower, self.spec, nature))
        return self.sessions[-1]

    def batches(self) -> list[int]:
        """Sizes of all batches that were run, in order."""
        return [size for session in self.sessions for size in session.batches]


class FakeSession:
    """A `Session` in numpy."""

    def __init__(self, name: str, tower: Tower, spec: ModelSpec, nature: Nature) -> None:
        self.name, self.tower, self._spec, self._nature = name, tower, spec, nature
        self.input, self.output = spec.tower(tower).input, spec.tower(tower).output
        self.largest_batch = nature.largest
        self.batches: list[int] = []
        self.closed = False

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert not self.closed
        check_batch(batch, self.input)
        assert self.largest_batch is None or len(batch) <= self.largest_batch
        self.batches.append(len(batch))
        time.sleep(self._nature.seconds)
        answers = see(batch) if self.tower is Tower.IMAGE else read(batch, self._spec.tokens.vocab_size)
        return self._nature.changes.get(self.tower, lambda rows: rows)(answers)

    def close(self) -> None:
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, backends: Sequence[str], **natures: Nature) -> Engines:
    """Have these backends on this machine, and no others; `natures` by names such as `openvino_fp16`."""
    engines = Engines(bundle.model)
    for name, nature in natures.items():
        backend, _, precision = name.rpartition("_")
        engines.natures[(backend, Precision(precision))] = nature
    monkeypatch.setattr("clipdeploy.runtime.chosen.open_session", engines.open_session)
    monkeypatch.setattr("clipdeploy.runtime.backends._require", lambda name: None)
    monkeypatch.setattr("clipdeploy.runtime.choose._require_bf16", lambda backend: None)
    monkeypatch.setattr("clipdeploy.runtime.auto.candidates.installed_backends", lambda: tuple(backends))
    monkeypatch.setattr("clipdeploy.runtime.auto.decide.possible_backends", lambda: tuple(backends))
    monkeypatch.setattr(
        "clipdeploy.runtime.fingerprint.library_version", lambda engine: engines.versions.get(engine, "1.0")
    )
    return engines
