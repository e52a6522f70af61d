"""What a stream asks: a model and its labels, frames in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.runtime.classifier import LabelSet
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, resolve_templates
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.stream.colour import to_rgb
from clipdeploy.runtime.stream.records import Frame, Scores
from clipdeploy.spec import Precision, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.baked import Baked
    from clipdeploy.runtime.clip import Clip


@runtime_checkable
class Answerer(Protocol):
    """A model and its labels. Safe to share between threads."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels that the next answer is of."""

    def answer(self, frames: Sequence[Frame]) -> Scores:
        """How well the labels fit N frames, which may be of several sizes: (N, K), in the order given."""


class ClipAnswerer:
    """Asks a `Clip`. Labels can be swapped while it answers; every answer is of one set.

    Args:
        clip: an opened bundle; it stays the caller's, who closes it.
        labels: K distinct texts.
        template: as for `Clip.encode_labels`.
        in_graph: whether frames go into the bundle's frame graph, which resizes and normalises them in the engine:
            None where it has one of a frame's size and colour, True always (others are an InputError), False never.

    Raises:
        TextError: a label or template is empty, given twice, or too long for the model.
    """

    def __init__(
        self,
        clip: Clip,
        labels: Sequence[str],
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        *,
        in_graph: bool | None = None,
    ) -> None:
        self._clip = clip
        self._in_graph = in_graph
        self._graphs = frozenset((spec.width, spec.height, spec.color) for spec in clip.frames)
        self._swapping = Lock()
        self._now = self._set(labels, template)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the next answer is of."""
        return self._now.labels

    @property
    def templates(self) -> tuple[str, ...]:
        """What the labels were put into."""
        return self._now.templates

    @property
    def embedding_space(self) -> str:
        """Of the bundle."""
        return self._clip.embedding_space

    @property
    def precision(self) -> str:
        """That the image encoder runs in."""
        precision: Precision = self._clip.precisions[Tower.IMAGE]
        return precision.value

    def swap(self, labels: Sequence[str], template: str | Sequence[str] | None = None) -> None:
        """Replace the labels; None keeps the template. Raises TextError, and the labels stay."""
        with self._swapping:
            self._now = self._set(labels, self._now.templates if template is None else template)

    def answer(self, frames: Sequence[Frame]) -> Scores:
        """How well the labels fit N frames; those that go through one graph go in one run of the encoder.

        Raises:
            ImageError: a frame is no picture. InputError: no frame graph fits it, where `in_graph` is True.
            BackendError: the engine failed.
        """
        now = self._now
        embeds = np.empty((len(frames), self._clip.spec.embed_dim), np.float32)
        for key, rows in self._groups(frames).items():
            chosen = [frames[row] for row in rows]
            embeds[rows] = self._encode_pictures(chosen) if key is None else self._encode_frames(chosen)
        logits = embeds.astype(np.float64) @ now.weights + now.spec.logit_bias
        return Scores(now.labels, logits, probabilities(logits, now.spec.probability))

    def _groups(self, frames: Sequence[Frame]) -> dict[tuple[Any, ...] | None, list[int]]:
        """Which frames go into one run: those of one frame graph, and None for all that become pictures."""
        groups: dict[tuple[Any, ...] | None, list[int]] = {}
        for row, frame in enumerate(frames):
            key = (frame.width, frame.height, frame.color)
            in_graph = key in self._graphs if self._in_graph is None else self._in_graph
            groups.setdefault(key if in_graph else None, []).append(row)
        return groups

    def _encode_frames(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        pixels = _one_or_many([frame.pixels for frame in frames])
        embeds: NDArray[np.float32] = self._clip.encode_frames(pixels, color=frames[0].color, batch_size=len(frames))
        return embeds

    def _encode_pictures(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        same = all(frame.color == "bgr" for frame in frames)
        pictures = [frame.pixels if same else to_rgb(frame) for frame in frames]
        return self._clip.encode_image(_one_or_many(pictures), color="bgr" if same else "rgb", batch_size=len(pictures))

    def _set(self, labels: Sequence[str], template: str | Sequence[str]) -> LabelSet:
        names, templates = check_labels(labels), resolve_templates(template)
        return LabelSet.made(names, templates, self._clip.encode_labels(names, templates), self._clip.spec)


class BakedAnswerer:
    """Asks a `Baked`, whose labels are in its engine.

    Args:
        baked: an opened baked bundle; it stays the caller's, who closes it.

    Raises:
        InputError: it gives embeddings, and has no labels.
    """

    def __init__(self, baked: Baked) -> None:
        if not baked.labels:
            raise InputError(
                "this bundle was baked without labels and gives embeddings",
                fix="bake it with labels: clipdeploy bake BUNDLE --labels FILE -o OUT",
            )
        self._baked = baked

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it was baked with."""
        return self._baked.labels

    @property
    def templates(self) -> tuple[str, ...]:
        """What the labels were put into."""
        return self._baked.templates

    @property
    def embedding_space(self) -> str:
        """Of the bundle that it was baked from."""
        return self._baked.baked.embedding_space

    @property
    def precision(self) -> str:
        """That it runs in."""
        return self._baked.precision.value

    def answer(self, frames: Sequence[Frame]) -> Scores:
        """How well the labels fit N frames, in one run.

        Raises:
            InputError: a frame is not what the bundle was baked for. ImageError: it is no picture.
            BackendError: the engine failed.
        """
        wanted = self._baked.frame
        if wanted is None:
            found = self._baked.logits(_one_or_many([to_rgb(frame) for frame in frames]), color="rgb")
        else:
            color = next((frame.color for frame in frames if frame.color != wanted.color), wanted.color)
            found = self._baked.logits(_one_or_many([frame.pixels for frame in frames]), color=color)
        logits = found.astype(np.float64)
        return Scores(self.labels, logits, probabilities(logits, self._baked.spec.probability))


def _one_or_many(arrays: list[NDArray[np.uint8]]) -> Any:
    """One array as it is, which neither is copied nor needs another thread; many as a list."""
    return arrays if len(arrays) > 1 else arrays[0]
