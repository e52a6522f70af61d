"""How a transformers checkpoint wants its texts: its tokenizer, how long they are, and which place is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from clipdeploy.errors import CheckpointError
from clipdeploy.export.huggingface.config import Plan, Reading, calm, first_line, read_json
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.export.tokens.transformers import load_tokenizer, token_facts_of_transformers
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import TextPooling, TokenSpec

_LEGACY_END = 2
_STATING = "tokenizer_config.json"
_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


@dataclass(frozen=True)
class Words:
    """A checkpoint's text side.

    Attributes:
        spec: the record.
        tokenize: the library's own tokenizer, N texts to `(N, L) int64`.
        to_json: makes the content of `tokenizer.json`.
    """

    spec: TokenSpec
    tokenize: Callable[[list[str]], torch.Tensor]
    to_json: Callable[[], str]


def read_words(source: TransformersSource, request: CheckpointRequest, plan: Plan) -> Words:
    """The text side of `source`.

    Raises:
        CheckpointError: there is no tokenizer, it cannot be kept, or it is not the text encoder's.
    """
    tokenizer = _tokenizer(source, request)
    length = text_length(plan, tokenizer)
    with calm():
        facts = token_facts_of_transformers(tokenizer, length=length, name=source.label)
    if plan.family.masks_padding and tokenizer.padding_side != "right":
        raise CheckpointError(
            f"{source.label}: the tokenizer pads on the {tokenizer.padding_side}, but a {plan.family.kind} reads the "
            "first place of a text",
            fix='set "padding_side": "right" in tokenizer_config.json',
        )

    def tokenize(texts: list[str]) -> torch.Tensor:
        with calm():
            rows = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return rows["input_ids"]  # type: ignore[no-any-return]

    return Words(_spec(plan, facts, source.label), tokenize, facts.to_json)


def text_length(plan: Plan, tokenizer: Any) -> int:
    """Ids per text: the length of the table of positions, unless the checkpoint was trained with shorter texts.

    The tables of BERT and XLM-R take 512 places and more, and their padding is masked; of these the tokenizer's
    `model_max_length` is the length where it states a shorter one, else the one the family was trained with.
    """
    places = int(plan.text.max_position_embeddings)
    if plan.family.length is None:
        return places
    if plan.family.kind == "AltCLIPModel":  # XLM-R's first positions belong to the padding
        places -= int(plan.text.pad_token_id) + 1
    stated = int(tokenizer.model_max_length)
    return stated if stated < min(places, 512) else min(plan.family.length, places)


def _tokenizer(source: TransformersSource, request: CheckpointRequest) -> Any:
    if request.tokenizer is not None:
        with calm():
            return load_tokenizer(Path(request.tokenizer), name=source.label)
    folder = source.text_folder or source.folder
    if (folder / _STATING).is_file():
        read_json(folder / _STATING, source.label)
    if not any((folder / name).is_file() for name in _FILES):
        raise CheckpointError(
            f"{source.label}: there is no tokenizer in {folder}; expected one of {', '.join(_FILES)}",
            fix="copy the tokenizer's files from the checkpoint's origin, or name their folder with --tokenizer",
        )
    try:
        with calm():
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer fails in its own way on files that are not its own
        raise CheckpointError(
            f"{source.label}: transformers {transformers.__version__} cannot read the tokenizer in {folder}: "
            f"{first_line(error)}",
            fix="copy all of the tokenizer's files; a spiece.model needs pip install sentencepiece protobuf",
        ) from error


def _spec(plan: Plan, facts: TokenFacts, label: str) -> TokenSpec:
    """The record of the text side; raises CheckpointError where tokenizer and text encoder disagree."""
    vocabulary = int(plan.text.vocab_size)
    if vocabulary < facts.vocab_size:
        raise CheckpointError(
            f"{label}: the tokenizer gives ids up to {facts.vocab_size - 1}, but the text encoder takes {vocabulary}",
            fix="copy the tokenizer's files from the checkpoint's origin; they are another model's",
        )
    return facts.spec(vocab_size=vocabulary, pooling=_pooling(plan, facts, label))


def _pooling(plan: Plan, facts: TokenFacts, label: str) -> TextPooling:
    reads: Reading = plan.family.reads
    if reads == "first":
        return "cls"
    if reads == "last":
        return "last"
    stated = plan.text.eos_token_id
    if reads == "legacy_end" and stated == _LEGACY_END:
        # Configurations written before transformers 4.31 state 2 whatever the tokenizer has, and the library then reads
        # the highest id of each text.
        if facts.end_id != facts.vocab_size - 1:
            raise CheckpointError(
                f"{label}: the text encoder reads each text at its highest id (eos_token_id is 2), but the tokenizer "
                f"ends texts with {facts.end_id} and has ids up to {facts.vocab_size - 1}",
                fix=f"set text_config.eos_token_id to {facts.end_id} in config.json, if that is how it was trained",
            )
        return "eot_argmax"
    if stated != facts.end_id:
        raise CheckpointError(
            f"{label}: the text encoder reads texts at id {stated}, but the tokenizer ends them with {facts.end_id}",
            fix=f"set text_config.eos_token_id to {facts.end_id} in config.json, if that is how it was trained",
        )
    return "eot_first"
