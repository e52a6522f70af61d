"""A zero-shot classifier over a set of labels, which can be replaced while it answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import overload

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.ahead import PathOf
from clipdeploy.runtime.batches import BATCH_SIZE
from clipdeploy.runtime.image import ImageLike, is_single
from clipdeploy.runtime.labels import check_labels, resolve_templates
from clipdeploy.runtime.many import EmbeddedBatch, Errors
from clipdeploy.runtime.pictures import Frames, Pictures
from clipdeploy.runtime.scores import Classification, probabilities, rank
from clipdeploy.runtime.session import Embeddings
from clipdeploy.runtime.text_bank import TextBank
from clipdeploy.spec import ModelSpec


@dataclass(frozen=True)
class Classified:
    """What became of one picture of many.

    Attributes:
        index: its place among all, from 0.
        source: its path, as given; None for a picture that was in memory.
        answer: how well the labels fit it; None when the picture could not be read.
        error: why it could not.
    """

    index: int
    source: PathOf
    answer: Classification | None
    error: ImageError | None = None


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels, and what turns an embedding into their logits.

    Attributes:
        labels: K distinct texts.
        templates: that they were embedded with.
        weights: (D, K) float64, their embeddings times `logit_scale`.
        spec: of the model, for `logit_bias` and whether chances sum to one.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    weights: NDArray[np.float64]
    spec: ModelSpec

    @classmethod
    def made(cls, labels: tuple[str, ...], templates: tuple[str, ...], bank: Embeddings, spec: ModelSpec) -> LabelSet:
        """From the (K, D) embeddings of the labels."""
        weights = spec.logit_scale * bank.astype(np.float64)
        return cls(labels, templates, np.ascontiguousarray(weights.T), spec)

    def is_of(self, labels: Sequence[str], templates: tuple[str, ...]) -> bool:
        """Whether these are the labels and templates, in this order."""
        return self.templates == templates and isinstance(labels, (list, tuple)) and self.labels == tuple(labels)

    def answers(self, embeds: Embeddings, top: int | None) -> list[Classification]:
        """(N, D) embeddings of pictures -> N answers with the `top` best labels, or all."""
        logits = embeds.astype(np.float64) @ self.weights + self.spec.logit_bias
        chances = probabilities(logits, self.spec.probability)
        count = top or len(self.labels)
        return [rank(self.labels, *row, count) for row in zip(logits, chances, strict=True)]


class LabelSets:
    """Makes sets of labels for a bundle; the last one is kept. Safe to share between threads."""

    def __init__(self, bank: TextBank, spec: ModelSpec) -> None:
        self._bank, self._spec = bank, spec
        self._latest: LabelSet | None = None

    def of(self, labels: Sequence[str], template: str | Sequence[str]) -> LabelSet:
        """The labels as a classifier takes them.

        Raises:
            TextError: a label or template is empty, given twice, or too long for the model; or unknown to a bundle
                without a text encoder.
        """
        templates, latest = resolve_templates(template), self._latest
        if latest is not None and latest.is_of(labels, templates):
            return latest
        names = check_labels(labels)
        made = LabelSet.made(names, templates, self._bank.labels(names, templates), self._spec)
        self._latest = made
        return made


class Classifier:
    """Says which labels fit a picture; made by `Clip.classifier`. Safe to share between threads.

    The labels are embedded once. `swap` replaces them while other threads classify: every answer is of one set, and
    names its labels.
    """

    def __init__(self, pictures: Pictures, sets: LabelSets, labels: LabelSet, top: int | None) -> None:
        check_top(top, len(labels.labels))
        self._pictures, self._sets = pictures, sets
        self._now = labels, top  # replaced as one, so that whoever reads it has a set and its own `top`
        self._swapping = Lock()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the next answer is of."""
        return self._now[0].labels

    @property
    def templates(self) -> tuple[str, ...]:
        """What the labels were put into."""
        return self._now[0].templates

    @property
    def top(self) -> int | None:
        """How many of the best labels an answer tells; None for all."""
        return self._now[1]

    def swap(
        self, labels: Sequence[str], template: str | Sequence[str] | None = None, *, top: int | None = None
    ) -> None:
        """Replace the labels; what is being classified meanwhile is answered with those before.

        Args:
            labels: K distinct texts.
            template: as for `Clip.encode_labels`; None keeps the present one.
            top: how many of the best to tell, 1..K; None keeps the present number.

        Raises:
            TextError: a label or template is empty, given twice, or too long for the model; the labels stay.
            InputError: `top` is not in 1..K; the labels stay.
        """
        with self._swapping:
            before, kept = self._now
            after = self._sets.of(labels, before.templates if template is None else template)
            top = kept if top is None else top
            check_top(top, len(after.labels))
            self._now = after, top

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is one picture before it is an iterable
        self, images: ImageLike, *, color: str = ..., batch_size: int = ...
    ) -> Classification: ...

    @overload
    def classify(
        self, images: Iterable[ImageLike], *, color: str = ..., batch_size: int = ...
    ) -> list[Classification]: ...

    def classify(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Classification | list[Classification]:
        """Say which labels fit: a Classification for one picture, a list of them for many.

        Args:
            images: one picture or many, as for `Clip.encode_image`.
            color: the order of an array's channels, `rgb` or `bgr`.
            batch_size: pictures in one run of the encoder.

        Raises:
            ImageError: a picture cannot be read.
        """
        embeds = self._pictures.encode(images, color=color, batch_size=batch_size)
        answers = self.classify_embeddings(embeds)
        return answers[0] if is_single(images) else answers

    __call__ = classify

    def classify_frames(
        self, frames: Frames, *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> list[Classification]:
        """Say which labels fit raw camera frames, one answer a frame; arguments and errors as for
        `Clip.encode_frames`."""
        embeds = self._pictures.encode_frames(frames, color=color, batch_size=batch_size)
        return self.classify_embeddings(embeds if isinstance(embeds, np.ndarray) else embeds.numpy())

    def classify_embeddings(self, embeddings: Embeddings) -> list[Classification]:
        """Say which labels fit (N, D) embeddings of pictures, all of them with one set of labels."""
        labels, top = self._now
        return labels.answers(embeddings, top)

    def classify_many(
        self,
        images: Iterable[ImageLike],
        *,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        errors: Errors = "raise",
    ) -> Generator[Classified, None, None]:
        """As `Clip.classify_many`; labels that are swapped meanwhile count from the next batch on."""
        batches = self._pictures.batches(images, color=color, batch_size=batch_size, errors=errors)
        return classified(batches, self.classify_embeddings)

    def __repr__(self) -> str:
        return f"<Classifier of {len(self.labels)} labels>"


def classified(
    batches: Generator[EmbeddedBatch, None, None], answers: Callable[[Embeddings], list[Classification]]
) -> Generator[Classified, None, None]:
    """Batches of embeddings to an answer a picture, in order."""
    with closing(batches):
        for batch in batches:
            yield from classify_batch(batch, answers)


def classify_batch(batch: EmbeddedBatch, answers: Callable[[Embeddings], list[Classification]]) -> list[Classified]:
    """What became of every picture of a batch."""
    return [Classified(*result) for result in batch.in_order(answers(batch.embeddings))]


def check_top(top: int | None, count: int) -> None:
    """Raise InputError unless `top` is None or in 1..count."""
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= count):
        raise InputError(f"top must be in 1..{count}, the number of labels, got {top!r}")
