"""QuickGELU and GELU: what is stated, what is computed, what the names tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

import torch
from open_clip.transformer import QuickGELU
from torch import nn

from clipdeploy.export.preflight.activation import computed_activation
from tests import checkpoints
from tests.export.preflight.conftest import Make, find, stating


class Pretender(nn.Module):
    """Called QuickGELU, and is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x)


Pretender.__name__ = "QuickGELU"


def swap(model: nn.Module, activation: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "gelu"):
            module.gelu = activation


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.GELU(), "gelu"),
        (nn.GELU(approximate="tanh"), "gelu_tanh"),
        (QuickGELU(), "quick_gelu"),
        (nn.SiLU(), "silu"),
        (nn.ReLU(), "relu"),
        (nn.LeakyReLU(), "an unknown function (LeakyReLU)"),
        (Pretender(), "gelu"),
        (nn.Identity(), None),
    ],
)
def test_a_function_is_known_by_what_it_computes(module: nn.Module, name: str | None) -> None:
    assert computed_activation(nn.Sequential(module)) == name


@pytest.mark.parametrize(("computes", "says"), [(QuickGELU(), "quick_gelu"), (nn.SiLU(), "silu")])
def test_modules_that_compute_something_else(make: Make, computes: nn.Module, says: str) -> None:
    checkpoint = make()
    swap(checkpoint.model, computes)
    finding = find(checkpoint, "activation", "bad")
    assert f"gelu is stated, but the image tower computes {says}" in finding.message
    assert "quick_gelu in model_cfg of open_clip_config.json" in str(finding.fix)


def test_a_class_that_computes_not_what_it_is_called(make: Make) -> None:
    checkpoint = make(checkpoints.model_config(quick_gelu=True))
    swap(checkpoint.text_encoder, Pretender())
    assert "the text tower computes gelu" in find(checkpoint, "activation", "bad").message


def test_a_record_that_is_wrong(make: Make) -> None:
    assert "quick_gelu is stated" in find(stating(make(), activation="quick_gelu"), "activation", "bad").message


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"laion_x": {}}
    checkpoints.register(monkeypatch, "tiny", checkpoints.model_config(), **tags)
    checkpoints.register(monkeypatch, "tiny-quickgelu", checkpoints.model_config(quick_gelu=True), openai_x={})


@pytest.mark.parametrize(("name", "twin"), [("tiny", "tiny-quickgelu"), ("tiny-quickgelu", "tiny")])
def test_a_weights_file_states_no_activation(tmp_path: Path, twins: None, name: str, twin: str) -> None:
    state = checkpoints.make_model(checkpoints.model_config()).state_dict()
    path = checkpoints.save_state(tmp_path / "mine.safetensors", state)
    finding = find(checkpoints.load(name, pretrained=path), "activation")
    assert finding.state == "note"
    assert str(finding.fix).endswith(twin)


def test_a_tag_states_it(make: Make, twins: None) -> None:
    checkpoint = stating(replace(make(), source="tiny (laion_x)"), name="tiny")
    assert find(checkpoint, "activation").state == "good"


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("openai/clip-vit-base-patch32", "note"),
        ("someone/clip-vit-large-patch14-336", "note"),
        ("apple/DFN5B-CLIP-ViT-H-14", "note"),
        ("someone/metaclip-tuned", "note"),
        ("laion/CLIP-ViT-B-32-laion2B", "good"),
        ("someone/dfnish", "good"),
        ("fashion-clip", "good"),
    ],
)
def test_names_of_weights_that_have_quickgelu(make: Make, name: str, state: str) -> None:
    checkpoint: Any = stating(replace(make(), source=f"hf-hub:{name}"), name=name)
    if name.endswith("dfnish"):
        checkpoint = stating(checkpoint, name="someone/undfned")
        checkpoint = replace(checkpoint, source="undfned")
    finding = find(checkpoint, "activation")
    assert finding.state == state
    assert (finding.state == "good") == (finding.fix is None)
    assert state == "good" or "trained with QuickGELU" in finding.message
