"""CLIP's word pattern with every character class written out.

Which characters are letters differs between Unicode versions, and what matches regardless of case differs between
engines; so both are asked once of the engine that the checkpoint's tokenizer runs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby

import regex  # type: ignore[import-untyped]
from tokenizers import Regex, normalizers

from clipdeploy.runtime.clip_words import WORDS_MARK

OPEN_CLIP_SPECIALS = ("<start_of_text>", "<end_of_text>")
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
CLASSES = (r"[\p{L}]+", r"[\p{N}]", r"[^\s\p{L}\p{N}]+")
OPEN_CLIP_PATTERN = "|".join((*OPEN_CLIP_SPECIALS, *CONTRACTIONS, *CLASSES))


@lru_cache(maxsize=1)
def everything() -> str:
    """Every character that there is or may be: all code points but the surrogates."""
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))


@lru_cache(maxsize=1)
def words_pattern() -> str:
    """The pattern of open_clip's tokenizer, whose engine is `regex` and heeds no case."""
    literals = [_literal(text) for text in (*OPEN_CLIP_SPECIALS, *CONTRACTIONS)]
    letters, numbers, others = (_members(pattern) for pattern in CLASSES)
    return WORDS_MARK + "|".join([*literals, *_classes(letters, numbers, set(everything()) - set(others))])


@lru_cache(maxsize=4)
def library_pattern(literals: tuple[str, ...]) -> str:
    """The pattern of a tokenizer of the `tokenizers` library, which heeds case.

    Args:
        literals: special tokens that count as words of their own.
    """
    letters, numbers, spaces = (library_members(name) for name in (r"\p{L}", r"\p{N}", r"\s"))
    words = [re.escape(text) for text in (*literals, *CONTRACTIONS)]
    return WORDS_MARK + "|".join([*words, *_classes(letters, numbers, {*letters, *numbers, *spaces})])


@lru_cache(maxsize=4)
def library_members(name: str) -> str:
    """All characters of the class `name` in the library's engine."""
    kept: str = normalizers.Replace(Regex(f"[^{name}]+"), "").normalize_str(everything())
    return kept


def character_class(characters: Iterable[str]) -> str:
    """The inside of a character class that holds exactly `characters`."""
    points = sorted({ord(character) for character in characters})
    runs = [[point for _, point in run] for _, run in groupby(enumerate(points), key=lambda item: item[1] - item[0])]
    return "".join(_escaped(run[0]) if len(run) == 1 else f"{_escaped(run[0])}-{_escaped(run[-1])}" for run in runs)


def _classes(letters: Sequence[str], numbers: Sequence[str], no_signs: Iterable[str]) -> list[str]:
    """Words of letters, single numbers, and runs of what is neither these nor white space."""
    return [
        f"[{character_class(letters)}]+",
        f"[{character_class(numbers)}]",
        f"[^{character_class(no_signs)}]+",
    ]


def _members(pattern: str) -> list[str]:
    return list("".join(regex.findall(pattern, everything(), regex.IGNORECASE)))


def _literal(text: str) -> str:
    return "".join(_either(letter) for letter in text)


@lru_cache(maxsize=64)
def _either(letter: str) -> str:
    """A pattern for the characters that match `letter` regardless of case."""
    same = sorted(_members(regex.escape(letter)))
    return "[" + "".join(map(re.escape, same)) + "]" if len(same) > 1 else re.escape(letter)


def _escaped(point: int) -> str:
    """A code point inside a class: control codes and ASCII signs escaped, all else as itself."""
    character = chr(point)
    return f"\\x{point:02x}" if point < 0x80 and not character.isalnum() else character
