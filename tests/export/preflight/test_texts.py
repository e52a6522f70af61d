"""How texts become one embedding: lengths, padding, end tokens and masks that are not what is stated."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

import open_clip
import torch

from tests import checkpoints
from tests.export.preflight.conftest import Make, bad, find, look, stating

END = 49407


def cut(checkpoint: Any, length: int) -> Any:
    """The checkpoint with a tokenizer of another length, and so described."""
    tokenizer = open_clip.SimpleTokenizer(context_length=length)
    return replace(stating(checkpoint, tokens={"context_length": length}), tokenize=tokenizer)


def test_a_tokenizer_of_another_length_than_stated(make: Make) -> None:
    found = bad(stating(make(), tokens={"context_length": 64}))
    assert "the tokenizer gives 20 ids a text, 64 are stated" in found["context length"].message


def test_texts_cut_before_the_towers_length(make: Make) -> None:
    finding = find(cut(make(checkpoints.model_config(custom_text=True)), 16), "context length")
    assert finding.state == "note"
    assert "16 ids a text, but the text tower was trained with 20" in finding.message
    assert "text_cfg.context_length" in str(finding.fix)


def test_texts_cut_where_all_places_are_read(siglip: Any) -> None:
    assert "every answer differs" in find(cut(siglip, 16), "context length", "bad").message


def test_texts_longer_than_the_tower(make: Make) -> None:
    findings = look(cut(make(), 24))
    assert "24 ids a text, but the text tower knows 20 positions" in findings["context length"].message
    assert "the text tower cannot take what its description says" in findings["padding"].message
    told = [finding for finding in findings.values() if "cannot take" in finding.message]
    assert len(told) == 1, "a tower that does not answer is bad once"
    assert "not looked at" in findings["end token"].message


def test_padding_with_another_id_than_stated(make: Make) -> None:
    checkpoint = make()

    def padded(texts: list[str]) -> torch.Tensor:
        ids = checkpoint.tokenize(texts)
        return torch.where(ids == 0, 7, ids)

    finding = find(replace(checkpoint, tokenize=padded), "padding", "bad")
    assert "padded with id 7, 0 is stated" in finding.message
    assert "tokenizer_config.json" in str(finding.fix)


def test_padding_that_the_tower_does_not_take_for_padding(make: Make) -> None:
    config = checkpoints.model_config(text_cfg={"embed_cls": True, "pad_id": 5}, custom_text=True)
    finding = find(make(config), "padding", "bad")
    assert "ignores id 5 as padding, but the tokenizer pads with 0" in finding.message
    assert "pad_id" in str(finding.fix)


def test_padding_that_is_ignored(make: Make) -> None:
    checkpoint = make(checkpoints.model_config(text_cfg={"embed_cls": True}, custom_text=True))
    assert "which the text tower ignores" in find(checkpoint, "padding").message


def test_tokens_above_the_end_token(make: Make) -> None:
    checkpoint = make()
    content = json.loads(checkpoint.tokenizer_json())
    content["added_tokens"] += [{"id": END + 1, "content": "<shop>"}, {"id": END + 2, "content": "<brand>"}]
    changed = replace(checkpoint, tokenizer_json=lambda: json.dumps(content))
    found = bad(stating(changed, tokens={"vocab_size": END + 3}))
    assert list(found) == ["end token"]
    assert "2 tokens have higher ids" in found["end token"].message
    assert "'<shop>' (49408)" in found["end token"].message
    assert "tokenizer.json" in str(found["end token"].fix)
    assert "pool_type" in str(found["end token"].fix)
    assert not bad(stating(checkpoint, tokens={"vocab_size": END + 3})), "rows of the table that no token has"


def test_a_tower_that_reads_the_first_word(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make()
    monkeypatch.setattr(open_clip.model, "text_global_pool", lambda x, *args, **kwargs: x[:, 1])
    found = bad(checkpoint)
    assert list(found) == ["end token"]
    assert "read before the end token" in found["end token"].message


def test_a_tower_that_reads_the_start_token(make: Make) -> None:
    checkpoint = make()
    checkpoint.model.text_pool_type = "first"
    found = bad(checkpoint)
    assert list(found) == ["weights"]
    assert "the text tower gives the same embedding for every text" in found["weights"].message
    assert "pool_type" in str(found["weights"].fix)


def test_a_tower_that_reads_the_last_of_several_end_tokens(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def last_end(x: torch.Tensor, text: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        places = text.shape[1] - 1 - (text == END).flip(1).int().argmax(dim=1)
        return x[torch.arange(len(x)), places]

    checkpoint = make()
    assert find(checkpoint, "end token").state == "good"
    monkeypatch.setattr(open_clip.model, "text_global_pool", last_end)
    found = bad(checkpoint)
    assert list(found) == ["end token"]
    assert "a later one" in found["end token"].message


def test_a_causal_mask_that_is_missing(make: Make) -> None:
    checkpoint: Any = make()
    checkpoint.model.attn_mask.zero_()
    found = bad(checkpoint)
    assert list(found) == ["causal mask"]
    assert "a causal mask is stated" in found["causal mask"].message
    assert "no_causal_mask" in str(found["causal mask"].fix)


def test_a_mask_that_is_stated_to_be_none(make: Make) -> None:
    finding = find(make(checkpoints.model_config(text_cfg={"no_causal_mask": True})), "causal mask")
    assert finding.state == "good"
    assert "none, as stated" in finding.message


def test_a_missing_mask_where_nothing_is_stated(make: Make) -> None:
    checkpoint: Any = replace(make(), causal=None)
    assert find(checkpoint, "causal mask").state == "good"
    checkpoint.model.attn_mask.zero_()
    assert find(checkpoint, "causal mask").state == "note"
