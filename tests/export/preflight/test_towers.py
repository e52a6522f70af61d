"""Towers that are not what they should be: branches, projections, dead weights, training mode, logits."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

import torch
from torch import nn

from tests import checkpoints
from tests.export.preflight.conftest import Make, bad, find, look


def state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights of the tiny ViT with some of them changed; `__` in a name stands for a dot."""
    weights = checkpoints.make_model().state_dict()
    return {**weights, **{name.replace("__", "."): value for name, value in changes.items()}}


def test_branches_whose_fusing_changes_the_answers(mobile: Any) -> None:
    norms = [module for module in mobile.image_encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()  # statistics of the batch, where the fused convolution has those of the training
    found = bad(mobile)
    assert list(found) == ["branches", "evaluation mode"]
    assert "fusing the branches" in found["branches"].message
    assert "reparameterize_model" in str(found["branches"].fix)


def test_branches_that_are_fused_already(mobile: Any) -> None:
    for module in list(mobile.image_encoder.modules()):
        if hasattr(module, "reparameterize"):
            module.reparameterize()
    finding = find(mobile, "branches")
    assert (finding.state, finding.message) == ("good", "fused already")


def test_preflight_leaves_the_branches_as_they_are(mobile: Any) -> None:
    before = [name for name, _ in mobile.image_encoder.named_parameters()]
    look(mobile)
    assert [name for name, _ in mobile.image_encoder.named_parameters()] == before


@pytest.mark.parametrize(("part", "tower"), [("text_projection", "text"), ("visual.proj", "image")])
def test_a_projection_that_is_missing(make: Make, part: str, tower: str) -> None:
    checkpoint = make()
    owner, _, name = part.rpartition(".")
    setattr(checkpoint.model.get_submodule(owner), name, None)
    if tower == "text":
        checkpoint.text_encoder._parameters[name] = None
    found = bad(checkpoint)
    assert list(found) == ["projection"]
    assert f"D = 24 is stated, but the {tower} tower gives 64" in found["projection"].message
    assert "embed_dim" in str(found["projection"].fix)


@pytest.mark.parametrize(
    ("part", "what"), [("text_projection", "text tower gives the same"), ("visual.proj", "image tower gives the same")]
)
def test_weights_that_are_zero(make: Make, part: str, what: str) -> None:
    weights = state()
    weights[part] = torch.zeros_like(weights[part])
    found = bad(make(state=weights))
    assert list(found) == ["weights"]
    assert what in found["weights"].message
    assert "not loaded or not trained" in str(found["weights"].fix)


def test_answers_that_are_not_finite(make: Make) -> None:
    weights = state()
    weights["visual.conv1.weight"] = weights["visual.conv1.weight"] * 1e38
    found = bad(make(state=weights))
    assert "not finite" in found["weights"].message


def test_weights_of_one_value(make: Make) -> None:
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    weights = state()
    weights[name] = torch.full_like(weights[name], 0.01)
    finding = find(make(state=weights), "weights")
    assert finding.state == "note"
    assert f"1 weights hold one value throughout: {name}" in finding.message


def test_statistics_that_never_moved(make: Make) -> None:
    config = checkpoints.model_config("resnet")
    weights = checkpoints.make_model(config).state_dict()
    weights["visual.bn1.running_mean"] = torch.zeros_like(weights["visual.bn1.running_mean"])
    weights["visual.bn1.running_var"] = torch.ones_like(weights["visual.bn1.running_var"])
    finding = find(make(config, state=weights), "BatchNorm")
    assert finding.state == "note"
    assert "1 of " in finding.message
    assert finding.message.endswith(": bn1")
    assert "running_mean" in str(finding.fix)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_dropout_that_is_on(make: Make, tower: str) -> None:
    checkpoint: Any = make()
    owner, name = (checkpoint.model.visual, "ln_post") if tower == "image" else (checkpoint.model, "ln_final")
    setattr(owner, name, nn.Sequential(getattr(owner, name), nn.Dropout(0.5).train()))
    checkpoint.text_encoder._modules.update({k: v for k, v in checkpoint.model._modules.items() if k != "visual"})
    finding = find(checkpoint, "evaluation mode", "bad")
    assert f"1 modules are in training mode: {tower}." in finding.message
    assert "model.eval()" in str(finding.fix)


def test_a_logit_scale_that_was_not_made_a_logarithm(make: Make) -> None:
    found = bad(make(state=state(logit_scale=torch.tensor(100.0))))
    assert list(found) == ["logit scale"]
    assert "logit_scale, 4.6052" in str(found["logit scale"].fix)


@pytest.mark.parametrize("value", [-2.0, 6.5])
def test_a_logit_scale_that_no_clip_has(make: Make, value: float) -> None:
    finding = find(make(state=state(logit_scale=torch.tensor(value))), "logit scale")
    assert finding.state == "note"
    assert "between 1 and 200" in finding.message


def test_a_sigmoid_without_a_bias(make: Make) -> None:
    config = checkpoints.model_config(init_logit_bias=0.0)
    finding = find(make(config), "logit scale")
    assert finding.state == "note"
    assert "logit_bias" in str(finding.fix)
