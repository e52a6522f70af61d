"""A foreign `tokenizer.json` made the bundle's: its padding and truncation set, its special ids read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError, InputError, MissingExtraError
from clipdeploy.importing.files import read_json
from clipdeploy.importing.records import ImportRequest, Stated
from clipdeploy.spec import TextPooling, TokenSpec

_SANE_LENGTH = 100_000  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True)
class Words:
    """The bundle's tokenizer: its record and the content of `tokenizer.json`."""

    spec: TokenSpec
    content: str


def read_words(
    stated: Stated, request: ImportRequest, *, fixed_length: int | None, vocab_size: int | None, pooling: TextPooling
) -> Words:
    """The tokenizer of a folder.

    Args:
        fixed_length: ids a text that the graph takes, None where it takes any.
        vocab_size: rows of the text tower's embedding, None where they cannot be told.
        pooling: which position the text tower reads.

    Raises:
        CheckpointError: something is not stated, or tokenizer and graph disagree; the fix names the flag.
        MissingExtraError: the library tokenizers is not installed.
    """
    path = request.tokenizer or stated.tokenizer
    if path is None or not path.is_file():
        where = f"there is no file {path}" if path else f"{request.folder} holds no tokenizer.json"
        raise CheckpointError(where, fix="say where it is: --tokenizer FILE")
    content = read_json(path)
    whole = _backend({**content, "padding": None, "truncation": None}, path)
    start, end = _ends(whole, path)
    pad = _pad_id(whole, content, stated, request)
    length = _length(stated, request, fixed_length)
    cleaning = request.cleaning or stated.cleaning
    if cleaning is None:
        raise CheckpointError(
            f"nothing states how texts are cleaned before {path.name}",
            fix="--cleaning none where transformers made the texts, lower for CLIP's own tokenizer in open_clip",
        )
    largest = max(whole.get_vocab(with_added_tokens=True).values())
    rows = vocab_size or largest + 1
    if largest >= rows:
        raise CheckpointError(
            f"{path} gives ids up to {largest}, the text tower takes {rows}",
            fix="name the tokenizer that belongs to these graphs: --tokenizer FILE",
        )
    content["truncation"] = {"direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": 0}
    side = str(stated.tokenizer_config.get("padding_side", "right")).capitalize()
    content["padding"] = {
        "strategy": {"Fixed": length},
        "direction": side if side in ("Left", "Right") else "Right",
        "pad_to_multiple_of": None,
        "pad_id": pad,
        "pad_type_id": 0,
        "pad_token": whole.id_to_token(pad) or "",
    }
    try:
        spec = TokenSpec(length, rows, start, end, pad, cleaning, pooling)
    except InputError as error:
        raise CheckpointError(f"{path}: {error.message}", fix="say --context-length") from error
    return Words(spec, json.dumps(content, ensure_ascii=False))


def _backend(content: dict[str, Any], path: Path) -> Any:
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise MissingExtraError("tokenizers", extra="import", needed_for="importing a tokenizer.json") from error
    try:
        return Backend.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(
            f"{path} is no tokenizer.json: {error}", fix="copy it again, or --tokenizer FILE"
        ) from error


def _ends(backend: Any, path: Path) -> tuple[int | None, int]:
    """The ids that the tokenizer itself puts before and behind a text."""
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    places = [i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain]
    behind = whole[places[-1] + len(plain) :] if places else []
    if not behind:
        raise CheckpointError(
            f"{path} puts no end token behind a text, so a text tower cannot tell where it ends",
            fix="use a tokenizer.json with its post_processor, as save_pretrained writes it: --tokenizer FILE",
        )
    return (whole[0] if places[-1] else None), behind[0]


def _pad_id(backend: Any, content: dict[str, Any], stated: Stated, request: ImportRequest) -> int:
    """By the flag, by tokenizer_config.json, or by tokenizer.json itself."""
    if request.pad_id is not None:
        return request.pad_id
    token = stated.tokenizer_config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    if isinstance(token, str) and backend.token_to_id(token) is not None:
        return int(backend.token_to_id(token))
    padding = content.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        return int(padding["pad_id"])
    raise CheckpointError(
        "nothing states what texts are padded with",
        fix="say --pad-id (0 where open_clip trained, the end token's id where transformers did)",
    )


def _length(stated: Stated, request: ImportRequest, fixed: int | None) -> int:
    limit = stated.tokenizer_config.get("model_max_length")
    said = request.context_length or stated.context_length
    if said is None and isinstance(limit, (int, float)) and limit < _SANE_LENGTH:
        said = int(limit)
    if fixed is not None and request.context_length not in (None, fixed):
        raise CheckpointError(
            f"the text graph takes {fixed} ids a text, not {request.context_length}",
            fix=f"leave out --context-length, or export the graph with {request.context_length}",
        )
    length = fixed or said
    if length is None:
        raise CheckpointError("nothing states how many ids a text has", fix="say --context-length (77 for CLIP)")
    return length
