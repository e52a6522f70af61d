"""Texts to token ids, exactly as the checkpoint's own tokenizer makes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as Backend

from clipdeploy.errors import BundleCorruptError, TextError
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
    """

    def __init__(self, path: Path, spec: TokenSpec) -> None:
        self.spec = spec
        backend = _read(path)
        pattern = _words_pattern(backend)
        self._ids: _ClipWords | _WholeText
        if pattern is not None:
            self._ids = _ClipWords(backend, pattern, spec, path)
        else:
            self._ids = _WholeText(backend, spec, path)

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

    def __init__(self, backend: Backend, pattern: str, spec: TokenSpec, path: Path) -> None:
        start, end = backend.token_to_id(_START), backend.token_to_id(_END)
        if start is None or end is None or (start, end) != (spec.start_id, spec.end_id):
            raise _disagree(path, f"start and end ids {start}, {end}", spec)
        self._spec = spec
        self._start, self._end = start, end
        self._model = backend.model
        self._pattern = re.compile(pattern)
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
        ids = tuple(token.id for token in self._model.tokenize(letters))
        if len(word) <= _CACHED_WORD_LENGTH:
            if len(self._known) >= _CACHED_WORDS:
                self._known = dict(self._specials)
            self._known[word] = ids
        return ids


class _WholeText:
    """Any other tokenizer: the `tokenizers` library does all after the cleaning, as its file says."""

    def __init__(self, backend: Backend, spec: TokenSpec, path: Path) -> None:
        cut, pad = backend.truncation, backend.padding
        if cut is None or cut["max_length"] != spec.context_length:
            raise _disagree(path, f"truncation {cut}", spec)
        if pad is None or (pad["length"], pad["pad_id"]) != (spec.context_length, spec.pad_id):
            raise _disagree(path, f"padding {pad}", spec)
        self._backend = backend
        self._uncut: Backend | None = None

    def cut(self, text: str) -> list[int]:
        """Exactly `context_length` ids, the padding included."""
        ids: list[int] = self._backend.encode(text).ids
        return ids

    def count(self, text: str) -> int:
        if self._uncut is None:
            self._uncut = Backend.from_str(self._backend.to_str())
            self._uncut.no_truncation()
            self._uncut.no_padding()
        return len(self._uncut.encode(text).ids)


def _read(path: Path) -> Backend:
    if not path.is_file():
        raise BundleCorruptError(f"there is no tokenizer file {path}", fix="copy the bundle again, whole")
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleCorruptError(
            f"tokenizer file {path} cannot be read: {error}", fix="copy the bundle again"
        ) from error


def _words_pattern(backend: Backend) -> str | None:
    """The split pattern of a file that carries our mark, else None."""
    if backend.pre_tokenizer is None:
        return None
    state = json.loads(backend.pre_tokenizer.__getstate__())
    first = (state.get("pretokenizers") or [{}])[0]
    pattern = first["pattern"].get("Regex", "") if first.get("type") == "Split" else ""
    return pattern if pattern.startswith(WORDS_MARK) else None


def _byte_letters() -> dict[int, int]:
    """For each byte the printable character that stands for it in a byte-level vocabulary.

    Printable Latin-1 bytes stand for themselves and the others for U+0100 onwards, in order (GPT-2's table).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: 0x100 + place for place, byte in enumerate(others)}


def _disagree(path: Path, found: str, spec: TokenSpec) -> BundleCorruptError:
    return BundleCorruptError(
        f"tokenizer file {path} has {found}, but the manifest says {spec}", fix="export the checkpoint again"
    )
