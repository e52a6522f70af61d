"""SigLIP's tokenizer as transformers has it: special tokens cut out, each piece cleaned by Python's own rules, then
SentencePiece's unigram.
"""

from __future__ import annotations

import base64
import re
import string
from typing import Any

from clipdeploy.runtime.unigram import CharacterMap, Unigram
from clipdeploy.spec import TokenSpec

RULE = "siglip"
"""The mark of a tokenizer.json that this module reads, in `normalizer.clipdeploy.rule`."""

_SPACE = "\u2581"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipText:
    """Texts to ids.

    Args:
        content: of a marked `tokenizer.json`.
        spec: length and special ids.

    Raises:
        KeyError, IndexError, TypeError, ValueError, struct.error: the content is not that of a marked file.
    """

    def __init__(self, content: dict[str, Any], spec: TokenSpec) -> None:
        rules, model = content["normalizer"]["clipdeploy"], content["model"]
        blob = base64.b64decode(rules["characters"], validate=True)
        self._map = CharacterMap(blob, prefix=bool(rules["prefix"]), trim=bool(rules["trim"]))
        self._unigram = Unigram(model["vocab"], unknown=model["unk_id"], control=rules["control"])
        self._lower = bool(rules["lower"])
        self._special = {token["content"]: int(token["id"]) for token in content["added_tokens"]}
        tokens = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, tokens)) + ")")
        self._unknown = str(rules["unknown"])
        self._unknown_count = len(self._unigram.pieces(self._map(self._unknown)))
        self._length, self._end = spec.context_length, spec.end_id
        self.ends = (None, int(content["post_processor"]["special_tokens"][rules["end"]]["ids"][0]))

    def cut(self, text: str) -> list[int]:
        """At most `context_length` ids; a text that spells the end token itself gets no second one behind it."""
        return self._closed(self._text_ids(text)[: self._length - 1])

    def count(self, text: str) -> int:
        """How many ids the whole text has."""
        return len(self._closed(self._text_ids(text)))

    def _closed(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self._end else [*ids, self._end]

    def _text_ids(self, text: str) -> list[int]:
        tokens = self._tokens(text)
        if len(tokens) > 1 and tokens[0] == _SPACE and tokens[1] in self._special:
            del tokens[0]
        return [self._special.get(token, self._unigram.id_of(token)) for token in tokens]

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = []
        for i, part in enumerate(self._split.split(_SPACE + text.replace(_SPACE, " "))):
            tokens += [part] if i % 2 else self._pieces(part)  # every other part is a special token
        return tokens

    def _pieces(self, text: str) -> list[str]:
        """Read behind the unknown token's name, which is cut off again: so no space is put before the first word.

        White space at the ends goes, whether or not the special token beside it would take it along.
        """
        text = (text.lower() if self._lower else text).translate(_NO_PUNCTUATION)
        pieces = self._unigram.pieces(self._map(self._unknown + re.sub(r"\s+", " ", text).strip()))
        return pieces[self._unknown_count :] if len(pieces) >= self._unknown_count else pieces


def has_mark(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is one that this module reads."""
    normalizer = content.get("normalizer")
    mark = normalizer.get("clipdeploy") if isinstance(normalizer, dict) else None
    return isinstance(mark, dict) and mark.get("rule") == RULE
