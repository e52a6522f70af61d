"""A fast tokenizer of transformers, which the `tokenizers` library drives: its file, and what it adds to a text."""

from __future__ import annotations

import json
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.export.tokens.clip_json import padding, truncation


def fast_json(tokenizer: Any, length: int, *, name: str) -> dict[str, Any]:
    """The content of `tokenizer.json` of a fast tokenizer that cuts and pads to `length` ids.

    Raises:
        CheckpointError: it has no padding token.
    """
    check_padding(tokenizer, name)
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = truncation(length, tokenizer.truncation_side)
    content["padding"] = padding(
        length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, side=tokenizer.padding_side
    )
    return content


def check_padding(tokenizer: Any, name: str) -> None:
    """Raises CheckpointError when the tokenizer has no padding token."""
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{name}: the tokenizer has no padding token, so texts cannot be made equally long",
            fix='set "pad_token" in tokenizer_config.json as the checkpoint was trained',
        )


def ends(tokenizer: Any, name: str) -> tuple[int | None, int]:
    """The ids that a tokenizer itself puts before and behind a text.

    Raises:
        CheckpointError: it puts none behind a text.
    """
    plain = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole = list(tokenizer("a").input_ids)
    places = [i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain]
    behind = whole[places[-1] + len(plain) :] if places else []
    if not behind:
        raise CheckpointError(
            f"{name}: the tokenizer puts no end token behind a text",
            fix="set an eos_token (and add_eos_token) in the checkpoint's tokenizer_config.json",
        )
    return (int(whole[0]) if places[-1] else None), int(behind[0])
