"""Preflight of checkpoints that transformers wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "transformers.models.clip.image_processing_pil_clip", reason="the checkpoints are written by transformers 5"
)
pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

from tests import checkpoints, hf_checkpoints
from tests.export.preflight.conftest import find, look, stating


def load(folder: Path, family: str = "clip", **given: Any) -> Any:
    return checkpoints.load(hf_checkpoints.write(folder, family, **given))


@pytest.mark.parametrize("family", hf_checkpoints.FAMILIES)
def test_clean_checkpoints(tmp_path: Path, family: str) -> None:
    found = look(load(tmp_path / "checkpoint", family)).values()
    assert not [finding for finding in found if finding.state != "good"]


def test_statistics_in_the_order_bgr(tmp_path: Path) -> None:
    turned = [0.40821073, 0.4578275, 0.48145466]
    finding = find(load(tmp_path / "c", pictures={"image_mean": turned}), "channel statistics", "bad")
    assert "preprocessor_config.json" in str(finding.fix)


def test_a_crop_that_would_be_rounded(tmp_path: Path) -> None:
    rounds = stating(load(tmp_path / "c"), pixels={"crop_rounding": "round"})
    assert "cuts odd margins by floor" in find(rounds, "crop rounding", "bad").message


def test_transparency_that_would_be_dropped(tmp_path: Path) -> None:
    drops = stating(load(tmp_path / "c"), pixels={"rgb": "before_resize"})
    assert "mode RGBA, LA become other pixels" in find(drops, "colour modes", "bad").message


def test_an_activation_that_is_not_computed(tmp_path: Path) -> None:
    finding = find(stating(load(tmp_path / "c"), activation="gelu"), "activation", "bad")
    assert "computes quick_gelu" in finding.message
    assert "hidden_act" in str(finding.fix)


def test_a_tower_that_knows_more_positions(tmp_path: Path) -> None:
    checkpoint = load(tmp_path / "c")
    length = checkpoint.spec.tokens.context_length
    table: Any = checkpoint.text_encoder.get_submodule("tower.embeddings.position_embedding")
    table.weight = type(table.weight)(table.weight.repeat(2, 1), requires_grad=False)
    finding = find(checkpoint, "context length", "note")
    assert f"{length} ids a text, but the text tower was trained with {2 * length}" in finding.message
    assert "model_max_length of tokenizer_config.json" in str(finding.fix)


def test_a_mask_that_is_missing(tmp_path: Path) -> None:
    checkpoint = load(tmp_path / "c")
    attention = [module for module in checkpoint.model.modules() if type(module).__name__ == "CLIPAttention"]
    for module in attention:
        genuine = module.forward

        def seeing(*args: Any, genuine: Any = genuine, **kwargs: Any) -> Any:
            return genuine(*args, **{**kwargs, "attention_mask": None, "is_causal": False})

        module.forward = seeing
    finding = find(checkpoint, "causal mask", "bad")
    assert "a causal mask is stated" in finding.message
    assert "config.json" in str(finding.fix)
