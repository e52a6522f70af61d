"""The part of a resize is the part of the whole: bit for bit, for thousands of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipdeploy.runtime import resize
from clipdeploy.runtime.resize import geometry, resize_crop
from tests.bundles import pixel_spec
from tests.runtime.pictures import noise, picture

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def is_exact(image: Image.Image, side: int, resample: Image.Resampling) -> bool:
    place = geometry(image.size, pixel_spec(side, side))
    whole = image.resize(place.size, resample).crop(place.crop)
    part = resize_crop(image, place, resample)
    return (part.mode, part.size, part.tobytes()) == (whole.mode, whole.size, whole.tobytes())


@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_random_sizes(mode: str, resample: Image.Resampling) -> None:
    base = picture(mode, 400, 400)
    rng = np.random.default_rng(1)
    for _ in range(300):
        width, height = (int(v) for v in rng.integers(1, 400, 2))
        assert is_exact(base.crop((0, 0, width, height)), int(rng.choice([16, 32, 56])), resample), (width, height)


@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
def test_every_small_size(resample: Image.Resampling) -> None:
    """All sizes up to 40 x 40: each way of sharing factors between a side and its resize."""
    base = picture("L", 40, 40)
    for width in range(1, 41):
        for height in range(1, 41):
            assert is_exact(base.crop((0, 0, width, height)), 12, resample), (width, height)


@pytest.mark.parametrize("ratio", [(3, 2), (2, 3), (4, 3), (3, 4), (5, 4), (16, 9), (9, 16), (2, 1), (1, 3), (7, 1)])
def test_ratios_of_cameras(ratio: tuple[int, int]) -> None:
    """Sizes that share large factors with their resize, where a box can be exact."""
    for unit in (1, 7, 16, 40):
        size = (ratio[0] * unit, ratio[1] * unit)
        for side in (32, 60, 224):
            assert is_exact(Image.fromarray(noise(*size)), side, BICUBIC), (size, side)


def test_a_box_is_used_where_it_is_exact_and_only_there() -> None:
    assert resize._cut(6000, 336, 56, 280, BICUBIC).source == (1000, 5000)
    assert resize._cut(1920, 398, 87, 311, BICUBIC).source == (0, 1920)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((640, 480), ((298, 224), (37, 0, 261, 224))),
        ((480, 640), ((224, 298), (0, 37, 224, 261))),
        ((500, 333), ((336, 224), (56, 0, 280, 224))),
        ((227, 224), ((227, 224), (2, 0, 226, 224))),  # 1.5 rounds to the even 2
        ((229, 224), ((229, 224), (2, 0, 226, 224))),  # and 2.5 as well
        ((1, 1), ((224, 224), (0, 0, 224, 224))),
        ((1, 3), ((224, 672), (0, 224, 224, 448))),
    ],
)
def test_geometry(size: tuple[int, int], place: tuple[tuple[int, int], tuple[int, int, int, int]]) -> None:
    found = geometry(size, pixel_spec(224, 224))
    assert (found.size, found.crop) == place


def test_geometry_of_a_squash() -> None:
    found = geometry((640, 480), pixel_spec(224, 160, resize="squash"))
    assert (found.size, found.crop) == ((160, 224), (0, 0, 160, 224))


def test_an_unknown_order_of_passes_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "_order_rule", lambda: None)
    assert is_exact(Image.fromarray(noise(120, 77)), 32, BICUBIC)
    assert is_exact(Image.fromarray(noise(77, 190)), 32, BICUBIC)


def test_the_installed_pillow_follows_a_known_order() -> None:
    """If not, pictures are right but slower: teach resize.py the order of this Pillow."""
    assert resize._order_rule() is not None


@pytest.mark.parametrize("rule", [resize._width_first, resize._much_taller_height_first])
def test_the_rules_differ_on_the_probes(rule: resize._OrderRule) -> None:
    other = {resize._width_first, resize._much_taller_height_first} - {rule}
    assert any(rule(*probe) != next(iter(other))(*probe) for probe in resize._PROBES)


def test_a_large_array_is_no_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(noise(400, 500))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150_000)
    assert is_exact(image, 32, BICUBIC)
