"""What the checks ask of a checkpoint, each question asked once: a few tiny batches, and what stands on its modules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import CheckpointError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import ModelSpec

Floats = NDArray[np.float32]

SAME = 1e-5
"""Embeddings of length 1 that differ by no more than this in any value are the same one."""

_TEXTS = ["a cat", "two dogs running on a beach"]
# What can go wrong in a foreign network that is given what its description says it takes.
_FAILURES = (RuntimeError, IndexError, ValueError, TypeError)


@dataclass(frozen=True, eq=False)
class TextAnswers:
    """Embeddings `(D,) float32`, of length 1, of one short text and of its variations.

    Attributes:
        plain: the text as its tokenizer gives it.
        again: the same, in the same batch.
        words_behind: the places behind its end token hold a word in place of padding.
        ends_behind: they hold end tokens.
        other_word: its last word is the start token, or another word where there is none.
        other: of another text.
        behind: how many places there are behind the end token; None when it has no end token.
    """

    plain: Floats
    again: Floats
    words_behind: Floats
    ends_behind: Floats
    other_word: Floats
    other: Floats
    behind: int | None


@dataclass(frozen=True, eq=False)
class ImageAnswers:
    """Embeddings `(D,) float32`, of length 1, of two pictures; `again` is the first in the same batch."""

    first: Floats
    again: Floats
    other: Floats


class Probe:
    """A checkpoint and its answers.

    Args:
        checkpoint: the checkpoint; it stays as it is.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.spec: ModelSpec = checkpoint.spec

    @cached_property
    def transformers(self) -> bool:
        """Whether the transformers library owns the format; open_clip otherwise."""
        return type(self.checkpoint.model).__module__.startswith(("transformers.", "clipdeploy.export.huggingface."))

    @property
    def model_file(self) -> str:
        """Where a user states the architecture."""
        return "config.json" if self.transformers else "model_cfg of open_clip_config.json"

    @property
    def pixel_file(self) -> str:
        """Where a user states the preprocessing."""
        return "preprocessor_config.json" if self.transformers else "preprocess_cfg of open_clip_config.json"

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """(2, L) int64: the ids of two texts, as the checkpoint's own tokenizer gives them."""
        return self.checkpoint.reference_tokens(_TEXTS)

    @cached_property
    def text(self) -> TextAnswers:
        """What the text tower says; raises CheckpointError when it cannot answer."""
        spec = self.spec.tokens
        plain, other = self.tokens
        ends = np.flatnonzero(plain == spec.end_id)
        # A first token that is the end token too would be a start token.
        end = int(ends[ends > 0][0]) if (ends > 0).any() else None
        last = len(plain) - 1 if end is None else end
        word = plain[last - 1]
        words, closed, changed = plain.copy(), plain.copy(), plain.copy()
        words[last + 1 :] = word
        closed[last + 1 :] = spec.end_id
        # Tokens that were never trained on may share one embedding; the start token was.
        words_of_other = (int(one) for one in other if one not in (word, spec.end_id))
        changed[last - 1] = next(words_of_other, word) if spec.start_id is None else spec.start_id
        rows = np.stack([plain, plain, words, closed, changed, other])
        embeds = self._answers("text", self.checkpoint.reference_text_embeds, rows)
        behind = None if end is None else len(plain) - 1 - end
        return TextAnswers(embeds[0], embeds[1], embeds[2], embeds[3], embeds[4], embeds[5], behind)

    @cached_property
    def pixels(self) -> Floats:
        """(2, 3, H, W) float32: noise, and soft stripes."""
        height, width = self.spec.pixels.height, self.spec.pixels.width
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        wave = np.sin(np.arange(width)[None, :, None] * np.array([0.11, 0.17, 0.23])) * 100 + 128
        stripes = np.broadcast_to(wave, (height, width, 3)).astype(np.uint8)
        return ImageProcessor(self.spec.pixels, workers=1).normalize(np.stack([noise, stripes]))

    @cached_property
    def image(self) -> ImageAnswers:
        """What the image tower says; raises CheckpointError when it cannot answer."""
        first, other = self.pixels
        embeds = self._answers("image", self.checkpoint.reference_image_embeds, np.stack([first, first, other]))
        return ImageAnswers(*embeds)

    def _answers(self, tower: str, encode: Any, rows: NDArray[Any]) -> Floats:
        try:
            return np.asarray(encode(rows))
        except _FAILURES as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"the {tower} tower cannot take what its description says, {rows.dtype} of {rows.shape}: {why}",
                fix=f"state the sizes that the weights were trained with in {self.model_file}",
            ) from error


def apart(one: Floats, other: Floats) -> float:
    """The largest difference between two embeddings; infinite where one is not finite."""
    with np.errstate(invalid="ignore"):
        distance = float(np.abs(one - other).max())
    return distance if np.isfinite(distance) else np.inf
