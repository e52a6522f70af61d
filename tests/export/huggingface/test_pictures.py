"""What a picture processor's file may say, and what is refused because a bundle cannot say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")

from clipdeploy.errors import CheckpointError
from clipdeploy.export.huggingface.pictures import Pictures, read_pictures
from clipdeploy.spec import PixelSpec

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
OLD = {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "crop_size": 32,
    "size": 32,
    "resample": 3,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
"""As OpenAI's own repositories have it."""
SIGLIP = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def read(folder: Path, stated: Any, *, family: str | None = None, size: int = 32) -> Pictures:
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    return read_pictures(folder, family, own_size=32, size=size, label="here")


def refusal(folder: Path, stated: Any, **more: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read(folder, stated, **more)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {"feature_extractor_type": None, "image_processor_type": "CLIPImageProcessorFast"},
        {"feature_extractor_type": "ChineseCLIPFeatureExtractor", "do_convert_rgb": None},
        {"processor_class": "CLIPProcessor", "_valid_processor_keys": ["images", "size"]},
    ],
)
def test_the_forms_of_a_clip_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = read(tmp_path, {**OLD, **changes}).spec
    means: Any = (tuple(CLIP_MEAN), tuple(CLIP_STD))
    assert (spec.height, spec.width, spec.resize, spec.interpolation) == (32, 32, "shortest", "bicubic")
    assert (spec.mean, spec.std, spec.crop_rounding) == (*means, "floor")


def test_siglip_squashes(tmp_path: Path) -> None:
    spec = read(tmp_path, {**SIGLIP, "resample": 2}).spec
    assert (spec.resize, spec.interpolation, spec.mean, spec.std) == ("squash", "bilinear", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(("kind", "resize"), [("ViTImageProcessor", "squash"), ("BitImageProcessor", "shortest")])
def test_processors_of_other_models_that_clips_are_saved_with(tmp_path: Path, kind: str, resize: str) -> None:
    size: Any = {"height": 32, "width": 32} if resize == "squash" else {"shortest_edge": 32}
    spec = read(tmp_path, {"image_processor_type": kind, "size": size, "crop_size": 32, "resample": 3}).spec
    assert (spec.resize, spec.height, spec.interpolation) == (resize, 32, "bicubic")


def test_no_normalisation_is_mean_0_and_std_1(tmp_path: Path) -> None:
    pictures = read(tmp_path, {**OLD, "do_normalize": False})
    assert (pictures.spec.mean, pictures.spec.std) == ((0.0,) * 3, (1.0,) * 3)
    white = pictures.transform(Image.new("RGB", (40, 40), "white")).numpy()
    assert np.abs(white - 1).max() < 1e-6


def test_the_whole_processors_file_states_it_too(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SIGLIP, "processor_class": "X"}))
    assert read_pictures(tmp_path, None, own_size=32, size=32, label="here").spec.resize == "squash"


def test_two_files_must_agree(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SIGLIP}))
    assert read(tmp_path, SIGLIP).spec.resize == "squash"
    assert "different preprocessings" in refusal(tmp_path, OLD).message


def test_what_is_transparent_is_recorded_as_the_library_does_it(tmp_path: Path) -> None:
    pictures = read(tmp_path, SIGLIP)
    crop = pictures.crop(Image.new("RGBA", (32, 32), (10, 20, 30, 0)))
    assert crop[0, 0].tolist() == ([255] * 3 if pictures.spec.rgb == "on_white" else [10, 20, 30])


def test_a_gray_picture_becomes_rgb_whatever_the_file_says(tmp_path: Path) -> None:
    pictures = read(tmp_path, {**SIGLIP, "do_convert_rgb": None})
    assert pictures.crop(Image.new("L", (50, 40), 7)).tolist() == np.full((32, 32, 3), 7).tolist()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": 40}, "scales the shortest side to 40 px"),
        ({"do_center_crop": False}, "does not crop"),
        ({"do_resize": False}, "do_resize false"),
        ({"do_rescale": False}, "expected 1/255"),
        ({"rescale_factor": 1 / 127.5}, "expected 1/255"),
        ({"resample": 0}, "resample 0"),
        ({"size": 48, "crop_size": 48}, "48x48 px, but the image encoder takes 32"),
        ({"image_std": [0.5, 0.0, 0.5]}, "wrong image_mean or image_std"),
        ({"image_mean": [0.5]}, "wrong image_mean or image_std"),
        ({"size": {"longest_edge": 32}}, "not implemented"),
        ({"feature_extractor_type": "DonutFeatureExtractor"}, "DonutFeatureExtractor"),
        ({"do_pad": True}, "do_pad"),
        ({"auto_map": {"AutoImageProcessor": "own.Processor"}}, "auto_map"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refusal(tmp_path, {**OLD, **changes}).message


def test_a_lost_file_is_refused_and_the_flag_supplies_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json") as caught:
        read_pictures(tmp_path, None, own_size=32, size=32, label="here")
    assert "--preprocessing" in str(caught.value.fix)
    spec = read_pictures(tmp_path, "siglip", own_size=32, size=32, label="here").spec
    assert isinstance(spec, PixelSpec)
    assert (spec.resize, spec.mean, spec.height) == ("squash", (0.5,) * 3, 32)


def test_the_flag_may_not_contradict_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, SIGLIP, family="siglip").spec.crop_rounding == "floor"
    error = refusal(tmp_path, SIGLIP, family="openai")
    assert "another preprocessing" in error.message
    assert "drop --preprocessing" in str(error.fix)


@pytest.mark.parametrize("stated", [OLD, SIGLIP])
def test_pictures_of_another_size(tmp_path: Path, stated: dict[str, Any]) -> None:
    pictures = read(tmp_path, stated, size=48)
    assert (pictures.spec.height, pictures.spec.width) == (48, 48)
    assert pictures.crop(Image.new("RGB", (70, 60))).shape == (48, 48, 3)
    assert "makes pictures of 48x48 px" in refusal(tmp_path, {**OLD, "size": 48, "crop_size": 48}, size=48).message
