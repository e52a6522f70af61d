"""The gate: what looks the same is not asked about again; a sensor's noise and slow light count as the same."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.runtime.stream.gate import Gate
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.spec import FrameColor

RNG = np.random.default_rng(0)


def scene(size: tuple[int, int] = (240, 320)) -> NDArray[np.float64]:
    """(H, W, 3): a smooth backdrop, 40..200."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    waves = 120 + 50 * np.sin(rows / 37) * np.cos(columns / 53) + 30 * np.sin(columns / 23)
    return np.repeat(waves[..., None], 3, axis=2)


def frame(picture: NDArray[np.float64], time_s: float = 0.0, color: FrameColor = "rgb") -> Frame:
    pixels = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    if color == "nv12":
        height, width = pixels.shape[:2]
        pixels = np.concatenate([pixels[..., 0], np.full((height // 2, width), 128, np.uint8)])
    return Frame(pixels, color, "cam", 0, time.monotonic(), time.time(), time_s)


def noisy(picture: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    return picture + RNG.normal(0, sigma, picture.shape)


def with_object(picture: NDArray[np.float64], level: float, part: float = 0.12) -> NDArray[np.float64]:
    """A square of another level, `part` of the height wide."""
    height, width = picture.shape[:2]
    side, found = int(part * height), picture.copy()
    found[height // 3 : height // 3 + side, width // 4 : width // 4 + side] = level
    return found


@pytest.mark.parametrize("color", ["rgb", "bgr", "nv12"])
@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (48, 64)])
def test_an_object_that_comes_is_a_change(color: FrameColor, size: tuple[int, int]) -> None:
    gate, empty = Gate(), scene(size)
    assert gate.changed(frame(empty, 0.0, color))
    assert not gate.changed(frame(empty, 0.1, color))
    assert gate.changed(frame(with_object(empty, 250), 0.2, color))
    assert not gate.changed(frame(with_object(empty, 250), 0.3, color))
    assert gate.changed(frame(empty, 0.4, color))


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_a_sensors_noise_is_none(sigma: float) -> None:
    gate, empty = Gate(every_s=100.0), scene()
    gate.changed(frame(noisy(empty, sigma)))
    passed = sum(gate.changed(frame(noisy(empty, sigma), 0.01 * step)) for step in range(1, 40))
    assert passed <= 1
    assert gate.changed(frame(noisy(with_object(empty, 250), sigma), 1.0))


def test_slow_light_is_none_and_a_switch_is() -> None:
    gate, empty = Gate(every_s=100.0), scene()
    gate.changed(frame(noisy(empty, 2.0)))
    dimmer = [gate.changed(frame(noisy((1.0 - 0.002 * step) * empty, 2.0), 0.04 * step)) for step in range(1, 40)]
    assert not any(dimmer)  # a tenth darker in 2 s
    assert gate.changed(frame(with_object(0.9 * empty, 240), 2.1))  # an object is seen in it all the same
    assert gate.changed(frame(0.3 * empty, 2.2))


def test_an_object_that_creeps_is_seen() -> None:
    gate, empty = Gate(every_s=100.0), scene()
    gate.changed(frame(empty))
    for shift in range(1, 30):  # a shadow that grows by a level a frame
        if gate.changed(frame(with_object(empty, 0) * 0.03 * shift + empty * (1 - 0.03 * shift), 0.04 * shift)):
            return
    raise AssertionError("never seen")


def test_nothing_goes_unasked_for_longer_than_every_s() -> None:
    gate, empty = Gate(every_s=0.99), scene()
    asked = [step for step in range(100) if gate.changed(frame(empty, 0.1 * step))]
    assert asked == list(range(0, 100, 10))


def test_other_sizes_and_a_file_that_starts_over_are_changes() -> None:
    gate = Gate(every_s=100.0)
    assert gate.changed(frame(scene(), 5.0))
    assert gate.changed(frame(scene((120, 160)), 5.1))
    assert gate.changed(frame(scene((120, 160)), 0.0))
    assert not gate.changed(frame(scene((120, 160)), 0.1))
    gate.reset()
    assert gate.changed(frame(scene((120, 160)), 0.2))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 700), (700, 3)])
def test_small_and_thin_frames(size: tuple[int, int]) -> None:
    gate = Gate()
    assert gate.changed(frame(np.full((*size, 3), 10.0)))
    assert not gate.changed(frame(np.full((*size, 3), 12.0), 0.1))
    assert gate.changed(frame(np.full((*size, 3), 250.0), 0.2))


def test_a_fresh_gate_has_the_settings_and_has_seen_nothing() -> None:
    gate = Gate(change=9.0, every_s=3.0)
    gate.changed(frame(scene()))
    fresh = gate.fresh()
    assert (fresh.change, fresh.every_s) == (9.0, 3.0)
    assert fresh.changed(frame(scene()))


def test_it_costs_next_to_nothing() -> None:
    gate, big = Gate(every_s=1e9), frame(scene((1080, 1920)))
    gate.changed(big)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        gate.changed(big)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.002


@pytest.mark.parametrize("wrong", [{"change": 0.0}, {"change": 300.0}, {"every_s": 0.0}, {"every_s": float("inf")}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Gate(**wrong)
