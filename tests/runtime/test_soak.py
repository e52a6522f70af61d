"""The runtime under many threads, and for many calls: the same answers bit for bit, no growth; bench.soak is longer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx", reason="the benchmark's bundle is quantised")

from bench.soak import GROWTH_AT_MOST, growth, jobs, left, resident_bytes, same, together
from bench.typed_bundle import clouds
from clipdeploy.runtime.clip import load

THREADS = 24


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


def test_24_threads_are_answered_as_one_is(demo_bundle: Path, backend: str) -> None:
    with load(demo_bundle, backend=backend) as clip:
        made = jobs(clip)
        expected = {name: job() for name, job in made.items()}
        found = together(made, expected, threads=THREADS, calls=10 * len(made))
    assert found.calls == 10 * len(made)
    assert found.different == {}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_memory_does_not_grow_over_the_calls(demo_bundle: Path, backend: str) -> None:
    """A few hundred after a warm-up; bench.soak makes 10,000."""
    with load(demo_bundle, backend=backend) as clip:
        made = jobs(clip)
        expected = {name: job() for name, job in made.items()}
        together(made, expected, threads=4, calls=20 * len(made))
        found = together(made, expected, threads=4, calls=40 * len(made))
    assert growth(found.resident) < GROWTH_AT_MOST


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in Linux's /proc")
def test_opening_and_closing_leaves_nothing(demo_bundle: Path, backend: str) -> None:
    def again() -> int:
        with load(demo_bundle, backend=backend, check_hashes=False) as clip:
            clip.classify(clouds(0), ["a dog", "a cat"])
            list(clip.encode_many([clouds(1), clouds(2)]))
        return resident_bytes()

    threads, files = threading.active_count(), open_files()
    resident = [again() for _ in range(12)]
    assert left(resident[4:]) < GROWTH_AT_MOST
    assert threading.active_count() <= threads
    assert open_files() <= files


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_different_answer_would_be_seen(demo_bundle: Path) -> None:
    with load(demo_bundle, backend="onnxruntime") as clip:
        made = jobs(clip)
        expected = {name: job() for name, job in made.items()}
        one, other = expected["encode_pixels of 1"], expected["encode_pixels of 2"]
        assert same(one, one.copy())
        assert not same(one, other)
        off = one.copy()
        off[0, 0] = -off[0, 0]
        found = together({"a": lambda: off}, {"a": one}, threads=2, calls=3)
    assert found.different == {"a": 3}
    assert growth([100] * 10 + [103] * 10) == pytest.approx(0.03)
    assert left([100, 120, 103, 103]) == pytest.approx(0.03)
