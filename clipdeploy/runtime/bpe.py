"""Byte-pair merging, as the `tokenizers` library does it.

Written here since that library brings a model-hub client along: together a sixth of what a device has to install.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

_GONE = ""


class BytePairs:
    """Words to ids by a vocabulary and a ranked list of merges (Sennrich et al., arXiv:1508.07909).

    Args:
        vocabulary: id of each piece; every single byte's letter is one, with and without `suffix`.
        merges: pairs of pieces, the first learnt first: as `["a b", ...]` or `[["a", "b"], ...]`.
        suffix: marks the last letter of a word.

    Raises:
        KeyError, ValueError: a merge is no pair, or makes a piece that is not in the vocabulary.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[str | Sequence[str]], suffix: str) -> None:
        self._ids = {**vocabulary}
        self._suffix = suffix
        # Kept as "left right", as files have them: there are tens of thousands, and a process waits for this at its
        # first text.
        pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        for pair in self._ranks:
            piece = pair.replace(" ", "")
            if piece not in vocabulary or len(piece) != len(pair) - 1:
                raise _fault(pair)

    def __call__(self, word: str) -> tuple[int, ...]:
        """The ids of a word given in byte letters; in n log n steps, since a text may be one endless word."""
        pieces = [*word[:-1], word[-1] + self._suffix]
        before, after = list(range(-1, len(pieces) - 1)), list(range(1, len(pieces) + 1))
        heap = [(rank, i) for i in range(len(pieces) - 1) if (rank := self._rank(pieces, i, i + 1)) is not None]
        heapify(heap)
        while heap:
            rank, i = heappop(heap)
            j = after[i]
            if j >= len(pieces) or self._rank(pieces, i, j) != rank:
                continue  # one of the two was merged with another meanwhile
            pieces[i] += pieces[j]
            pieces[j] = _GONE
            after[i] = after[j]
            if after[i] < len(pieces):
                before[after[i]] = i
            for left, right in ((before[i], i), (i, after[i])):
                if left >= 0 and right < len(pieces) and (rank_ := self._rank(pieces, left, right)) is not None:
                    heappush(heap, (rank_, left))
        return tuple(self._ids[piece] for piece in pieces if piece != _GONE)

    def _rank(self, pieces: list[str], left: int, right: int) -> int | None:
        return self._ranks.get(f"{pieces[left]} {pieces[right]}")


def _fault(pair: str) -> Exception:
    """What is wrong with a merge."""
    pieces = pair.split(" ")
    if len(pieces) != 2:
        return ValueError(f"a merge is a pair of pieces, not {pair!r}")
    return KeyError(f"merge {pieces[0]!r} + {pieces[1]!r} makes a piece that the vocabulary lacks")
