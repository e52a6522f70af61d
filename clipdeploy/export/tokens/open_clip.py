"""Tokenizers of open_clip: what each does, as a TokenSpec's facts, and as one `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer, get_clean_fn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.tokens.clip_json import clip_json, template
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.export.tokens.fast import ends, fast_json
from clipdeploy.export.tokens.proof import prove, specials_of
from clipdeploy.export.tokens.transformers import load_tokenizer
from clipdeploy.export.tokens.words import OPEN_CLIP_PATTERN
from clipdeploy.spec import TextCleaning

_CLEANINGS: tuple[TextCleaning, ...] = ("whitespace", "lower", "canonicalize")
_CLIPS = "clips"
_FIX = "export a checkpoint that uses CLIP's own tokenizer or a plain fast Hugging Face tokenizer"


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


def named_tokenizer(place: str, config: Mapping[str, Any], *, name: str) -> HFTokenizer:
    """open_clip's tokenizer of an architecture, its files taken from a place of the user's.

    Args:
        place: a folder with tokenizer files, or the tokenizer.json in it.
        config: of the architecture, as `open_clip.get_model_config` gives it: length and cleaning are its own.
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: the architecture uses CLIP's own tokenizer, or there is none at `place`.
    """
    text = config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        raise CheckpointError(f"{name} uses CLIP's own tokenizer, which open_clip brings", fix="leave out --tokenizer")
    load_tokenizer(Path(place), name=name)  # says better than open_clip what is missing
    folder = Path(place).parent if Path(place).is_file() else Path(place)
    return HFTokenizer(
        str(folder),
        context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


def _simple_facts(tokenizer: SimpleTokenizer, name: str) -> TokenFacts:
    if tokenizer.reduction_fn is not None:
        raise CheckpointError(
            f"{name}: the tokenizer drops words at random (reduction_mask), so that one text has many embeddings",
            fix="remove reduction_mask from text_cfg.tokenizer_kwargs in open_clip_config.json",
        )
    if tokenizer.pat.pattern != OPEN_CLIP_PATTERN or not tokenizer.pat.flags & regex.IGNORECASE:
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
        to_json=lambda: clip_json(tokenizer, cleaning, length),
    )


def _cleaning(function: Callable[[str], str], name: str) -> TextCleaning:
    for cleaning in _CLEANINGS:
        if get_clean_fn(cleaning) is function:
            return cleaning
    raise CheckpointError(
        f"{name}: the tokenizer cleans texts by an unknown rule {function!r}",
        fix=f"set text_cfg.tokenizer_kwargs.clean in open_clip_config.json to one of {', '.join(_CLEANINGS)}",
    )


def _hub_facts(tokenizer: HFTokenizer, name: str) -> TokenFacts:
    inner, mode = tokenizer.tokenizer, tokenizer.tokenizer_mode
    if mode not in ("", _CLIPS):
        raise CheckpointError(f"{name}: unknown tokenizer_mode {mode!r}", fix=f"set it to {_CLIPS!r}, or remove it")
    if not getattr(inner, "is_fast", False):
        raise CheckpointError(
            f"{name}: the tokenizer is a slow one ({type(inner).__name__}), whose rules are written in Python",
            fix="put a tokenizer.json of a fast one into the folder, as save_pretrained writes it",
        )
    length, cleaning = int(tokenizer.context_length), _cleaning(tokenizer.clean_fn, name)
    content = fast_json(inner, length - (mode == _CLIPS), name=name)
    start, end = _clips_ends(inner, content, name) if mode == _CLIPS else ends(inner, name)
    written = json.dumps(content, ensure_ascii=False)
    facts = TokenFacts(
        context_length=length,
        vocab_size=max(inner.get_vocab().values()) + 1,
        start_id=start,
        end_id=end,
        pad_id=int(inner.pad_token_id),
        cleaning=cleaning,
        to_json=lambda: written,
        erased_id=inner.sep_token_id if tokenizer.strip_sep_token and mode != _CLIPS else None,
        last_id=int(inner.cls_token_id) if mode == _CLIPS else None,
    )

    def reference(texts: list[str]) -> npt.NDArray[np.int64]:
        rows: npt.NDArray[np.int64] = tokenizer(texts).numpy()
        return rows

    prove(facts, reference, specials=specials_of(content), name=name, fix=_FIX)
    return facts


def _clips_ends(inner: Any, content: dict[str, Any], name: str) -> tuple[int, int]:
    """The ids that CLIPS puts before and behind a text, and with them the file's post-processor.

    Its class token comes last, behind the padding, which the format cannot say: the manifest does.
    """
    tokens = {"bos_token": inner.bos_token, "eos_token": inner.eos_token, "cls_token": inner.cls_token}
    missing = [key for key, token in tokens.items() if token is None]
    if missing:
        raise CheckpointError(
            f"{name}: the tokenizer has no {' and no '.join(missing)}, which tokenizer_mode 'clips' puts around a text",
            fix="name them in text_cfg.tokenizer_kwargs of open_clip_config.json, as the checkpoint was trained",
        )
    if "left" in (inner.padding_side, inner.truncation_side):
        raise CheckpointError(
            f"{name}: the tokenizer pads or cuts on the left, which tokenizer_mode 'clips' does not",
            fix='set "padding_side" and "truncation_side" to "right" in tokenizer_config.json',
        )
    start, end = str(inner.bos_token), str(inner.eos_token)
    ids = {start: int(inner.bos_token_id), end: int(inner.eos_token_id)}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template((start, "A", end)),
        "pair": template((start, "A", end, start, "B", end)),
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]} for token, id_ in ids.items()},
    }
    return ids[start], ids[end]
