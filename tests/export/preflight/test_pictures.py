"""How pictures are prepared: each fault that makes no error is found, and the file or flag that mends it named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

from clipdeploy.runtime.image import ImageProcessor
from tests import checkpoints
from tests.export.preflight.conftest import MOBILE_PICTURES, SIGLIP_PICTURES, Make, bad, find, stating

PICTURES = checkpoints.PREPROCESS
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize("stated", [PICTURES, {**SIGLIP_PICTURES, "resize_mode": "shortest"}])
def test_a_sigmoid_on_cropped_pictures(make: Make, stated: dict[str, Any]) -> None:
    config = checkpoints.model_config(init_logit_bias=-10.0)
    finding = find(make(config, preprocess=stated), "resize")
    assert finding.state == "note"
    assert "trained on squashed pictures" in finding.message
    assert "--preprocessing siglip" in str(finding.fix)
    assert "open_clip_config.json" in str(finding.fix)


def test_a_mobileclip_with_openais_statistics(mobile: Any) -> None:
    openai = {"mean": tuple(PICTURES["mean"]), "std": tuple(PICTURES["std"]), "interpolation": "bicubic"}
    finding = find(stating(mobile, pixels=openai), "resize")
    assert finding.state == "note"
    assert "--preprocessing mobileclip" in str(finding.fix)


def test_a_clip_on_squashed_pictures(make: Make) -> None:
    finding = find(make(preprocess={**PICTURES, "resize_mode": "squash"}), "resize")
    assert finding.state == "note"
    assert "cropped pictures" in finding.message


@pytest.mark.parametrize(
    ("stated", "family"),
    [
        (PICTURES, "openai"),
        (SIGLIP_PICTURES, "siglip"),
        ({**IMAGENET, "interpolation": "bilinear", "resize_mode": "squash"}, "clipa"),
        (MOBILE_PICTURES, "mobileclip"),
        ({**SIGLIP_PICTURES, "interpolation": "bilinear"}, "pe"),
        ({**IMAGENET, "interpolation": "bicubic", "resize_mode": "shortest"}, "no family's"),
    ],
)
def test_families_are_called_by_name(make: Make, stated: dict[str, Any], family: str) -> None:
    finding = find(make(preprocess=stated), "resize")
    assert finding.state == "good"
    assert f"({family} preprocessing)" in finding.message


def test_a_checkpoint_that_floors_where_rounding_is_stated(make: Make) -> None:
    checkpoint = make()
    floors = ImageProcessor(replace(checkpoint.spec.pixels, crop_rounding="floor"))
    found = bad(replace(checkpoint, crop=floors.crop))
    assert list(found) == ["crop rounding"]
    assert "would cut by round, but its own transform cuts odd margins by floor" in found["crop rounding"].message


def test_a_record_that_floors_where_the_checkpoint_rounds(make: Make) -> None:
    found = bad(stating(make(), pixels={"crop_rounding": "floor"}))
    assert "by floor, but its own transform cuts odd margins by round" in found["crop rounding"].message


def test_another_crop_altogether(make: Make) -> None:
    checkpoint = make()
    other = ImageProcessor(replace(checkpoint.spec.pixels, interpolation="bilinear"))
    assert "the crops differ" in find(replace(checkpoint, crop=other.crop), "crop rounding", "bad").message


@pytest.mark.parametrize("rule", ["on_white", "before_resize"])
def test_colours_that_become_others(make: Make, rule: str) -> None:
    found = bad(stating(make(), pixels={"rgb": rule}))
    assert list(found) == ["colour modes"]
    assert "RGBA" in found["colour modes"].message


def test_frames_of_opencv_are_mentioned(make: Make) -> None:
    assert 'color="bgr"' in find(make(), "colour modes").message


@pytest.mark.parametrize("known", [PICTURES, IMAGENET])
@pytest.mark.parametrize("which", [("mean", "std"), ("mean",), ("std",)])
def test_statistics_in_the_order_bgr(make: Make, known: dict[str, Any], which: tuple[str, ...]) -> None:
    turned = {name: known[name][::-1] if name in which else known[name] for name in ("mean", "std")}
    finding = find(make(preprocess={**PICTURES, **turned}), "channel statistics", "bad")
    assert f"the {which[0]} is that of" in finding.message
    assert "preprocess_cfg of open_clip_config.json" in str(finding.fix)
    assert "/".join(f"{value:.3g}" for value in known[which[0]]) in str(finding.fix)


@pytest.mark.parametrize("which", [("mean", "std"), ("mean",), ("std",)])
def test_statistics_of_bytes(make: Make, which: tuple[str, ...]) -> None:
    scaled = {name: [255 * value for value in IMAGENET[name]] for name in which}
    finding = find(make(preprocess={**PICTURES, **scaled}), "channel statistics", "bad")
    assert "of values 0..255" in finding.message
    assert "divide them by 255 in preprocess_cfg" in str(finding.fix)


def test_means_below_zero(make: Make) -> None:
    assert find(make(preprocess={**PICTURES, "mean": [-0.1, 0.4, 0.4]}), "channel statistics").state == "note"
