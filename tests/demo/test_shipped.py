"""The weights that ship: open_clip loads them as it loads any, and they do what their card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.demo import DEFAULT_MODEL, MODELS, model_path
from clipdeploy.errors import InputError

# under the scores of the cards by what 216 pictures can differ from 1200
BOUNDS = {"rn": 0.88, "vit": 0.85}
NAMES = sorted(MODELS)


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InputError, match="rn, vit"):
        model_path("resnet")
    assert model_path() == model_path(DEFAULT_MODEL)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_was_measured(name: str) -> None:
    folder = model_path(name)
    score, training = _json(folder, "score.json"), _json(folder, "training.json")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| held-out pairs | {score['held_out']['pictures']} | {score['held_out']['top1']:.1%} |" in text
    assert f"{training['steps']} steps" in text
    assert score["held_out"]["top1"] >= BOUNDS[name]
    assert (folder / "open_clip_model.safetensors").stat().st_size < 12_000_000


@pytest.mark.parametrize("name", NAMES)
def test_open_clip_loads_it_strictly_and_it_knows_pairs_it_never_saw(name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra: pip install 'clipdeploy[export]'")
    pytest.importorskip("open_clip", reason="needs the extra: pip install 'clipdeploy[export]'")
    safetensors = pytest.importorskip("safetensors.torch")
    from clipdeploy.demo.score import classifier, load_model, score_pictures, top1
    from clipdeploy.demo.world import HELD_OUT

    folder = model_path(name)
    model, transform, tokenizer = load_model(folder)
    kept = safetensors.load_file(folder / "open_clip_model.safetensors")
    assert set(kept) == set(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.isfinite(value).all(), key
        torch.testing.assert_close(value, kept[key].to(value.dtype), atol=0, rtol=0)

    result = top1(model, transform, classifier(model, tokenizer), score_pictures(HELD_OUT, 9, seed=77))
    assert result["pictures"] == 216
    assert result["top1"] >= BOUNDS[name]


@pytest.mark.parametrize("name", NAMES)
def test_its_own_transform_is_the_one_in_its_config(name: str) -> None:
    pytest.importorskip("torch", reason="needs the extra: pip install 'clipdeploy[export]'")
    pytest.importorskip("open_clip", reason="needs the extra: pip install 'clipdeploy[export]'")
    from PIL import Image

    from clipdeploy.demo.score import load_model
    from clipdeploy.demo.trainset import shrink

    folder = model_path(name)
    _, transform, _ = load_model(folder)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    config = _json(folder, "open_clip_config.json")["preprocess_cfg"]
    wanted = (np.asarray(shrink(picture), np.float32) / 255 - config["mean"]) / config["std"]
    found = transform(picture).numpy().transpose(1, 2, 0)
    assert found.shape == (64, 64, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
