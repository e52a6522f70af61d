"""How texts become one embedding: their length, their padding, their end token, the mask."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from clipdeploy.export.preflight.probe import SAME, Probe, apart
from clipdeploy.findings import Finding

LENGTH, PADDING, END, MASK = "context length", "padding", "end token", "causal mask"

_AT_END = ("eot_argmax", "eot_first")
# Tables of positions by the name of their weights: one row a token of training, or an upper limit (BERT and its kin).
_EXACT = ("positional_embedding", "position_embedding.weight")
_LIMIT = ("position_embeddings.weight",)


def context_length(probe: Probe) -> Finding:
    """64 or 77: the tokenizer's length is compared with the text tower's table of positions."""
    length = probe.spec.tokens.context_length
    given = probe.tokens.shape[1]
    if given != length:
        return Finding(
            LENGTH,
            "bad",
            f"the tokenizer gives {given} ids a text, {length} are stated",
            f"state the length that it was trained with in {_length_file(probe)}",
        )
    exact, limit = _positions(probe, _EXACT), _positions(probe, _LIMIT)
    rows = exact or limit
    if rows is None:
        return Finding(LENGTH, "good", f"{length} ids a text; the text tower has no table of positions")
    if length > rows:
        return Finding(
            LENGTH,
            "bad",
            f"{length} ids a text, but the text tower knows {rows} positions",
            f"state {rows} in {_length_file(probe)}",
        )
    if exact is None or length == rows:
        return Finding(LENGTH, "good", f"{length} ids a text; the text tower knows {rows} positions")
    at_end = probe.spec.tokens.pooling in _AT_END
    return Finding(
        LENGTH,
        "note" if at_end else "bad",
        f"{length} ids a text, but the text tower was trained with {rows}: "
        + ("longer texts are cut too early" if at_end else "it reads all places, so that every answer differs"),
        f"state {rows} in {_length_file(probe)}",
    )


def padding(probe: Probe) -> Finding:
    """Every text is padded to the full length, with the id that the text tower takes for padding."""
    tokens = probe.spec.tokens
    row = probe.tokens[0]
    ends = np.flatnonzero(row == tokens.end_id)
    behind = row[int(ends[ends > 0][0]) + 1 :] if (ends > 0).any() else row[:0]
    if (behind != tokens.pad_id).any():
        odd = sorted(set(behind.tolist()) - {tokens.pad_id})
        return Finding(
            PADDING,
            "bad",
            f"short texts are padded with id {odd[0]}, {tokens.pad_id} is stated",
            "set pad_token in tokenizer_config.json as the checkpoint was trained",
        )
    masked = _masked_id(probe)
    if masked is not None and masked != tokens.pad_id:
        return Finding(
            PADDING,
            "bad",
            f"the text tower ignores id {masked} as padding, but the tokenizer pads with {tokens.pad_id}",
            f"set pad_id (pad_token_id) in {probe.model_file}, or pad_token in tokenizer_config.json",
        )
    if masked is not None:
        return Finding(PADDING, "good", f"padded to {len(row)} with id {masked}, which the text tower ignores")
    change = apart(probe.text.plain, probe.text.words_behind)
    if change <= SAME:
        return Finding(PADDING, "good", f"padded to {len(row)} with id {tokens.pad_id}, which changes no embedding")
    return Finding(
        PADDING,
        "good",
        f"the embedding reads the padding: all runtimes must pad to {len(row)} with id {tokens.pad_id}; ours does",
    )


def end_token(probe: Probe) -> Finding:
    """Which token the embedding is read from: the first end token, by its place or by its id being the highest."""
    tokens = probe.spec.tokens
    if tokens.pooling == "eot_argmax" and (above := _ids_above(probe, tokens.end_id)):
        some = ", ".join(f"{token!r} ({id_})" for token, id_ in above[:3])
        return Finding(
            END,
            "bad",
            f"the text tower reads the highest id of a text, but {len(above)} tokens have higher ids than the end "
            f"token {tokens.end_id}: {some}; texts that hold one are read at the wrong place",
            "remove them from tokenizer.json; or, if it was trained so, let the tower read the first end token: "
            + (
                "eos_token_id in text_config of config.json" if probe.transformers else "text_cfg.pool_type eos, eos_id"
            ),
        )
    text = probe.text
    alive = probe.checkpoint.trained and apart(text.plain, text.other) > 0.0
    if alive and text.behind is not None and apart(text.plain, text.other_word) == 0.0:
        return Finding(
            END,
            "bad",
            "the last word of a text does not change its embedding: it is read before the end token",
            f"state how texts are pooled in {probe.model_file}",
        )
    if tokens.pooling not in _AT_END:
        rule = {"last": "the last place", "cls": "a class token behind the text"}.get(tokens.pooling, "a pooler")
        return Finding(END, "good", f"embeddings are read by {rule}, not at the end token")
    blind = apart(text.plain, text.words_behind) <= SAME
    if blind and text.behind and apart(text.plain, text.ends_behind) > SAME:
        return Finding(
            END,
            "bad",
            "of several end tokens the text tower reads a later one, where the first is stated",
            f"state how texts are pooled in {probe.model_file}",
        )
    rule = "the highest id" if tokens.pooling == "eot_argmax" else "the first of its kind"
    return Finding(END, "good", f"embeddings are read at the end token {tokens.end_id}, {rule}")


def causal_mask(probe: Probe) -> Finding:
    """A token sees only those before it, where the tower was trained so: what follows the end token changes nothing."""
    causal = probe.checkpoint.causal
    if probe.spec.tokens.pooling not in _AT_END:
        return Finding(MASK, "good", "embeddings are not read at the end token, so the mask is the tower's own affair")
    if not probe.text.behind:
        return Finding(MASK, "good", "no places behind the end token")
    change = apart(probe.text.plain, probe.text.words_behind)
    if change <= SAME:
        return Finding(MASK, "good", "what follows the end token changes nothing")
    if causal is False:
        return Finding(MASK, "good", "none, as stated: the tower sees the whole text and its padding")
    stated = "a causal mask is stated" if causal else "no mask is stated, and towers that read the end token have one"
    return Finding(
        MASK,
        "bad" if causal else "note",
        f"what follows the end token changes the embedding by {change:.1e}: the tower sees it, or reads elsewhere; "
        + stated,
        "if it was trained without: no_causal_mask in text_cfg of open_clip_config.json"
        if not probe.transformers
        else "check the attention of the text tower, and eos_token_id in config.json",
    )


def _positions(probe: Probe, names: tuple[str, ...]) -> int | None:
    """How many tokens the text tower's table of positions has rows for."""
    weights = dict(probe.checkpoint.text_encoder.named_parameters())
    tables = [w for name, w in weights.items() if name.endswith(names)]
    if not tables:
        return None
    extra = 1 if any(name.endswith("cls_emb") for name in weights) else 0
    return int(tables[0].shape[-2]) - extra


def _masked_id(probe: Probe) -> int | None:
    """The id that the text tower takes for padding and ignores, None when it ignores none or does not say."""
    tower: Any = probe.checkpoint.text_encoder
    if getattr(tower, "use_pad_mask", False) or getattr(tower, "cls_emb", None) is not None:
        return int(tower.pad_id)
    if type(tower).__module__.startswith("clipdeploy.export.huggingface."):
        return None if tower.pad_id is None else int(tower.pad_id)
    config = getattr(tower, "config", None)
    if type(tower).__name__ == "HFTextEncoder" and config is not None and config.pad_token_id is not None:
        return int(config.pad_token_id)
    return None


def _ids_above(probe: Probe, end_id: int) -> list[tuple[str, int]]:
    """The tokens of the tokenizer with higher ids than `end_id`."""
    if end_id >= probe.spec.tokens.vocab_size - 1:
        return []
    content = json.loads(probe.checkpoint.tokenizer_json())
    vocabulary = content["model"].get("vocab", {})
    named = (
        vocabulary.items() if isinstance(vocabulary, dict) else ((token, i) for i, (token, _) in enumerate(vocabulary))
    )
    added = [(token["content"], token["id"]) for token in content.get("added_tokens", [])]
    return sorted({(token, id_) for token, id_ in [*named, *added] if id_ > end_id}, key=lambda pair: pair[1])


def _length_file(probe: Probe) -> str:
    if probe.transformers:
        return "model_max_length of tokenizer_config.json"
    return "text_cfg.context_length of open_clip_config.json"
