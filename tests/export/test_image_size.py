"""An image size other than the checkpoint's: the same model as open_clip makes of it, or a clear refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipdeploy.bundle import embedding_space_id
from clipdeploy.errors import CheckpointError
from clipdeploy.export.tower import ExportOptions, export_tower
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests import checkpoints

TIMM = {"image_size": 224, "timm_proj": "linear"}
VISION: dict[str, dict[str, Any]] = {
    "vit": {},
    "vit of timm": {**TIMM, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token"},
    "eva02": {**TIMM, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"},
    "convnext": {**TIMM, "timm_model_name": "convnext_atto", "timm_pool": "avg"},
    "mobileclip": {**TIMM, "timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None},
}
SIZES = {"vit": (48, 32), "vit of timm": (64, 96), "eva02": (70, 56), "convnext": (64, 96), "mobileclip": (64, 64)}


@pytest.fixture(scope="module", params=VISION)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    config = checkpoints.model_config(vision_cfg=VISION[request.param], custom_text=True)
    return request.param, checkpoints.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), config)


def test_weights_and_embeddings_are_those_of_open_clip(folder: tuple[str, Path]) -> None:
    kind, path = folder
    size = SIZES[kind]
    ours = checkpoints.load(path, image_size=size)
    theirs: Any = open_clip.create_model(f"local-dir:{path}", force_image_size=size).eval()
    assert (ours.spec.pixels.height, ours.spec.pixels.width) == size
    assert ours.spec.image.input.shape == ("batch", 3, *size)
    mine, expected = ours.model.state_dict(), theirs.state_dict()
    assert mine.keys() == expected.keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in expected.items())
    pixels = np.random.default_rng(0).standard_normal((3, 3, *size), dtype=np.float32)
    with torch.no_grad():
        embeds = theirs.encode_image(torch.from_numpy(pixels), normalize=True).numpy()
    assert np.array_equal(ours.reference_image_embeds(pixels), embeds)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    transform = image_transform_v2(PreprocessCfg(**theirs.visual.preprocess_cfg), is_train=False)
    assert np.array_equal(ours.reference_pixels(picture), transform(picture).numpy())

    spaces = {embedding_space_id(c.spec, c.weights_sha256, "") for c in (ours, checkpoints.load(path))}
    assert len(spaces) == 2, "embeddings of two image sizes cannot be compared"


def test_it_is_exported(tmp_path: Path) -> None:
    path = checkpoints.write_checkpoint(tmp_path / "checkpoint")
    checkpoint = checkpoints.load(path, image_size=(48, 32))
    result = export_tower(checkpoint, Tower.IMAGE, tmp_path, ExportOptions())
    assert result.steps[0].max_abs <= 1e-5
    assert OrtSession(result.graph).input.shape == ("batch", 3, 48, 32)


def test_the_checkpoints_own_size_changes_nothing(tmp_path: Path) -> None:
    path = checkpoints.write_checkpoint(tmp_path / "checkpoint")
    size = checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE
    assert checkpoints.load(path, image_size=size).weights_sha256 == checkpoints.load(path).weights_sha256


def test_a_size_that_the_checkpoint_states_is_its_own(tmp_path: Path) -> None:
    preprocess = {**checkpoints.PREPROCESS, "size": checkpoints.IMAGE_SIZE}
    path = checkpoints.write_checkpoint(tmp_path / "sized", preprocess=preprocess)
    assert checkpoints.load(path, image_size=(64, 64)).spec.pixels.height == 64


def test_without_a_size_positions_must_fit(tmp_path: Path) -> None:
    state = checkpoints.make_model(checkpoints.model_config(vision_cfg={"image_size": 48})).state_dict()
    path = checkpoints.write_checkpoint(tmp_path / "other", state=state)
    for stated in ({}, {"image_size": (48, 48)}):
        with pytest.raises(CheckpointError, match=r"positional_embedding is \(37, 64\), expected \(17, 64\)"):
            checkpoints.load(path, **stated)


@pytest.mark.parametrize(
    ("vision", "size", "message", "fix"),
    [
        ({}, (36, 32), "36x32 px cannot be cut into whole patches of 8x8 px", "use a multiple, such as 32x32"),
        ({}, (8, 128), r"its \(1, 16\) patches are as many as before", "drop --image-size"),
        ({"image_size": [32, 64]}, (32, 32), "resamples from square grids alone", "drop --image-size"),
        (VISION["vit of timm"], (100, 96), "whole patches of 16x16 px", "use a multiple, such as 96x96"),
        (VISION["convnext"], (224, 100), "whole strides of 32x32 px", "use a multiple, such as 224x96"),
        (
            {**TIMM, "timm_model_name": "swin_tiny_patch4_window7_224", "timm_pool": "avg"},
            (256, 256),
            "its SwinTransformer is built for one size",
            "drop --image-size",
        ),
        (
            {**TIMM, "timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": None},
            (256, 256),
            "attention pooling has one position a place",
            "drop --image-size",
        ),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    tmp_path: Path, vision: dict[str, Any], size: tuple[int, int], message: str, fix: str
) -> None:
    config = checkpoints.model_config(vision_cfg=vision, custom_text=True)
    path = checkpoints.write_checkpoint(tmp_path / "checkpoint", config)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path, image_size=size)
    assert fix in str(caught.value.fix)


def test_openais_resnets_keep_their_size(tmp_path: Path) -> None:
    path = checkpoints.write_checkpoint(tmp_path / "resnet", checkpoints.model_config("resnet"))
    with pytest.raises(CheckpointError, match="takes 32x32 px and cannot take 64x64: its attention pooling"):
        checkpoints.load(path, image_size=(64, 64))
