"""Preprocessing configurations of both libraries, read without either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.pixels import FAMILIES, of_family, of_open_clip, of_transformers, pixel_spec

WHERE = Path("preprocessor_config.json")
CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def test_transformers_crops_by_flooring_after_rgb() -> None:
    spec = pixel_spec(of_transformers(CLIP, WHERE), (None, None), None)
    assert (spec.height, spec.width, spec.resize, spec.interpolation) == (32, 32, "shortest", "bicubic")
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (spec.crop_rounding, spec.rgb) == ("floor", "before_resize")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 32, "crop_size": 32}, ("shortest", "bicubic")),
        ({"size": {"height": 32, "width": 48}, "do_center_crop": False, "resample": 2}, ("squash", "bilinear")),
        ({"size": {"height": 32, "width": 32}}, ("squash", "bicubic")),
    ],
)
def test_transformers_states_its_size_in_several_ways(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    facts = of_transformers({**CLIP, **changes}, WHERE)
    assert facts is not None and (facts.resize, facts.interpolation) == expected


def test_no_normalisation_is_mean_zero() -> None:
    facts = of_transformers({**CLIP, "do_normalize": False}, WHERE)
    assert facts is not None and (facts.mean, facts.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_flip_channel_order": True}, "another order than RGB"),
        ({"do_resize": False}, "does not resize"),
        ({"rescale_factor": 1.0}, "does not scale bytes"),
        ({"resample": 1}, "resample 1"),
        ({"do_center_crop": False}, "does not crop the centre"),
        ({"crop_size": 28}, "crops 28x28"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"size": {"longest_edge": 32}}, "has size"),
    ],
)
def test_what_transformers_does_otherwise_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        of_transformers({**CLIP, **changes}, WHERE)


def test_open_clip_states_no_filter_in_older_files() -> None:
    facts = of_open_clip({"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}, WHERE)
    assert facts is not None
    assert (facts.resize, facts.interpolation, facts.crop_rounding, facts.rgb) == (
        "shortest",
        "bicubic",
        "round",
        "after_resize",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "BGR"}, "another order"),
        ({"resize_mode": "longest"}, "longest"),
        ({"interpolation": "random"}, "random"),
    ],
)
def test_what_open_clip_does_otherwise_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        of_open_clip({"mean": [0.5] * 3, "std": [0.5] * 3, **changes}, WHERE)


def test_the_families_are_open_clips_own() -> None:
    """One fact in two places, since one of them needs PyTorch: held equal here."""
    pytest.importorskip("open_clip", reason="needs the extra: pip install 'clipdeploy[export]'")
    from clipdeploy.export.openclip import preprocessing

    assert set(FAMILIES) == set(preprocessing.FAMILIES)
    for name, theirs in preprocessing.FAMILIES.items():
        ours = of_family(name)
        assert (ours.resize, ours.interpolation) == (theirs["resize_mode"], theirs["interpolation"])
        assert (ours.mean, ours.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))


def test_an_unknown_family_is_told_the_known_ones() -> None:
    with pytest.raises(CheckpointError) as caught:
        of_family("clip")
    assert "openai, siglip, clipa, mobileclip, pe" in str(caught.value)


def test_an_open_size_is_asked_for() -> None:
    with pytest.raises(CheckpointError) as caught:
        pixel_spec(of_family("openai"), (None, None), None)
    assert "--image-size" in str(caught.value)
    assert pixel_spec(of_family("openai"), (None, None), (24, 24)).height == 24
    assert pixel_spec(of_family("openai"), (40, 40), None).height == 40
