"""SigLIP's tokenizer of transformers: SentencePiece behind rules written in Python, as a marked tokenizer.json."""

from __future__ import annotations

import base64
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.export.tokens.clip_json import padding, template, truncation
from clipdeploy.runtime.siglip import RULE

_SPACE = "\u2581"
_UNIGRAM = 1  # TrainerSpec.ModelType of sentencepiece_model.proto
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # SentencePiece.Type


def siglip_json(tokenizer: Any, length: int, *, name: str) -> dict[str, Any]:
    """The content of `tokenizer.json`.

    `clipdeploy.runtime` reads the marked rules, and its ids are SentencePiece's; the rest says nearly the same to
    others who read the file with the `tokenizers` library.

    Args:
        tokenizer: a SiglipTokenizer.
        length: ids per text.
        name: of the checkpoint.

    Raises:
        CheckpointError: the SentencePiece model is of a kind that is not known here.
    """
    proto = _proto(tokenizer)
    _check(proto, tokenizer, name)
    spec = proto.normalizer_spec
    characters = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
    end, unknown = str(tokenizer.eos_token), str(tokenizer.unk_token)
    rules = {
        "rule": RULE,
        "lower": bool(tokenizer.do_lower_case),
        "characters": characters,
        "prefix": bool(spec.add_dummy_prefix),
        "trim": bool(spec.remove_extra_whitespaces),
        "control": [i for i, piece in enumerate(proto.pieces) if piece.type == _CONTROL],
        "unknown": unknown,
        "end": end,
    }
    return {
        "version": "1.0",
        "truncation": truncation(length),
        "padding": padding(length, pad_id=tokenizer.pad_token_id, pad_token=str(tokenizer.pad_token)),
        "added_tokens": [_added(id_, token) for id_, token in sorted(tokenizer.added_tokens_decoder.items())],
        "normalizer": {
            "type": "Sequence",
            "normalizers": _normalizers(bool(tokenizer.do_lower_case), characters),
            "clipdeploy": rules,
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, _metaspace()],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template(("A", end)),
            "pair": template(("A", end, "B", end)),
            "special_tokens": {end: {"id": end, "ids": [int(tokenizer.eos_token_id)], "tokens": [end]}},
        },
        "decoder": _metaspace(),
        "model": {
            "type": "Unigram",
            "unk_id": int(proto.trainer_spec.unk_id),
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": False,
        },
    }


def _proto(tokenizer: Any) -> Any:
    """The SentencePiece model as the tokenizer itself runs it."""
    from transformers.convert_slow_tokenizer import import_protobuf

    return import_protobuf().ModelProto.FromString(tokenizer.sp_model.serialized_model_proto())


def _check(proto: Any, tokenizer: Any, name: str) -> None:
    kinds = {piece.type for piece in proto.pieces} - {_NORMAL, _UNKNOWN, _CONTROL}
    whole = [token.content for token in tokenizer.added_tokens_decoder.values() if token.single_word]
    odd = {
        f"a model of type {proto.trainer_spec.model_type}, not unigram": proto.trainer_spec.model_type != _UNIGRAM,
        f"pieces of types {sorted(kinds)}": bool(kinds),
        "pieces across spaces": any(_SPACE in piece.piece[1:] for piece in proto.pieces),
        "spaces behind words": bool(proto.trainer_spec.treat_whitespace_as_suffix),
        "unmarked spaces": not proto.normalizer_spec.escape_whitespaces,
        f"special tokens that count only as whole words: {whole}": bool(whole),
        "padding or truncation on the left": "left" in (tokenizer.padding_side, tokenizer.truncation_side),
    }
    found = [what for what, there in odd.items() if there]
    if found:
        raise CheckpointError(
            f"{name}: the SentencePiece tokenizer has {' and '.join(found)}, which is not supported",
            fix="use the tokenizer that SigLIP was published with (spiece.model and tokenizer_config.json)",
        )


def _added(id_: int, token: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "content": token.content,
        "single_word": False,
        "lstrip": bool(token.lstrip),
        "rstrip": bool(token.rstrip),
        "normalized": False,
        "special": bool(token.special),
    }


def _normalizers(lower: bool, characters: str) -> list[dict[str, Any]]:
    return [
        *([{"type": "Lowercase"}] if lower else []),
        {"type": "Replace", "pattern": {"Regex": r"[!-/:-@\[-`{-~]"}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        *([{"type": "Precompiled", "precompiled_charsmap": characters}] if characters else []),
    ]


def _metaspace() -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
