"""Who is exact enough to be compared: embeddings of the same files and texts beside open_clip's in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bench.peers.catalogue import Gate
from bench.peers.turns import Row, Work, embeds_texts

EXACT = 0.9999
FEW_BITS_MEAN, FEW_BITS_LEAST = 0.99, 0.98
_PICTURES, _SLOW_PICTURES = 16, 4

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """Of the first pictures and texts, normalised: (N, D); None for what it does not embed."""

    images: Vectors
    texts: Vectors | None


@dataclass(frozen=True)
class Exactness:
    """How near the embeddings are to the reference's.

    Attributes:
        images_mean, images_least: cosine over the files.
        centred_least: the same after the reference's mean over the files is taken from both: what tells pictures
            apart, of which a network of random weights has little.
        texts_least: cosine over the texts; None for none.
        gate: the strictest that it passes with its pictures; None for none.
        texts_gate: the same with its texts.
    """

    images_mean: float
    images_least: float
    centred_least: float
    texts_least: float | None
    gate: Gate | None
    texts_gate: Gate | None


def embedded(row: Row, work: Work) -> Embedded | None:
    """What it answers for the first files and texts; None when it fails."""
    slow = row.pictures < work.batch
    pictures = work.pictures[: _SLOW_PICTURES if slow else _PICTURES]
    images = _vectors(row, pictures, [], work.batch)
    if images is None:
        return None
    texts = _vectors(row, [], work.texts[: work.text_batch], work.text_batch) if embeds_texts(row) else None
    return None if row.failed else Embedded(images, texts)


def exactness(mine: Embedded, reference: Embedded) -> Exactness:
    """How near `mine` is to the reference's."""
    images = _cosines(mine.images, reference.images)
    mean = reference.images.mean(axis=0)
    centred = _cosines(_unit(mine.images - mean), _unit(reference.images - mean))
    texts = None if mine.texts is None or reference.texts is None else _cosines(mine.texts, reference.texts)
    return Exactness(
        images_mean=round(float(images.mean()), 6),
        images_least=round(float(images.min()), 6),
        centred_least=round(float(centred.min()), 4),
        texts_least=None if texts is None else round(float(texts.min()), 6),
        gate=_gate(images),
        texts_gate=None if texts is None else _gate(texts),
    )


def _gate(cosines: Vectors) -> Gate | None:
    if float(cosines.min()) >= EXACT:
        return "float32"
    return "few bits" if cosines.mean() >= FEW_BITS_MEAN and cosines.min() >= FEW_BITS_LEAST else None


def _vectors(row: Row, pictures: list[str], texts: list[str], batch: int) -> Vectors | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vectors"
        lengths = row.ask("vectors", to=str(path), paths=pictures, texts=texts, batch=batch)
        if lengths is None:
            return None
        if len(set(lengths)) != 1:
            row.failed = f"its embeddings have different lengths: {sorted(set(lengths))}"
            return None
        return _unit(np.fromfile(path, np.float32).reshape(len(lengths), lengths[0]))


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _cosines(mine: Vectors, reference: Vectors) -> Vectors:
    """Of each row of mine with the reference's of the same number."""
    if mine.shape[1] != reference.shape[1]:
        return np.zeros(len(mine), np.float32)
    return np.asarray((mine * reference[: len(mine)]).sum(axis=1), dtype=np.float32)
