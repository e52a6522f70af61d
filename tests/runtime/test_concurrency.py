"""Many threads on one Clip, for a while: the same answers bit for bit, no more memory, and a clean end."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipdeploy
from clipdeploy.errors import BackendError
from clipdeploy.runtime.clip import Clip
from tests.bundles import make_bundle
from tests.runtime.pictures import noise

pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

PICTURES = [noise(40 + 3 * i, 60 - 2 * i, seed=i) for i in range(5)]
LABELS = ["a dog", "a cat", "a bird"]
THREADS = 24
SECONDS = 2.0


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if find_spec(name) is None:
        pytest.skip(f"needs {name}: pip install 'clipdeploy[{'cpu' if name == 'onnxruntime' else name}]'")
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def clip(folder: Path, backend: str) -> Iterator[Clip]:
    with clipdeploy.load(folder, backend=backend) as opened:
        yield opened


def asked(clip: Clip, which: int) -> Any:
    """One of the things that a Clip is asked; the answer has nothing but numbers and texts in it."""
    pixels = np.linspace(-1, 1, 7 * 3 * 32 * 32, dtype=np.float32).reshape(7, 3, 32, 32)
    calls = [
        lambda: clip.encode_image(PICTURES, batch_size=2).tobytes(),
        lambda: clip.encode_image(PICTURES[1]).tobytes(),
        lambda: clip.encode_pixels(pixels, batch_size=3).tobytes(),
        lambda: clip.encode_text(["a dog", "a very small cat"]).tobytes(),
        lambda: clip.classify(PICTURES[:3], LABELS),
        lambda: [(r.index, r.answer) for r in clip.classify_many(PICTURES, LABELS, batch_size=2)],
        lambda: clip.similarity(PICTURES[0], LABELS).tobytes(),
    ]
    return calls[which % len(calls)]()


def test_many_threads_answer_as_one(clip: Clip) -> None:
    expected = [asked(clip, which) for which in range(7)]
    start = threading.Barrier(THREADS)

    def work(index: int) -> int:
        start.wait()
        ends, count = time.monotonic() + SECONDS, 0
        while time.monotonic() < ends or count < 7:
            which = (index + count) % 7
            assert asked(clip, which) == expected[which]
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(work, range(THREADS)))
    assert min(counts) >= 7


def test_closing_while_all_run(folder: Path, backend: str) -> None:
    """Whoever runs when a Clip is closed gets the right answer or is told that it is closed."""
    clip = clipdeploy.load(folder, backend=backend)
    expected = [asked(clip, which) for which in range(7)]
    begun = threading.Semaphore(0)

    def work(index: int) -> str:
        for count in range(100_000):
            which = (index + count) % 7
            try:
                assert asked(clip, which) == expected[which]
            except BackendError as error:
                return error.message
            begun.release()
        return "never closed"

    with ThreadPoolExecutor(THREADS) as pool:
        workers = [pool.submit(work, index) for index in range(THREADS)]
        for _ in range(2 * THREADS):
            assert begun.acquire(timeout=30)
        clip.close()
        messages = [worker.result(timeout=30) for worker in workers]
    assert all("closed" in message for message in messages)


def test_memory_does_not_grow(clip: Clip) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc/self/status, which is Linux's")

    def resident_kib() -> int:
        gc.collect()
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1])

    classifier = clip.classifier(LABELS)
    pixels = np.zeros((2, 3, 32, 32), np.float32)

    def calls(count: int) -> None:
        for index in range(count):
            clip.encode_pixels(pixels)
            classifier(PICTURES[0])
            clip.classify(PICTURES[0], [f"label {index}", f"other {index}"])

    calls(300)
    before = resident_kib()
    calls(1000)
    grown = resident_kib() - before
    assert grown < 0.02 * before, f"{grown} KiB more after 3,000 calls, of {before} KiB"


def test_clips_that_are_opened_and_closed_leave_no_threads(folder: Path, backend: str) -> None:
    def ours() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipdeploy")]

    before = len(ours())
    for _ in range(3):
        with clipdeploy.load(folder, backend=backend) as clip:
            clip.classify(PICTURES, LABELS)
    assert len(ours()) == before
