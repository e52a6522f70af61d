"""Texts to token ids, exactly as the checkpoint's own tokenizer makes them."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from clipdeploy.errors import BundleCorruptError, MissingExtraError, TextError
from clipdeploy.runtime import siglip
from clipdeploy.runtime.cleaning import clean
from clipdeploy.runtime.clip_words import ClipWords, words_mark
from clipdeploy.spec import TokenSpec


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
        self._ids: ClipWords | siglip.SiglipText | _WholeText
        if (words := words_mark(content)) is not None:
            self._ids = _marked(words, content, spec, path)
        elif siglip.has_mark(content):
            self._ids = _marked(siglip.SiglipText, content, spec, path)
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
            TextError: `texts` is not a sequence of strings, or a string is no text (an unpaired surrogate) for a
                tokenizer that does not mend such.
        """
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
            raise TextError(
                f"expected a list of texts, got {type(texts).__name__}", fix="put one text into a list: [text]"
            )
        rows = np.full((len(texts), self.spec.context_length), self.spec.pad_id, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._ids.cut(self._clean(text))
            row[: len(ids)] = ids
        if self.spec.erased_id is not None:
            rows[rows == self.spec.erased_id] = 0
        if self.spec.last_id is not None:
            rows[:, -1] = self.spec.last_id
        return rows

    def count(self, text: str) -> int:
        """How many ids `text` has before it is cut, start and end included; raises TextError for no string."""
        return self._ids.count(self._clean(text)) + (self.spec.last_id is not None)

    def _clean(self, text: str) -> str:
        if not isinstance(text, str):
            raise TextError(f"expected a text, got {type(text).__name__}: {text!r:.60}", fix="pass strings only")
        if self.spec.cleaning == "none" and not text.isascii():
            _check_encodable(text)
        return clean(text, self.spec.cleaning)


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
        length = spec.context_length - (spec.last_id is not None)
        if cut is None or cut["max_length"] != length:
            raise _disagree(path, f"truncation {cut}", spec)
        if pad is None or (pad["length"], pad["pad_id"]) != (length, spec.pad_id):
            raise _disagree(path, f"padding {pad}", spec)

    def cut(self, text: str) -> list[int]:
        """All ids but the last one that the spec adds, the padding included."""
        ids: list[int] = self._backend.encode(text).ids
        return ids

    def count(self, text: str) -> int:
        return len(self._uncut.encode(text).ids)


_M = TypeVar("_M", ClipWords, siglip.SiglipText)


def _marked(
    kind: Callable[[dict[str, Any], TokenSpec], _M], content: dict[str, Any], spec: TokenSpec, path: Path
) -> _M:
    """The reader of a file that carries our mark."""
    try:
        ids = kind(content, spec)
    except (KeyError, IndexError, TypeError, ValueError, re.error, struct.error) as error:
        raise _unreadable(path, f"{type(error).__name__} {error}") from error
    if ids.ends != (spec.start_id, spec.end_id):
        raise _disagree(path, f"start and end ids {ids.ends[0]}, {ids.ends[1]}", spec)
    return ids


def _check_encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text {text!r:.60} holds an unpaired surrogate at {error.start}, which is no character",
            fix="decode it properly, or replace it: text.encode('utf-8', 'replace').decode()",
        ) from error


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


def _unreadable(path: Path, why: str) -> BundleCorruptError:
    return BundleCorruptError(f"tokenizer file {path} cannot be read: {why}", fix="copy the bundle again, whole")


def _disagree(path: Path, found: str, spec: TokenSpec) -> BundleCorruptError:
    return BundleCorruptError(
        f"tokenizer file {path} has {found}, but the manifest says {spec}", fix="export the checkpoint again"
    )
