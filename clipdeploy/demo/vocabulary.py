"""The few of CLIP's 49408 tokens that captions use, numbered on their own while training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipdeploy.demo.world import COLOURS, SHAPES, SIZES, TEXTURES

_TELLING = (*COLOURS, *SHAPES, *SIZES, *TEXTURES, "left", "right", "above", "over", "below", "under", "and", "of", "to")


class Vocabulary:
    """Row 0 stands for every token never seen: a row of zeros."""

    def __init__(self, tokenizer: Any, texts: list[list[str]]) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        ids = {i for row in texts for text in row for i in self._ids(text)}
        self.ids = torch.tensor([-1, *sorted(ids)])
        self._row = {int(i): n for n, i in enumerate(self.ids.tolist())}
        self.size = len(self.ids)
        telling = {i for word in _TELLING for i in self._ids(word)}  # with the start and the end of a text
        self._filler = torch.tensor([int(i) not in telling for i in self.ids.tolist()])

    def _ids(self, text: str) -> list[int]:
        """CLIP's tokens of a text, start and end included, the BPE done once a word."""
        found: list[int] = [self.tokenizer.sot_token_id]
        for word in text.lower().replace(".", " .").split():
            if word not in self._known:
                self._known[word] = self.tokenizer.encode(word)
            found += self._known[word]
        return [*found, self.tokenizer.eot_token_id]

    def tokens(self, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """N x K texts -> (N, K, L) int64 rows of the compact table, 0 after the end, and (N, K) where each ends."""
        flat = [[self._row.get(i, 0) for i in self._ids(text)] for row in texts for text in row]
        tokens = np.zeros((len(flat), max(map(len, flat))), np.int64)
        for n, one in enumerate(flat):
            tokens[n, : len(one)] = one
        shape = (len(texts), len(texts[0]))
        ends = torch.tensor([len(one) - 1 for one in flat])
        return torch.from_numpy(tokens).view(*shape, -1), ends.view(shape)

    def is_filler(self, tokens: Tensor) -> Tensor:
        """Which tokens say nothing that a picture shows: same shape, bool."""
        return self._filler[tokens]

    def compact(self, table: nn.Embedding, *, keep: bool) -> nn.Embedding:
        """A table of `size` rows: those of `table` when `keep`, else as they came by chance; row 0 zero."""
        small = nn.Embedding(self.size, table.embedding_dim)
        with torch.no_grad():
            rows = table.weight[self.ids.clamp(min=0)]
            small.weight.copy_(rows if keep else torch.randn_like(rows) * 0.02)
            small.weight[0] = 0.0
        return small

    def expand(self, small: Tensor, rows: int = 49408) -> Tensor:
        """(size, width) -> (rows, width), zero where no caption went."""
        table = torch.zeros(rows, small.shape[1], dtype=small.dtype)
        table[self.ids[1:]] = small[1:]
        return table
