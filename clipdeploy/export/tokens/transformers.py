"""Tokenizers of Hugging Face transformers: which file and which facts keep their ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers

from clipdeploy.errors import CheckpointError
from clipdeploy.export.tokens.clip_light import light
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.export.tokens.fast import check_padding, ends, fast_json
from clipdeploy.export.tokens.proof import prove, specials_of
from clipdeploy.export.tokens.siglip import siglip_json

FILE = "tokenizer.json"
_FIX = "export a checkpoint whose tokenizer is CLIP's own, SigLIP's, or one with a tokenizer.json that says all it does"


def token_facts_of_transformers(tokenizer: Any, *, length: int, name: str) -> TokenFacts:
    """What a tokenizer of transformers does when it is asked for `length` ids a text, cut and padded.

    CLIP's tokenizer becomes a file that the runtime reads by itself, as does SigLIP's; all others are read by the
    `tokenizers` library. The file's ids are compared with the tokenizer's on some hundred texts.

    Args:
        tokenizer: as `AutoTokenizer.from_pretrained` makes it.
        length: ids per text.
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: its ids cannot be kept; the message says which text they differ on, or which part is missing.
    """
    content = _content(tokenizer, length, name)
    start, end = ends(tokenizer, name)
    written = json.dumps(content, ensure_ascii=False)
    facts = TokenFacts(
        context_length=length,
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        start_id=start,
        end_id=end,
        pad_id=int(tokenizer.pad_token_id),
        cleaning="none",
        to_json=lambda: written,
    )

    def reference(texts: list[str]) -> npt.NDArray[np.int64]:
        rows = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
        return np.array(rows["input_ids"], dtype=np.int64)

    prove(facts, reference, specials=specials_of(content), name=name, fix=_FIX)
    return facts


def load_tokenizer(place: Path, *, name: str) -> Any:
    """The tokenizer of a folder, or of a `tokenizer.json`, whose neighbour files say the rest; nothing is downloaded.

    Args:
        place: the folder or the file.
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: there is none, or transformers cannot read it.
    """
    if place.is_file() and place.name != FILE:
        raise CheckpointError(f"{name}: {place} is no tokenizer.json", fix="name a folder, or a file of that name")
    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        raise CheckpointError(f"{name}: there is no tokenizer at {place}", fix="name a folder with --tokenizer")
    if not (folder / "tokenizer_config.json").is_file():
        raise CheckpointError(
            f"{name}: {folder} has no tokenizer_config.json, so nothing states what texts are padded with",
            fix="copy tokenizer_config.json from where the tokenizer comes from",
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{name}: transformers {transformers.__version__} cannot read the tokenizer in {folder}: {why}",
            fix="copy all of the tokenizer's files; a spiece.model needs pip install sentencepiece protobuf",
        ) from error


def _content(tokenizer: Any, length: int, name: str) -> dict[str, Any]:
    """The content of `tokenizer.json`."""
    if getattr(tokenizer, "is_fast", False):
        content = fast_json(tokenizer, length, name=name)
        return light(content) or content
    if type(tokenizer).__name__ == "SiglipTokenizer":
        check_padding(tokenizer, name)
        return siglip_json(tokenizer, length, name=name)
    raise CheckpointError(
        f"{name}: the tokenizer is a slow one ({type(tokenizer).__name__}), whose rules are written in Python",
        fix="save a fast one beside the checkpoint: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) "
        "writes the tokenizer.json where transformers has one for this kind",
    )
