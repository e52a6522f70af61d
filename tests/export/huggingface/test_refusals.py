"""Every doubt about a transformers checkpoint is one clear error that names the fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from safetensors.torch import load_file, save_file  # noqa: E402

from clipdeploy.errors import CheckpointError  # noqa: E402
from tests import hf_checkpoints  # noqa: E402
from tests.export.huggingface.loading import load  # noqa: E402

Folder = Callable[[str], Path]
WEIGHTS = "model.safetensors"
QUERY = "vision_model.encoder.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def small(tmp_path: Path, folder_of: Folder) -> Path:
    """The same of a CLIP with a small vocabulary, MetaCLIP 2."""
    return Path(shutil.copytree(folder_of("metaclip_2"), tmp_path / "small"))


@pytest.fixture
def clip(tmp_path: Path, folder_of: Folder) -> Path:
    """A CLIP's folder that may be changed."""
    return Path(shutil.copytree(folder_of("clip"), tmp_path / "clip"))


def refusal(*args: Any, **stated: Any) -> CheckpointError:
    """The error of a load that must fail."""
    with pytest.raises(CheckpointError) as caught:
        load(*args, **stated)
    assert caught.value.fix, f"no fix is named: {caught.value.message}"
    return caught.value


# -- what it is


@pytest.mark.parametrize(
    ("kind", "model_type", "told", "fix"),
    [
        ("CLIPVisionModel", "clip_vision_model", "not projected", "CLIPVisionModelWithProjection"),
        ("CLIPTextModel", "clip_text_model", "not projected", "CLIPTextModelWithProjection"),
        ("CLIPTextModelWithProjection", "clip_text_model", "text encoder alone", "--text-model"),
        ("CLIPVisionModelWithProjection", "clip_vision_model", "image encoder alone", "--text-model"),
        ("Siglip2Model", "siglip2", "NaFlex", "fixed-resolution"),
        ("SiglipForImageClassification", "siglip", "not supported", "SiglipModel"),
        ("BertModel", "bert", "not supported", "ChineseCLIPModel"),
        ("CLIPSegForImageSegmentation", "clipseg", "not supported", "CLIPModel"),
    ],
)
def test_what_is_no_dual_encoder(tmp_path: Path, kind: str, model_type: str, told: str, fix: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind], "model_type": model_type}))
    error = refusal(tmp_path)
    assert told in error.message
    assert kind in error.message
    assert fix in str(error.fix)


def test_a_type_that_is_not_known_and_no_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "jina_clip"}))
    error = refusal(tmp_path)
    assert "jina_clip" in error.message
    assert "AltCLIPModel" in str(error.fix)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_the_checkpoints_own_is_never_run(clip: Path, name: str) -> None:
    hf_checkpoints.edit(clip / name, auto_map={"AutoModel": "own.Model"})
    (clip / "own.py").write_text("raise SystemExit('run')")
    error = refusal(clip)
    assert name in error.message
    assert "never run" in error.message


def test_a_configuration_that_the_library_does_not_take(clip: Path) -> None:
    content = json.loads((clip / "config.json").read_text())
    hf_checkpoints.edit(clip / "config.json", vision_config={**content["vision_config"], "hidden_act": "gleu"})
    assert "gleu" in refusal(clip).message


def test_a_whole_model_takes_no_text_encoder(clip: Path) -> None:
    assert "drop --text-model" in str(refusal(clip, clip).fix)


def test_pictures_must_be_square(clip: Path) -> None:
    assert "--image-size" in str(refusal(clip, image_size=(64, 32)).fix)
    assert "at least one patch" in refusal(clip, image_size=(4, 4)).message
    content = json.loads((clip / "config.json").read_text())
    hf_checkpoints.edit(clip / "config.json", vision_config={**content["vision_config"], "image_size": [32, 48]})
    assert "[32, 48]" in refusal(clip).message


# -- pairs


def test_a_pair_needs_its_logit_scale_and_its_other_half(tmp_path: Path) -> None:
    image, text = tmp_path / "image", tmp_path / "text"
    hf_checkpoints.write_pair(image, text)
    assert "--logit-scale" in str(refusal(image, text).fix)
    assert "CLIPTextModelWithProjection" in str(refusal(image).fix)
    assert "expected a CLIPTextModelWithProjection" in refusal(image, image, logit_scale=100.0).message
    content = json.loads((text / "config.json").read_text())
    hf_checkpoints.edit(text / "config.json", projection_dim=content["projection_dim"] + 1)
    assert "do not belong together" in refusal(image, text, logit_scale=100.0).message


def test_a_logit_scale_may_not_contradict_the_weights(small: Path) -> None:
    own = load(small).spec.logit_scale
    assert load(small, logit_scale=own).spec.logit_scale == own
    assert "drop --logit-scale" in str(refusal(small, logit_scale=100.0).fix)


# -- weights


def _rename(state: dict[str, Any]) -> None:
    state["vision_model.encoder.layers.1.self_attn.query.weight"] = state.pop(QUERY)


def _drop(state: dict[str, Any]) -> None:
    del state[QUERY]


def _reshape(state: dict[str, Any]) -> None:
    state[QUERY] = state[QUERY][:, :-1].contiguous()


def _spoil(state: dict[str, Any]) -> None:
    state[QUERY][3, 4] = float("nan")


def _transpose(state: dict[str, Any]) -> None:
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    state[name] = state[name].T.contiguous()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_rename, "1 missing"),
        (_drop, "1 missing"),
        (_reshape, "expected (64, 64)"),
        (_spoil, "NaN"),
        (_transpose, "expected (96, 64)"),
    ],
)
def test_tampered_weights(small: Path, change: Callable[[dict[str, Any]], None], told: str) -> None:
    state = load_file(small / WEIGHTS)
    change(state)
    save_file(state, small / WEIGHTS)
    error = refusal(small)
    assert told in error.message
    assert "vision_model.encoder.layers.1." in error.message


def test_an_extra_weight(small: Path) -> None:
    save_file({**load_file(small / WEIGHTS), "classifier.weight": torch.zeros(2, 2)}, small / WEIGHTS)
    assert "1 unexpected (classifier.weight)" in refusal(small).message


# -- texts


def test_a_lost_tokenizer(clip: Path) -> None:
    (clip / "tokenizer.json").unlink()
    error = refusal(clip)
    assert "no tokenizer" in error.message
    assert "--tokenizer" in str(error.fix)


def test_a_tokenizer_from_elsewhere(clip: Path, folder_of: Folder) -> None:
    (clip / "tokenizer.json").unlink()
    assert load(clip, tokenizer=str(folder_of("clip"))).spec.tokens.end_id == 49407
    assert load(clip, tokenizer=str(folder_of("clip") / "tokenizer.json")).spec.tokens.end_id == 49407
    assert "reads texts at id 49407" in refusal(clip, tokenizer=str(folder_of("chinese_clip"))).message


def test_a_tokenizer_with_more_ids_than_the_text_encoder(tmp_path: Path, folder_of: Folder) -> None:
    folder = Path(shutil.copytree(folder_of("siglip2"), tmp_path / "siglip2"))
    error = refusal(folder, tokenizer=str(folder_of("clip")))
    assert "the text encoder takes 600" in error.message


def test_the_end_token_that_is_read_must_be_the_tokenizers(clip: Path) -> None:
    content = json.loads((clip / "config.json").read_text())
    hf_checkpoints.edit(clip / "config.json", text_config={**content["text_config"], "eos_token_id": 49406})
    error = refusal(clip)
    assert "reads texts at id 49406" in error.message
    assert "eos_token_id to 49407" in str(error.fix)
