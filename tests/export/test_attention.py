"""Attention written for a graph, against torch's own."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

import torch
from torch import nn

from clipdeploy.export.towers.attention import (
    MASK_FLOOR,
    ConstantQueryAttention,
    OneQueryAttention,
    SelfAttention,
    finite_mask,
    read_projections,
)
from clipdeploy.export.towers.blocks import take_row

WIDTH, HEADS, LENGTH, BATCH = 32, 4, 7, 3


def multihead(**options: object) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)
    if layer.in_proj_bias is not None:
        nn.init.normal_(layer.in_proj_bias)
    return layer.eval().requires_grad_(False)


def causal() -> torch.Tensor:
    return torch.full((LENGTH, LENGTH), float("-inf")).triu(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_self_attention_is_multihead_attention(masked: bool, bias: bool) -> None:
    layer, x = multihead(bias=bias), torch.randn(BATCH, LENGTH, WIDTH)
    mask = causal() if masked else None
    expected = layer(x, x, x, need_weights=False, attn_mask=mask)[0]
    lean = SelfAttention(read_projections(layer))
    found = lean(x.reshape(-1, WIDTH), LENGTH, finite_mask(mask) if masked else None).reshape(BATCH, LENGTH, WIDTH)
    assert (found - expected).abs().max() <= 1e-6


def test_one_query_gives_that_row_of_self_attention() -> None:
    layer, x = multihead(), torch.randn(BATCH, LENGTH, WIDTH)
    expected = layer(x, x, x, need_weights=False, attn_mask=causal())[0][:, 4]
    lean = OneQueryAttention(read_projections(layer))
    found = lean(x[:, 4], x.reshape(-1, WIDTH), LENGTH, finite_mask(causal())[4:5])
    assert (found - expected).abs().max() <= 1e-6


def test_constant_queries_are_projected_once() -> None:
    layer, x = multihead(), torch.randn(BATCH, LENGTH, WIDTH)
    query = torch.randn(5, WIDTH)
    expected = layer(query.expand(BATCH, -1, -1), x, x, need_weights=False)[0]
    parts = read_projections(layer)
    projected = (query @ parts.weight[:WIDTH].T + parts.bias[:WIDTH]).reshape(5, HEADS, WIDTH // HEADS)
    lean = ConstantQueryAttention(projected, parts.weight[WIDTH:], parts.bias[WIDTH:], layer.out_proj)
    assert (lean(x) - expected).abs().max() <= 1e-6


def test_the_scale_lies_in_the_query_weights_of_a_copy() -> None:
    layer = multihead()
    parts = read_projections(layer)
    scale = (WIDTH // HEADS) ** -0.5
    assert torch.allclose(parts.weight[:WIDTH], layer.in_proj_weight[:WIDTH] * scale)
    assert torch.equal(parts.weight[WIDTH:], layer.in_proj_weight[WIDTH:])
    assert parts.weight.data_ptr() != layer.in_proj_weight.data_ptr()


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 8, "vdim": 8}])
def test_other_forms_of_multihead_attention_are_not_known(options: dict[str, object]) -> None:
    assert read_projections(multihead(**options)) is None
    assert read_projections(nn.Linear(2, 2)) is None


def test_a_mask_becomes_finite_and_hides_as_much() -> None:
    mask = finite_mask(causal())
    assert torch.isfinite(mask.half()).all()
    assert mask.min() == MASK_FLOOR
    scores = torch.randn(LENGTH, LENGTH)
    assert torch.equal((scores + mask).softmax(-1), (scores + causal()).softmax(-1))


def test_take_row_takes_the_same_or_each_its_own() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(take_row(x, 1), x[:, 1])
    assert torch.equal(take_row(x, torch.tensor([[2], [0]])), torch.stack([x[0, 2], x[1, 0]]))
