"""SentencePiece's unigram segmentation, to the last bit of its scores.

The `tokenizers` library reads the same models, but maps characters by another rule (a grapheme at a time, not the
longest entry that fits), so that its ids differ where marks are combined; hence this module.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_SPACE = "\u2581"
_UNKNOWN_PENALTY = 10.0  # kUnkPenalty of sentencepiece's unigram_model.cc
_FLOAT = struct.Struct("<f")


class CharacterMap:
    """SentencePiece's normalisation: the longest entry that fits is replaced, then spaces are put in order.

    Args:
        blob: `precompiled_charsmap` of the model: the size of a double-array trie, the trie (Darts-clone), and the
            replacements, each closed by a zero byte. Empty for a model that maps nothing.
        prefix: whether a text gets a space in front.
        trim: whether spaces at the ends are dropped and runs of them joined.

    Raises:
        struct.error, ValueError: the blob is cut short.
    """

    def __init__(self, blob: bytes, *, prefix: bool, trim: bool) -> None:
        size = struct.unpack_from("<I", blob)[0] if blob else 0
        self._units: tuple[int, ...] = struct.unpack_from(f"<{size // 4}I", blob, 4) if blob else ()
        self._replacements = blob[4 + size :]
        self._prefix, self._trim = prefix, trim

    def __call__(self, text: str) -> str:
        """`text` with `▁` for each space, as the model's pieces have it."""
        data, place = text.encode("utf-8"), 0
        parts: list[bytes] = []
        spaced = self._trim  # what comes first is not preceded by a word
        while place < len(data):
            part, length = self._longest(data, place)
            place += length
            if spaced:
                part = part.lstrip(b" ")
            if part:
                parts.append(part)
                spaced = part.endswith(b" ")
            spaced = spaced and self._trim
        if not data:
            return ""
        mapped = (" " if self._prefix else "") + b"".join(parts).decode("utf-8")
        mapped = mapped.replace(" ", _SPACE)
        return mapped.rstrip(_SPACE) if self._trim else mapped

    def _longest(self, data: bytes, place: int) -> tuple[bytes, int]:
        """What stands for the longest entry at `place`, or for one character, and how many bytes that is."""
        found, length = -1, 0
        if self._units:
            node = _offset(self._units[0])
            for i in range(place, len(data)):
                node ^= data[i]
                unit = self._units[node]
                if unit & 0x800000FF != data[i]:
                    break
                node ^= _offset(unit)
                if unit >> 8 & 1:
                    found, length = self._units[node] & 0x7FFFFFFF, i + 1 - place
        if length:
            return self._replacements[found : self._replacements.index(0, found)], length
        length = _utf8_length(data[place])
        return data[place : place + length], length


class Unigram:
    """The segmentation with the highest score, as sentencepiece finds it.

    Args:
        pieces: piece and score, in the order of the ids.
        unknown: the id of what no piece covers.
        control: ids that never stand for text.

    Raises:
        IndexError, TypeError, ValueError: the pieces are none.
    """

    def __init__(self, pieces: Sequence[tuple[str, float]], *, unknown: int, control: Sequence[int]) -> None:
        hidden = {unknown, *control}
        self._ids = {piece: i for i, (piece, _) in enumerate(pieces)}
        self._scores: Mapping[str, float] = {
            piece: float(score) for i, (piece, score) in enumerate(pieces) if i not in hidden
        }
        self._longest = max(map(len, self._scores))
        self._unknown = unknown
        self._unknown_score = _single(min(self._scores.values()) - _UNKNOWN_PENALTY)

    def pieces(self, text: str) -> list[str]:
        """The pieces of a normalised text; a run of unknown characters is one."""
        pieces: list[str] = []
        unknown = False
        for piece, known in self._segments(text):
            if not known and unknown:
                pieces[-1] += piece
            else:
                pieces.append(piece)
            unknown = not known
        return pieces

    def id_of(self, piece: str) -> int:
        """The id of a piece, or that of what is unknown."""
        return self._ids.get(piece, self._unknown)

    def _segments(self, text: str) -> list[tuple[str, bool]]:
        """The best segments, and whether each is a piece."""
        best = [0.0, *[-float("inf")] * len(text)]  # score of the best segmentation that ends here, single precision
        begin = [0] * (len(text) + 1)
        known = [True] * (len(text) + 1)
        for i in range(len(text)):
            alone = False
            for end in range(i + 1, min(len(text), i + self._longest) + 1):
                score = self._scores.get(text[i:end])
                if score is not None:
                    alone = alone or end == i + 1
                    if (total := _single(best[i] + score)) > best[end]:
                        best[end], begin[end], known[end] = total, i, True
            if not alone and (total := _single(best[i] + self._unknown_score)) > best[i + 1]:
                best[i + 1], begin[i + 1], known[i + 1] = total, i, False
        segments, end = [], len(text)
        while end:
            segments.append((text[begin[end] : end], known[end]))
            end = begin[end]
        return segments[::-1]


def _offset(unit: int) -> int:
    """Where a unit's children lie, in Darts-clone's layout."""
    return unit >> 10 << ((unit & 0x200) >> 6)


def _utf8_length(first: int) -> int:
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _single(value: float) -> float:
    """`value` in single precision, in which sentencepiece adds."""
    rounded: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return rounded
