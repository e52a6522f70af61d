"""CLIP's tokenizer as transformers has it, marked so that the runtime reads it without the `tokenizers` library."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from tokenizers import normalizers

from clipdeploy.export.tokens.clip_json import split
from clipdeploy.export.tokens.words import (
    CLASSES,
    CONTRACTIONS,
    character_class,
    everything,
    library_pattern,
)

_TAIL = "|".join((*CONTRACTIONS, *CLASSES))
_NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
_HIGH, _LOW = "\u0315", "\u0334"  # marks of combining class 232 and 1


def light(content: dict[str, Any]) -> dict[str, Any] | None:
    """A copy of a tokenizer.json whose words the runtime cuts itself; None unless it is exactly CLIP's.

    The ids are the same: the patterns, the lower case and the composed characters are written out as the library that
    made the checkpoint's ids has them.
    """
    literals = _literals(content)
    if literals is None or not _is_clip(content):
        return None
    folding = [token["content"] for token in content["added_tokens"] if token["normalized"]]
    lower = _lower()
    if any(token.translate(str.maketrans(lower)) != token or not token.isascii() or " " in token for token in folding):
        return None  # the library looks for such a token as its cleaned self
    patterns = [library_pattern(literals), library_pattern(())]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    rules = {"composing": _composing(), "lower": lower}
    return {
        **content,
        "normalizer": {"type": "Sequence", "normalizers": _NORMALIZERS, "clipdeploy": rules},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*map(split, patterns), byte_level]},
    }


def _literals(content: dict[str, Any]) -> tuple[str, ...] | None:
    """The special tokens in the word pattern; None where the words are not split as CLIP's are."""
    try:
        first, second = content["pre_tokenizer"]["pretokenizers"]
        pattern = str(first["pattern"]["Regex"])
    except (KeyError, TypeError, ValueError):
        return None
    keeps = (first["type"], first["behavior"], first["invert"]) == ("Split", "Removed", True)
    bytes_ = second["type"] == "ByteLevel" and not second["add_prefix_space"] and second.get("use_regex", True)
    if not (keeps and bytes_ and pattern.endswith(_TAIL)):
        return None
    head = pattern[: -len(_TAIL)]
    if head and not head.endswith("|"):
        return None
    literals = tuple(part.replace("\\|", "\0") for part in re.split(r"(?<!\\)\|", head)[:-1])
    # Words that the second split, by bytes, would cut elsewhere than at the border of letters and signs are left out.
    plain = all(re.fullmatch(r"[<>\0A-Za-z_]+", literal) for literal in literals)
    return tuple(literal.replace("\0", "|") for literal in literals) if plain else None


def _is_clip(content: dict[str, Any]) -> bool:
    """Whether everything but the words is as CLIP's."""
    model, normalizer = content["model"], content["normalizer"] or {}
    cut, pad, processor = content["truncation"], content["padding"], content["post_processor"] or {}
    letters = byte_letters()
    vocabulary = model.get("vocab", {})
    return (
        model.get("type") == "BPE"
        and model.get("end_of_word_suffix") == "</w>"
        and not any(
            model.get(key) for key in ("dropout", "continuing_subword_prefix", "byte_fallback", "ignore_merges")
        )
        and all(letter in vocabulary and f"{letter}</w>" in vocabulary for letter in letters)
        and normalizer.get("normalizers") == _NORMALIZERS
        and processor.get("type") == "RobertaProcessing"
        and (cut["direction"], pad["direction"]) == ("Right", "Right")
        and all(_plain(token) for token in content["added_tokens"])
    )


def _plain(token: dict[str, Any]) -> bool:
    return not (token["single_word"] or token["lstrip"] or token["rstrip"])


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(point) for point in (*printable, *range(0x100, 0x100 + 256 - len(printable)))]


@lru_cache(maxsize=1)
def _lower() -> dict[str, str]:
    """The library's lower case of every character that has one."""
    lower = normalizers.Lowercase().normalize_str
    text, size = everything(), 1 << 10
    chunks = (text[i : i + size] for i in range(0, len(text), size))
    return {c: lower(c) for chunk in chunks if lower(chunk) != chunk for c in chunk if lower(c) != c}


@lru_cache(maxsize=1)
def _composing() -> str:
    """The inside of a class of all characters that take part in the library's composition (NFC).

    Its tables are of an older Unicode than Python's; what it does not know it leaves where it stands.
    """
    compose, decompose = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    found: set[str] = set()
    hangul = range(0xAC00, 0xD7A4)  # composed by rule, not by table
    for character in everything():
        if not (unicodedata.decomposition(character) or unicodedata.combining(character) or ord(character) in hangul):
            continue
        parts = unicodedata.normalize("NFD", character)
        if parts != character and decompose(character) == parts:
            found |= {character, *parts}
        mark = unicodedata.combining(character)
        swapped = f"{character}{_LOW}" if mark > 1 else f"{_HIGH}{character}"
        if mark and compose(swapped) != swapped:
            found.add(character)
    return character_class(found)
