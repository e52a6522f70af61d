"""open_clip's own tokenizer in the format of the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from open_clip.tokenizer import SimpleTokenizer

from clipdeploy.export.tokens.words import OPEN_CLIP_SPECIALS, words_pattern
from clipdeploy.spec import TextCleaning


def clip_json(tokenizer: SimpleTokenizer, cleaning: TextCleaning, length: int) -> str:
    """The content of `tokenizer.json`.

    Args:
        tokenizer: whose vocabulary and merges are written.
        cleaning: its rules, said as far as the format can.
        length: ids per text.
    """
    start, end = OPEN_CLIP_SPECIALS
    ids = {token: tokenizer.encoder[token] for token in OPEN_CLIP_SPECIALS}
    content = {
        "version": "1.0",
        "truncation": truncation(length),
        "padding": padding(length, pad_id=0, pad_token=tokenizer.decoder[0]),
        "added_tokens": [
            {"id": id_, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for token, id_ in ids.items()
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(cleaning)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(words_pattern()), _byte_level()]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template((start, "A", end)),
            "pair": template((start, "A", end, start, "B", end)),
            "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]} for token, id_ in ids.items()},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [_byte_level(), {"type": "Replace", "pattern": {"String": "</w>"}, "content": " "}],
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


def truncation(length: int, side: str = "right") -> dict[str, Any]:
    """The part of a tokenizer.json that cuts a text, special tokens included, to `length` ids."""
    return {"direction": side.capitalize(), "max_length": length, "strategy": "LongestFirst", "stride": 0}


def padding(length: int, *, pad_id: int, pad_token: str, side: str = "right") -> dict[str, Any]:
    """The part of a tokenizer.json that fills a text up to `length` ids."""
    return {
        "strategy": {"Fixed": length},
        "direction": side.capitalize(),
        "pad_to_multiple_of": None,
        "pad_id": pad_id,
        "pad_type_id": 0,
        "pad_token": pad_token,
    }


def split(pattern: str) -> dict[str, Any]:
    """The step of a tokenizer.json that keeps what `pattern` matches, a word a match, and drops the rest."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}


def template(parts: Sequence[str]) -> list[dict[str, Any]]:
    """A post-processor's template of special tokens and the texts `A` and `B`."""
    pair = {"A": 0, "B": 1}
    return [
        {"Sequence": {"id": part, "type_id": 0}} if part in pair else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in parts
    ]


def _byte_level() -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


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
