"""A lean tower computes what the checkpoint computes, and the checkpoint stays as it was."""

from __future__ import annotations

import pytest

pytest.importorskip("open_clip", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

import torch
from torch import nn
from torch.nn import functional as F

from clipdeploy.errors import ExportError
from clipdeploy.export.towers.blocks import PoolingStack, Stack
from clipdeploy.export.towers.build import unit_length
from clipdeploy.spec import Tower
from tests.export import tiny

SAME_IMAGE_AS_VIT = {"siglip_text", "no_projection", "roberta"}
SAME_TEXT_AS_VIT = {"resnet", "siglip", "convnext", "mobileclip"}
CASES = [(name, Tower.IMAGE) for name in tiny.NAMES if name not in SAME_IMAGE_AS_VIT]
CASES += [(name, Tower.TEXT) for name in tiny.NAMES if name not in SAME_TEXT_AS_VIT]


@pytest.mark.parametrize(("name", "tower"), CASES)
def test_a_tower_answers_as_the_checkpoint(name: str, tower: Tower) -> None:
    model = tiny.clip(name)
    batch = tiny.samples(model, tower, 5)
    expected = tiny.reference(model, tower, batch)
    with torch.no_grad():
        found = tiny.traced(model, tower)(batch)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5
    assert (expected[0] - expected[1]).abs().max() > 1e-4, "the samples do not tell a right answer from a wrong one"


@pytest.mark.parametrize("name", ["vit", "resnet", "coca", "mobileclip"])
def test_the_checkpoint_stays_as_it_was(name: str) -> None:
    model = tiny.clip(name)
    before = {n: (id(p), p.requires_grad, p.clone()) for n, p in model.named_parameters()}
    kinds = [type(m) for m in model.modules()]
    tiny.traced(model, Tower.IMAGE), tiny.traced(model, Tower.TEXT)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(id(p) == before[n][0] and p.requires_grad == before[n][1] for n, p in after.items())
    assert all(torch.equal(p, before[n][2]) for n, p in after.items())
    assert [type(m) for m in model.modules()] == kinds


def test_weights_are_shared_and_only_the_scaled_attention_is_copied() -> None:
    model = tiny.clip("vit")
    own = {p.data_ptr() for p in model.parameters()}
    copied = [n for n, p in tiny.traced(model, Tower.TEXT).named_parameters() if p.data_ptr() not in own]
    assert copied
    assert all(".attn." in n or n.endswith("attn_mask") for n in copied), copied


def test_a_tower_holds_only_its_own_half() -> None:
    model = tiny.clip("vit")
    both = sum(p.numel() for p in model.parameters())
    halves = [
        sum(p.numel() for p in tower.parameters())
        for tower in (tiny.traced(model, Tower.IMAGE), tiny.traced(model, Tower.TEXT))
    ]
    assert max(halves) < both
    assert not any("visual" in n for n, _ in tiny.traced(model, Tower.TEXT).named_parameters())


def test_the_last_block_is_computed_for_the_pooled_token_alone() -> None:
    model = tiny.clip("vit")
    assert any(isinstance(m, PoolingStack) for m in tiny.traced(model, Tower.IMAGE).modules())
    assert any(isinstance(m, PoolingStack) for m in tiny.traced(model, Tower.TEXT).modules())
    stacks = [
        type(m)
        for m in tiny.traced(tiny.clip("mean_pool"), Tower.IMAGE).modules()
        if isinstance(m, (Stack, PoolingStack))
    ]
    assert stacks == [Stack]


def test_a_subclass_of_a_known_block_is_left_as_it_is() -> None:
    class Own(type(tiny.clip("vit").visual.transformer.resblocks[0])):  # type: ignore[misc]
        def forward(self, q_x: torch.Tensor, **others: object) -> torch.Tensor:
            return super().forward(q_x, **others) + 1.0

    model = tiny.clip("vit")
    model.visual.transformer.resblocks[0].__class__ = Own
    batch = tiny.samples(model, Tower.IMAGE)
    with torch.no_grad():
        found = tiny.traced(model, Tower.IMAGE)(batch)
    assert (found - tiny.reference(model, Tower.IMAGE, batch)).abs().max() <= 1e-5
    assert not any(isinstance(m, (Stack, PoolingStack)) for m in tiny.traced(model, Tower.IMAGE).modules())


def test_reading_no_single_token_is_refused() -> None:
    model = tiny.clip("vit")
    model.text_pool_type = "none"
    with pytest.raises(ExportError, match="'none'") as caught:
        tiny.traced(model, Tower.TEXT)
    assert caught.value.fix


def test_the_norm_is_taken_in_float32() -> None:
    halves = torch.tensor([[300.0, 400.0]], dtype=torch.float16)
    assert unit_length(halves).dtype == torch.float32
    assert torch.allclose(unit_length(halves), torch.tensor([[0.6, 0.8]]))
    zeros = torch.zeros(1, 4)
    assert torch.equal(unit_length(zeros), F.normalize(zeros))


def test_a_tower_is_in_eval_mode_whatever_the_checkpoint_is_in() -> None:
    model = tiny.clip("resnet").train()
    assert not any(m.training for m in tiny.traced(model, Tower.IMAGE).modules())
    assert model.training
    assert isinstance(model, nn.Module)
