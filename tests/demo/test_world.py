"""The scenes: what is held out stays out, and a seed always gives the same picture."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clipdeploy.demo.captions import caption
from clipdeploy.demo.paint import render, thing_mask
from clipdeploy.demo.shapes import outline
from clipdeploy.demo.trainset import make_chunk
from clipdeploy.demo.world import (
    COLOURS,
    HELD_OUT,
    PAIRS,
    SEEN,
    SHAPES,
    is_held_out,
    sample_scene,
    single_scene,
)
from clipdeploy.errors import InputError


def test_a_fifth_of_the_pairs_is_held_out_evenly() -> None:
    assert len(PAIRS) == 120
    assert len(HELD_OUT) == 24
    assert set(HELD_OUT).isdisjoint(SEEN)
    assert set(HELD_OUT) | set(SEEN) == set(PAIRS)
    assert set(Counter(shape for _, shape in HELD_OUT).values()) == {2}
    assert set(Counter(colour for colour, _ in HELD_OUT).values()) <= {2, 3}
    assert {colour for colour, _ in SEEN} == set(COLOURS)
    assert {shape for _, shape in SEEN} == set(SHAPES)


def test_training_never_shows_or_tells_a_held_out_pair() -> None:
    made = make_chunk(seed=0, index=0, count=400)
    shown = {(COLOURS[c], SHAPES[s]) for c, s in made.things[..., :2].reshape(-1, 2).tolist() if c >= 0}
    assert {colour for colour, _ in shown} == set(COLOURS)
    assert {shape for _, shape in shown} == set(SHAPES)
    assert not any(is_held_out(*pair) for pair in shown)
    told_of = re.compile("|".join(rf"\b{colour} {shape}\b" for colour, shape in HELD_OUT))
    assert told_of.search(f"a photo of a {HELD_OUT[5][0]} {HELD_OUT[5][1]}.")
    assert not [text for row in made.texts for text in row if told_of.search(text.replace("-", "_"))]
    claimed = made.claims[..., [0, 1, 4, 5]].reshape(-1, 2).tolist()
    told = {(COLOURS[c], SHAPES[s]) for c, s in claimed if c >= 0 and s >= 0}
    assert len(told) > 90
    assert not any(is_held_out(*pair) for pair in told)


def test_a_chunk_is_the_same_twice_and_differs_by_index() -> None:
    first, again, other = (make_chunk(seed=3, index=i, count=12) for i in (1, 1, 2))
    assert first.texts == again.texts
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.claims, again.claims)
    assert first.texts != other.texts
    assert (first.pixels != other.pixels).any()


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 200), (640, 360)])
def test_a_seed_gives_one_picture_of_the_size_asked_for(size: tuple[int, int]) -> None:
    picture = render(single_scene(7), size)
    assert picture.size == size
    assert picture.mode == "RGB"
    assert picture.tobytes() == render(single_scene(7), size).tobytes()
    assert picture.tobytes() != render(single_scene(8), size).tobytes()


def test_a_scene_looks_alike_at_any_size() -> None:
    scene = single_scene(11, ("red", "star"), clear=True)
    small = np.asarray(render(scene, (64, 64)), np.float32)
    large = np.asarray(render(scene, (512, 512)).resize((64, 64), Image.Resampling.BOX), np.float32)
    assert np.abs(small - large).mean() < 8.0


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_every_pair_can_be_told_from_its_backdrop(pair: tuple[str, str]) -> None:
    scene = single_scene(PAIRS.index(pair), pair, clear=True)
    assert (scene.things[0].colour, scene.things[0].shape) == pair
    pixels = np.asarray(render(scene, (128, 128)), np.float32)
    found = thing_mask(scene.things[0], (128, 128))
    assert found is not None
    mask = np.zeros((128, 128))
    left, top = found[1]
    mask[top : top + found[0].height, left : left + found[0].width] = np.asarray(found[0])
    inside, outside = pixels[mask > 250].mean(0), pixels[mask < 5].mean(0)
    assert mask.sum() / 255 > 100
    assert np.abs(inside - outside).max() > 20


def test_outlines_reach_about_one_and_differ() -> None:
    for shape in SHAPES:
        points = outline(shape)
        assert points.ndim == 2
        assert points.shape[1] == 2
        assert 0.9 < np.hypot(points[:, 0], points[:, 1]).max() < 1.25
    assert len({outline(shape).tobytes() for shape in SHAPES}) == len(SHAPES)


def test_captions_claim_what_is_there() -> None:
    rng = np.random.default_rng(0)
    for i in range(300):
        scene = sample_scene(rng, things=1 + i % 3)
        text, claim = caption(rng, scene)
        colour, shape = claim.first[:2]
        fitting = [
            thing
            for thing in scene.things
            if (colour < 0 or thing.colour == COLOURS[colour]) and (shape < 0 or thing.shape == SHAPES[shape])
        ]
        assert fitting, text
        assert colour < 0 or COLOURS[colour] in text
        assert shape < 0 or SHAPES[shape] in text


def test_objects_of_a_scene_do_not_touch() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        things = sample_scene(rng, things=3).things
        for a, b in ((0, 1), (0, 2), (1, 2)):
            gap = np.hypot(things[a].x - things[b].x, things[a].y - things[b].y)
            assert gap > things[a].radius + things[b].radius


def test_what_cannot_be_drawn_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="4 objects"):
        sample_scene(rng, things=4)
    with pytest.raises(InputError, match="beige circle"):
        single_scene(0, ("beige", "circle"))
    with pytest.raises(InputError, match="4x4 px"):
        render(single_scene(0), (4, 4))
    with pytest.raises(InputError, match="blob"):
        outline("blob")
