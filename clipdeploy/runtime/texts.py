"""Texts to embeddings: the tokenizer and the text encoder, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError
from clipdeploy.runtime.batches import BATCH_SIZE, batches, check_batch_size, joined
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.lengths import WINDOW
from clipdeploy.runtime.session import Embeddings
from clipdeploy.runtime.text_bank import check_lengths
from clipdeploy.spec import Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.tokenizer import Tokenizer


class Texts:
    """The text side of a bundle. Safe to share between threads.

    Args:
        bundle: opened.
        encoders: which run its text encoder.
    """

    def __init__(self, bundle: Bundle, encoders: Encoders) -> None:
        self._bundle, self._encoders = bundle, encoders
        self._tokenizer: Tokenizer | None = None
        self._making = Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to `(N, context_length)` int64 ids, as the checkpoint's own tokenizer makes them; made at first use."""
        if self._tokenizer is None:
            with self._making:
                if self._tokenizer is None:
                    from clipdeploy.runtime.tokenizer import Tokenizer

                    self._tokenizer = Tokenizer(self._bundle.path("tokenizer.json"), self._bundle.model.tokens)
        return self._tokenizer

    def encode(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> Embeddings:
        """N texts -> (N, D) float32. Too long a text is cut as the checkpoint cuts it; raises TextError for no text."""
        check_batch_size(batch_size)
        dtype = self._bundle.model.text.input.dtype
        rows = [
            self._encoders.run(Tower.TEXT, self.tokenizer(batch).astype(dtype, copy=False), batch_size)
            for _, batch in batches(texts, batch_size * WINDOW)
        ]
        return joined(rows, self._bundle.model.embed_dim)

    def encode_tokens(self, input_ids: NDArray[np.integer], batch_size: int = BATCH_SIZE) -> Embeddings:
        """(N, context_length) int64 or int32 -> (N, D) float32; raises InputError for ids of another kind."""
        spec = self._bundle.model.tokens
        if not isinstance(input_ids, np.ndarray) or input_ids.dtype not in (np.int32, np.int64):
            given = getattr(input_ids, "dtype", type(input_ids).__name__)
            raise InputError(f"input_ids must be an ndarray of int64 or int32, got {given}")
        if input_ids.size and not (input_ids.min() >= 0 and input_ids.max() < spec.vocab_size):
            raise InputError(
                f"input_ids must lie in 0..{spec.vocab_size - 1}, got {input_ids.min()}..{input_ids.max()}",
                fix="make them with the bundle's own tokenizer: clip.tokenizer(texts)",
            )
        dtype = self._bundle.model.text.input.dtype
        return self._encoders.run(Tower.TEXT, input_ids.astype(dtype, copy=False), batch_size)

    def check_lengths(self, texts: Sequence[str]) -> None:
        """Raise TextError for a text that the tokenizer would cut."""
        check_lengths(texts, lambda: self.tokenizer, self._bundle.model.tokens.context_length)
