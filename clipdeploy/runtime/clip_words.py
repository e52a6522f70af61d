"""CLIP's byte-pair tokenizer: a text is cut into words here, and each word looked up or merged once.

The words are cut by a pattern of explicit characters, which every engine and Unicode version reads alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from clipdeploy.runtime.bpe import BytePairs
from clipdeploy.spec import TokenSpec

WORDS_MARK = "(?#words)"
"""Opens the split pattern of a tokenizer.json whose words are cut by this module."""

CACHED_WORDS = 1 << 16
_CACHED_WORD_LENGTH = 64


class ClipWords:
    """CLIP's tokenizer as open_clip has it: cleaned texts to ids.

    A special token counts only where the word pattern finds it: in `<<start_of_text>` it is plain characters.

    Args:
        content: of a marked `tokenizer.json`.
        spec: length and special ids.

    Attributes:
        ends: the ids that the file puts before and behind a text.

    Raises:
        KeyError, IndexError, TypeError, ValueError, re.error: the content is not that of a marked file.
    """

    def __init__(self, content: dict[str, Any], spec: TokenSpec) -> None:
        model = content["model"]
        self._merges = BytePairs(model["vocab"], model["merges"], model["end_of_word_suffix"])
        self._pattern = re.compile(content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        self.ends = _ends(content["post_processor"])
        self._room = spec.context_length - 2
        self._byte_letters = _byte_letters()
        self._given = self._words_with_ids(content)
        self._known = dict(self._given)

    def cut(self, text: str) -> list[int]:
        """At most `context_length` ids; only as much of a long text is read as fits."""
        start, end = self.ends
        return [start, *islice(self._word_ids(text), self._room), end]

    def count(self, text: str) -> int:
        """How many ids the whole text has."""
        return 2 + sum(1 for _ in self._word_ids(text))

    def _words_with_ids(self, content: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """The words whose ids are given: the special tokens."""
        return {token["content"]: (int(token["id"]),) for token in content["added_tokens"]}

    def _word_ids(self, text: str) -> Iterator[int]:
        for match in self._pattern.finditer(text):
            word = match.group()
            ids = self._known.get(word)
            yield from ids if ids is not None else self._learn(word)

    def _learn(self, word: str) -> tuple[int, ...]:
        ids = self._merge(word)
        if len(word) <= _CACHED_WORD_LENGTH:
            if len(self._known) >= CACHED_WORDS:
                self._known = dict(self._given)
            self._known[word] = ids
        return ids

    def _merge(self, word: str) -> tuple[int, ...]:
        return self._merges(word.encode("utf-8").decode("latin-1").translate(self._byte_letters))


class ClipPieces(ClipWords):
    """CLIP's tokenizer as transformers has it: it cuts special tokens out first, and cleans what lies between.

    Composition (NFC) and case are those of the `tokenizers` library that the checkpoint's tokenizer ran on, whatever
    Unicode version this Python knows: the file lists the characters that take part in each.
    """

    def __init__(self, content: dict[str, Any], spec: TokenSpec) -> None:
        super().__init__(content, spec)
        rules = content["normalizer"]["clipdeploy"]
        self._composing = re.compile(f"[{rules['composing']}]+")
        self._lower = str.maketrans(rules["lower"])
        self._parts = re.compile(content["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"])
        tokens = content["added_tokens"]
        self._special = {token["content"]: int(token["id"]) for token in tokens}
        self._raw = _any_of([token["content"] for token in tokens if not token["normalized"]])
        self._clean = _any_of([token["content"] for token in tokens if token["normalized"]])

    def _words_with_ids(self, content: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return {}

    def _word_ids(self, text: str) -> Iterator[int]:
        for i, raw in enumerate(self._raw.split(text)):  # every other part is a special token
            if i % 2:
                yield self._special[raw]
                continue
            for j, piece in enumerate(self._clean.split(self._normalise(raw))):
                if j % 2:
                    yield self._special[piece]
                else:
                    yield from super()._word_ids(piece)

    def _merge(self, word: str) -> tuple[int, ...]:
        """Of a word that spells a special token in another way: the ids of its letters and signs apart."""
        return tuple(id_ for part in self._parts.findall(word) for id_ in super(ClipPieces, self)._merge(part))

    def _normalise(self, text: str) -> str:
        if not text.isascii():
            # By Unicode's stability policy, characters that an old version composes are composed alike by all later
            # ones; those that came later stand between the runs and stop nothing from being the same.
            text = self._composing.sub(lambda run: unicodedata.normalize("NFC", run.group()), text)
        return text.translate(self._lower)  # white space stands in no word, so what kind it is makes no difference


def words_mark(content: dict[str, Any]) -> type[ClipWords] | None:
    """Who reads a file that carries our mark; None for any other."""
    try:
        pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    except (KeyError, IndexError, TypeError):
        return None
    if not isinstance(pattern, str) or not pattern.startswith(WORDS_MARK):
        return None
    normalizer = content.get("normalizer")
    return ClipPieces if isinstance(normalizer, dict) and "clipdeploy" in normalizer else ClipWords


def _ends(processor: dict[str, Any]) -> tuple[int, int]:
    """The ids before and behind a text, of either kind of post-processor that a CLIP has."""
    if processor["type"] == "RobertaProcessing":
        return int(processor["cls"][1]), int(processor["sep"][1])
    first, _, last = processor["single"]
    names = first["SpecialToken"]["id"], last["SpecialToken"]["id"]
    start, end = (processor["special_tokens"][name]["ids"][0] for name in names)
    return int(start), int(end)


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """A pattern that splits a text at `tokens`, the longest first, and keeps them."""
    longest = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "(?!)")


def _byte_letters() -> dict[int, int]:
    """For each byte the printable character that stands for it in a byte-level vocabulary.

    Printable Latin-1 bytes stand for themselves and the others for U+0100 onwards, in order (GPT-2's table).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: 0x100 + place for place, byte in enumerate(others)}
