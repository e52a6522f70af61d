"""The checkpoint's tokenizer: what it does, as a TokenSpec's facts, and as one `tokenizer.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import regex  # type: ignore[import-untyped]
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from tokenizers import Tokenizer as Backend

from clipdeploy.errors import CheckpointError
from clipdeploy.runtime.cleaning import clean
from clipdeploy.runtime.tokenizer import WORDS_MARK
from clipdeploy.spec import TextCleaning

_SPECIALS = ("<start_of_text>", "<end_of_text>")
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_CLASSES = (r"[\p{L}]+", r"[\p{N}]", r"[^\s\p{L}\p{N}]+")
_UPSTREAM = "|".join((*_SPECIALS, *_CONTRACTIONS, *_CLASSES))
_PROBES = ("", "a photo of a cat", "Ünïcode, 3.14 & <b>", "long " * 300)
_CLEANINGS: tuple[TextCleaning, ...] = ("whitespace", "lower", "canonicalize")


@dataclass(frozen=True)
class TokenFacts:
    """What a tokenizer does.

    Attributes:
        context_length: ids per text.
        vocab_size: one more than the highest id it gives.
        start_id: id put in front, None when there is none.
        end_id: id put behind.
        pad_id: id that fills the rest.
        cleaning: the rules before the split.
        to_json: makes the content of `tokenizer.json`.
    """

    context_length: int
    vocab_size: int
    start_id: int | None
    end_id: int
    pad_id: int
    cleaning: TextCleaning
    to_json: Callable[[], str]


def token_facts(tokenizer: Any, *, name: str) -> TokenFacts:
    """What open_clip's `tokenizer` of the checkpoint `name` does; raises CheckpointError where it is not known."""
    if type(tokenizer) is SimpleTokenizer:
        return _simple_facts(tokenizer, name)
    if type(tokenizer) is HFTokenizer:
        return _hub_facts(tokenizer, name)
    raise CheckpointError(
        f"{name}: tokenizer {type(tokenizer).__name__} is not supported",
        fix="export a checkpoint that uses CLIP's own tokenizer or a Hugging Face tokenizer",
    )


def _simple_facts(tokenizer: SimpleTokenizer, name: str) -> TokenFacts:
    if tokenizer.reduction_fn is not None:
        raise CheckpointError(
            f"{name}: the tokenizer drops words at random (reduction_mask), so that one text has many embeddings",
            fix="remove reduction_mask from text_cfg.tokenizer_kwargs in open_clip_config.json",
        )
    if tokenizer.pat.pattern != _UPSTREAM or not tokenizer.pat.flags & regex.IGNORECASE:
        raise CheckpointError(
            f"{name}: the tokenizer splits words by another pattern than CLIP's: {tokenizer.pat.pattern!r:.120}",
            fix="remove additional_special_tokens from text_cfg.tokenizer_kwargs in open_clip_config.json",
        )
    cleaning, length = _cleaning(tokenizer.clean_fn, name), int(tokenizer.context_length)
    return TokenFacts(
        context_length=length,
        vocab_size=tokenizer.vocab_size,
        start_id=tokenizer.sot_token_id,
        end_id=tokenizer.eot_token_id,
        pad_id=0,
        cleaning=cleaning,
        to_json=lambda: _simple_json(tokenizer, cleaning, length),
    )


def _cleaning(function: Callable[[str], str], name: str) -> TextCleaning:
    for cleaning in _CLEANINGS:
        if get_clean_fn(cleaning) is function:
            return cleaning
    raise CheckpointError(
        f"{name}: the tokenizer cleans texts by an unknown rule {function!r}",
        fix=f"set text_cfg.tokenizer_kwargs.clean in open_clip_config.json to one of {', '.join(_CLEANINGS)}",
    )


def _simple_json(tokenizer: SimpleTokenizer, cleaning: TextCleaning, length: int) -> str:
    """CLIP's tokenizer in the format of the `tokenizers` library."""
    start, end = _SPECIALS
    ids = {token: tokenizer.encoder[token] for token in _SPECIALS}
    content = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": length},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": tokenizer.decoder[0],
        },
        "added_tokens": [
            {"id": id_, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for token, id_ in ids.items()
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(cleaning)},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": words_pattern()}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template((start, "A", end)),
            "pair": _template((start, "A", end, start, "B", end)),
            "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]} for token, id_ in ids.items()},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                {"type": "Replace", "pattern": {"String": "</w>"}, "content": " "},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": tokenizer.encoder,
            "merges": [f"{first} {second}" for first, second in tokenizer.bpe_ranks],
        },
    }
    return json.dumps(content, ensure_ascii=False)


def _normalizers(cleaning: TextCleaning) -> list[dict[str, Any]]:
    """The part of the cleaning that the `tokenizers` library can say; the manifest names all of it.

    `clipdeploy.runtime` cleans before the library sees a text; this serves others who read the file.
    """
    spaces: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ]
    lower = [{"type": "Lowercase"}] if cleaning != "whitespace" else []
    words: list[dict[str, Any]] = []
    if cleaning == "canonicalize":
        words = [
            {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
            {"type": "Replace", "pattern": {"Regex": r"[!-/:-@\[-`{-~]"}, "content": ""},
        ]
    return [{"type": "NFC"}, *words, *lower, *spaces]


def _template(parts: Sequence[str]) -> list[dict[str, Any]]:
    pair = {"A": 0, "B": 1}
    return [
        {"Sequence": {"id": part, "type_id": 0}} if part in pair else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in parts
    ]


@lru_cache(maxsize=1)
def words_pattern() -> str:
    """CLIP's word pattern with every character class written out.

    Which characters are letters differs between Unicode versions, and what matches regardless of case differs
    between engines; so both are asked once of the engine that open_clip uses.
    """
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    literals = [_literal(text, everything) for text in (*_SPECIALS, *_CONTRACTIONS)]
    letters, numbers, others = (_members(pattern, everything) for pattern in _CLASSES)
    outside = set(everything) - set(others)
    classes = [f"[{_ranges(letters)}]+", f"[{_ranges(numbers)}]", f"[^{_ranges(outside)}]+"]
    return WORDS_MARK + "|".join(literals + classes)


def _members(pattern: str, everything: str) -> list[str]:
    return list("".join(regex.findall(pattern, everything, regex.IGNORECASE)))


def _literal(text: str, everything: str) -> str:
    return "".join(_either(letter, everything) for letter in text)


@lru_cache(maxsize=64)
def _either(letter: str, everything: str) -> str:
    """A pattern for the characters that match `letter` regardless of case."""
    same = sorted(_members(regex.escape(letter), everything))
    return "[" + "".join(map(re.escape, same)) + "]" if len(same) > 1 else re.escape(letter)


def _ranges(characters: Sequence[str] | set[str]) -> str:
    """The inside of a character class that holds exactly `characters`."""
    points = sorted(map(ord, characters))
    runs = [[point for _, point in run] for _, run in groupby(enumerate(points), key=lambda item: item[1] - item[0])]
    return "".join(_escaped(run[0]) if len(run) == 1 else f"{_escaped(run[0])}-{_escaped(run[-1])}" for run in runs)


def _escaped(point: int) -> str:
    """A code point inside a class: control codes and ASCII signs escaped, all else as itself."""
    character = chr(point)
    return f"\\x{point:02x}" if point < 0x80 and not character.isalnum() else character


def _hub_facts(tokenizer: HFTokenizer, name: str) -> TokenFacts:
    inner = tokenizer.tokenizer
    odd = [
        what
        for what, there in {
            f"tokenizer_mode {tokenizer.tokenizer_mode!r}": tokenizer.tokenizer_mode,
            "strip_sep_token": tokenizer.strip_sep_token,
            f"a slow tokenizer ({type(inner).__name__})": not getattr(inner, "is_fast", False),
            "no padding token": inner.pad_token_id is None,
        }.items()
        if there
    ]
    if odd:
        raise CheckpointError(
            f"{name}: the tokenizer has {' and '.join(odd)}, which is not supported yet",
            fix="export a checkpoint that uses CLIP's own tokenizer or a plain fast Hugging Face tokenizer",
        )
    length = int(tokenizer.context_length)
    backend = _hub_backend(inner, length)
    cleaning = _cleaning(tokenizer.clean_fn, name)
    texts = [clean(text, cleaning) for text in _PROBES]
    if tokenizer(list(_PROBES)).tolist() != [backend.encode(text).ids for text in texts]:
        raise CheckpointError(
            f"{name}: the Hugging Face tokenizer does more than its tokenizer.json says, so its ids cannot be kept",
            fix="export a checkpoint that uses CLIP's own tokenizer",
        )
    start, end = _ends(inner)
    if end is None:
        raise CheckpointError(
            f"{name}: the tokenizer puts no end token behind a text",
            fix="set an eos_token in the checkpoint's tokenizer_config.json",
        )
    content = backend.to_str()
    return TokenFacts(
        context_length=length,
        vocab_size=len(inner),
        start_id=start,
        end_id=end,
        pad_id=inner.pad_token_id,
        cleaning=cleaning,
        to_json=lambda: content,
    )


def _hub_backend(inner: Any, length: int) -> Backend:
    """A copy of the library's tokenizer that cuts and pads as open_clip asks it to."""
    backend = Backend.from_str(inner.backend_tokenizer.to_str())
    backend.enable_truncation(length, direction=inner.truncation_side)
    backend.enable_padding(
        direction=inner.padding_side,
        pad_id=inner.pad_token_id,
        pad_type_id=inner.pad_token_type_id,
        pad_token=inner.pad_token,
        length=length,
    )
    return backend


def _ends(inner: Any) -> tuple[int | None, int | None]:
    """The ids that the tokenizer itself puts before and behind a text."""
    plain = inner("a", add_special_tokens=False).input_ids
    whole = inner("a").input_ids
    place = next(i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain)
    behind = whole[place + len(plain) :]
    return (whole[0] if place else None), (behind[0] if behind else None)
