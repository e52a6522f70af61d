"""Texts to token ids, exactly as the checkpoint's own tokenizer makes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdeploy.errors import BundleCorruptError, MissingExtraError, TextError
from clipdeploy.runtime.bpe import BytePairs
from clipdeploy.runtime.cleaning import clean
from clipdeploy.spec import TokenSpec

WORDS_MARK = "(?#words)"
"""Opens the split pattern of a tokenizer.json whose words are cut by this module (see `_ClipWords`)."""

_START, _END = "<start_of_text>", "<end_of_text>"
_CACHED_WORDS = 1 << 16
_CACHED_WORD_LENGTH = 64


class Tokenizer:
    """Texts to ids, from a bundle's `tokenizer.json`.

    Args:
        path: the `tokenizer.json` file.
        spec: cleaning, length and special ids, from the bundle's manifest.

    Raises:
        BundleCorruptError: the file cannot be read, or says something else than `spec`.
        MissingExtraError: it is not CLIP's own tokenizer, and the `tokenizers` library is not installed.
    """

    def __init__(self, path: Path, spec: TokenSpec) -> None:
        self.spec = spec
        content = _read(path)
        pattern = _words_pattern(content)
        self._ids: _ClipWords | _WholeText
        if pattern is not None:
            self._ids = _ClipWords(content, pattern, spec, path)
        else:
            self._ids = _WholeText(content, spec, path)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """The ids of `texts`.

        Args:
            texts: N strings; one string alone is refused, since it is a sequence of its letters.

        Returns:
            `(N, context_length) int64`: start, text, end, then padding. A longer text is cut and keeps its end
            token in the last place.

        Raises:
            TextError: `texts` is not a sequence of strings.
        """
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
            raise TextError(
                f"expected a list of texts, got {type(texts).__name__}", fix="put one text into a list: [text]"
            )
        rows = np.full((len(texts), self.spec.context_length), self.spec.pad_id, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._ids.cut(self._clean(text))
            row[: len(ids)] = ids
        return rows

    def count(self, text: str) -> int:
        """How many ids `text` has before it is cut, start and end included; raises TextError for no string."""
        return self._ids.count(self._clean(text))

    def _clean(self, text: str) -> str:
        if not isinstance(text, str):
            raise TextError(f"expected a text, got {type(text).__name__}: {text!r:.60}", fix="pass strings only")
        return clean(text, self.spec.cleaning)


class _ClipWords:
    """CLIP's byte-pair tokenizer: the text is cut into words here, and each word looked up or merged once.

    The words are cut by a pattern of explicit characters, which every engine and Unicode version reads alike,
    and a special token counts only where that pattern finds it: in `<<start_of_text>` it is plain characters.
    """

    def __init__(self, content: dict[str, Any], pattern: str, spec: TokenSpec, path: Path) -> None:
        try:
            model = content["model"]
            vocabulary = model["vocab"]
            start, end = vocabulary[_START], vocabulary[_END]
            self._merges = BytePairs(vocabulary, model["merges"], model["end_of_word_suffix"])
            self._pattern = re.compile(pattern)
        except (KeyError, TypeError, ValueError, re.error) as error:
            raise _unreadable(path, f"{type(error).__name__} {error}") from error
        if (start, end) != (spec.start_id, spec.end_id):
            raise _disagree(path, f"start and end ids {start}, {end}", spec)
        self._spec = spec
        self._start, self._end = start, end
        self._byte_letters = _byte_letters()
        self._specials = {_START: (start,), _END: (end,)}
        self._known: dict[str, tuple[int, ...]] = dict(self._specials)

    def cut(self, text: str) -> list[int]:
        """At most `context_length` ids; only as much of a long text is read as fits."""
        room = self._spec.context_length - 2
        return [self._start, *islice(self._word_ids(text), room), self._end]

    def count(self, text: str) -> int:
        return 2 + sum(1 for _ in self._word_ids(text))

    def _word_ids(self, text: str) -> Iterator[int]:
        for match in self._pattern.finditer(text):
            word = match.group()
            ids = self._known.get(word)
            yield from ids if ids is not None else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        letters = word.encode("utf-8").decode("latin-1").translate(self._byte_letters)
        ids = self._merges(letters)
        if len(word) <= _CACHED_WORD_LENGTH:
            if len(self._known) >= _CACHED_WORDS:
                self._known = dict(self._specials)
            self._known[word] = ids
        return ids


class _WholeText:
    """Any other tokenizer: the `tokenizers` library does all after the cleaning, as its file says."""

    def __init__(self, content: dict[str, Any], spec: TokenSpec, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise MissingExtraError("tokenizers", extra="tokenizers", needed_for="this bundle's tokenizer") from error
        try:
            self._backend = Backend.from_str(json.dumps(content))
            self._uncut = Backend.from_str(json.dumps({**content, "truncation": None, "padding": None}))
        except Exception as error:  # tokenizers raises nothing narrower
            raise _unreadable(path, str(error)) from error
        cut, pad = self._backend.truncation, self._backend.padding
        if cut is None or cut["max_length"] != spec.context_length:
            raise _disagree(path, f"truncation {cut}", spec)
        if pad is None or (pad["length"], pad["pad_id"]) != (spec.context_length, spec.pad_id):
            raise _disagree(path, f"padding {pad}", spec)

    def cut(self, text: str) -> list[int]:
        """Exactly `context_length` ids, the padding included."""
        ids: list[int] = self._backend.encode(text).ids
        return ids

    def count(self, text: str) -> int:
        return len(self._uncut.encode(text).ids)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleCorruptError(f"there is no tokenizer file {path}", fix="copy the bundle again, whole")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict):
        raise _unreadable(path, f"it holds a {type(content).__name__}")
    return content


def _words_pattern(content: dict[str, Any]) -> str | None:
    """The split pattern of a file that carries our mark, else None."""
    try:
        pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    except (KeyError, IndexError, TypeError):
        return None
    return pattern if isinstance(pattern, str) and pattern.startswith(WORDS_MARK) else None


def _byte_letters() -> dict[int, int]:
    """For each byte the printable character that stands for it in a byte-level vocabulary.

    Printable Latin-1 bytes stand for themselves and the others for U+0100 onwards, in order (GPT-2's table).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: 0x100 + place for place, byte in enumerate(others)}


def _unreadable(path: Path, why: str) -> BundleCorruptError:
    return BundleCorruptError(f"tokenizer file {path} cannot be read: {why}", fix="copy the bundle again, whole")


def _disagree(path: Path, found: str, spec: TokenSpec) -> BundleCorruptError:
    return BundleCorruptError(
        f"tokenizer file {path} has {found}, but the manifest says {spec}", fix="export the checkpoint again"
    )
