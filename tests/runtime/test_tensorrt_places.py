"""Contexts, streams, CUDA graphs and memory of a session, on a GPU of the imagination."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.runtime.trt.session import TensorRtSession
from clipdeploy.runtime.trt.slot import GRAPHS
from clipdeploy.spec import Precision, Tower
from tests.bundles import IMAGE_SIZE, make_bundle
from tests.fake_gpu import CudaError, FakeCuda, install, put_engine
from tests.runtime.test_tensorrt import expected, pixels

NOTHING = (0, 0, 0, 0, 0)


class Desk:
    """A bundle with one engine, and the GPU that it runs on."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        total = options.pop("total", 1 << 30)
        self.cuda, self.product = install(monkeypatch, total=total)
        bundle = Bundle.open(make_bundle(tmp_path / "tiny"))
        put_engine(bundle, Tower.IMAGE, tmp_path, **{"bands": [[1, 2, 8]], "scratch": 4096, **options})
        self.engines = find_engines(bundle, "tensorrt", {Tower.IMAGE: Precision.FP32})

    def open(self, **options: Any) -> TensorRtSession:
        return self.engines.open(Tower.IMAGE, **options)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def check(session: TensorRtSession, batch: np.ndarray) -> None:
    np.testing.assert_allclose(session.run(batch), expected(batch), rtol=0, atol=1e-5)


def test_a_batch_size_that_comes_often_is_recorded(desk: Desk) -> None:
    session = desk.open()
    first = session.run(pixels(2))
    for turn in range(2, 7):
        assert session.run(pixels(2)).tobytes() == first.tobytes()
        assert desk.cuda.launches == max(0, turn - 3)
    assert len(desk.cuda.graphs) == 1
    with closing(desk.open(graphs=False)) as plain:
        assert [plain.run(pixels(2)).tobytes() for _ in range(5)] == [first.tobytes()] * 5
    assert len(desk.cuda.graphs) == 1
    assert session.notes == ()
    session.close()
    assert desk.cuda.left == NOTHING


def test_each_graph_has_a_context_that_nothing_else_touches(desk: Desk) -> None:
    """The imagined GPU fails where a graph is launched whose context has changed since."""
    session = desk.open()
    for turn in range(60):
        check(session, pixels((1, 2, 5, 1, 7)[turn % 5], seed=turn))
    assert desk.product.contexts == 1 + 4
    recorded = [context for context, recording in desk.product.computed if recording]
    assert len(recorded) == len(set(recorded)) == 4
    session.close()


def test_profiles_and_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch, bands=[[1, 1, 1], [2, 4, 8], [12, 12, 12]])
    session = desk.open()
    for turn in range(60):  # 9 rows are filled up to 12, and share the graph of 12
        check(session, pixels((1, 4, 9, 12, 3)[turn % 5], seed=turn))
    assert len(desk.cuda.graphs) == 4


def test_calls_take_no_memory(desk: Desk) -> None:
    session = desk.open()
    for count in (1, 4) * 4:
        session.run(pixels(count))
    taken, left = desk.cuda.taken, desk.cuda.left
    for turn in range(200):
        session.run(pixels((1, 4)[turn % 2], seed=turn))
    assert (desk.cuda.taken, desk.cuda.left) == (taken, left)


def test_graphs_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch, bands=[[1, 4, 12]])
    session = desk.open()
    for turn in range(120):
        check(session, pixels(1 + turn % 10))
    assert len(desk.cuda.graphs) == GRAPHS
    made = desk.product.contexts
    assert made == 1 + GRAPHS  # ten sizes in turn do not chase each other out
    for _ in range(80):
        check(session, pixels(12))
    assert len(desk.cuda.graphs) == GRAPHS
    launches = desk.cuda.launches
    check(session, pixels(12))
    assert desk.cuda.launches == launches + 1  # what is not used any more gave way
    session.close()
    assert desk.cuda.left == NOTHING


@pytest.mark.parametrize("why", ["TensorRT", "CUDA", "memory"])
def test_without_graphs_it_runs_and_says_so(desk: Desk, why: str) -> None:
    session = desk.open()
    if why == "TensorRT":
        desk.product.unrecordable = True
    elif why == "CUDA":
        desk.cuda.instantiate = CudaError.cudaErrorStreamCaptureUnsupported
    else:
        desk.product.most_contexts = desk.product.contexts
    for turn in range(20):
        check(session, pixels(1 + turn % 3, seed=turn))
    (note,) = session.notes
    told = {"TensorRT": "enqueueV3", "CUDA": "StreamCaptureUnsupported", "memory": "could not be allocated"}[why]
    assert note.startswith("no CUDA graphs: ") and told in note
    assert (desk.cuda.launches, len(desk.cuda.graphs)) == (0, 1 if why == "CUDA" and desk.cuda.graphs else 0)
    session.close()
    assert desk.cuda.left == NOTHING


def test_one_recording_that_was_disturbed_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some other code of this thread, such as a finaliser, took memory in between."""
    session = desk.open()
    begin, disturbed = FakeCuda.cudaStreamBeginCapture, []

    def begin_and_disturb(self: FakeCuda, stream: int, mode: Any) -> tuple[Any, ...]:
        answer = begin(self, stream, mode)
        if not disturbed:
            disturbed.append(self.cudaMalloc(16))
        return answer

    monkeypatch.setattr(FakeCuda, "cudaStreamBeginCapture", begin_and_disturb)
    for turn in range(12):
        check(session, pixels(2, seed=turn))
    assert disturbed == [(CudaError.cudaErrorStreamCaptureUnsupported, None)]
    assert session.notes == ()
    assert desk.cuda.launches > 0


def test_answers_are_the_callers_own(desk: Desk) -> None:
    session = desk.open()
    one = session.run(pixels(3, seed=1))
    kept = one.copy()
    session.run(pixels(3, seed=2))
    one[0] += 0  # writable
    session.close()
    np.testing.assert_array_equal(one, kept)
    assert one.flags.owndata and one.flags.c_contiguous


def test_batches_that_lie_otherwise_in_memory(desk: Desk) -> None:
    session = desk.open()
    batch = pixels(8)
    for odd in (batch[::2], batch[::-1], np.asfortranarray(batch), batch.transpose(0, 1, 3, 2)):
        check(session, odd)


def test_large_batches_go_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.trt.slot._PART_BYTES", 3 * 3 * IMAGE_SIZE * IMAGE_SIZE * 4)
    desk = Desk(tmp_path, monkeypatch)
    session = desk.open()
    for count in (1, 3, 7, 8):
        check(session, pixels(count))


def at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch, threads: int) -> threading.Barrier:
    """Let batches wait for their answers until so many do."""
    barrier, wait = threading.Barrier(threads), FakeCuda.cudaStreamSynchronize

    def together(self: FakeCuda, stream: int) -> tuple[Any, ...]:
        if self.queue[stream]:
            barrier.wait(10)
        return wait(self, stream)

    monkeypatch.setattr(FakeCuda, "cudaStreamSynchronize", together)
    return barrier


def test_two_threads_compute_at_the_same_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = desk.open(graphs=False)
    assert len(desk.cuda.queue) == 1
    at_once(desk, monkeypatch, 2)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pixels(2, seed=seed) for seed in range(2)]
        for batch, answer in zip(jobs, pool.map(session.run, jobs), strict=True):
            np.testing.assert_allclose(answer, expected(batch), rtol=0, atol=1e-5)
    assert len(desk.cuda.queue) == 2
    session.close()
    assert desk.cuda.left == NOTHING


def test_one_thread_has_one_place(desk: Desk) -> None:
    session = desk.open()
    for _ in range(10):
        session.run(pixels(1))
    assert len(desk.cuda.queue) == 1


def test_a_second_place_needs_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch, total=6 << 20, scratch=4 << 20)
    session = desk.open()
    jobs = [pixels(1 + seed % 4, seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for batch, answer in zip(jobs, pool.map(session.run, jobs), strict=True):
            np.testing.assert_allclose(answer, expected(batch), rtol=0, atol=1e-5)
    assert len(desk.cuda.queue) == 1
    assert all("1 batch at a time: a further one needs 4." in note for note in session.notes)


def test_a_second_place_that_fails_is_done_without(desk: Desk) -> None:
    session = desk.open(graphs=False)
    desk.product.most_contexts = 1
    jobs = [pixels(1 + seed % 4, seed=seed) for seed in range(60)]
    used = desk.cuda.used
    with ThreadPoolExecutor(8) as pool:
        for batch, answer in zip(jobs, pool.map(session.run, jobs), strict=True):
            np.testing.assert_allclose(answer, expected(batch), rtol=0, atol=1e-5)
    assert (desk.cuda.used, len(desk.cuda.queue)) == (used, 1)


@pytest.mark.parametrize("contexts", [1, 2, 3])
def test_24_threads_get_what_one_gets(desk: Desk, contexts: int) -> None:
    session = desk.open(contexts=contexts)
    jobs = [pixels(1 + number % 8, seed=number % 16) for number in range(480)]
    alone = [session.run(batch).tobytes() for batch in jobs[:16]]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(session.run, jobs))
    assert [answer.tobytes() for answer in answers] == [alone[number % 16] for number in range(480)]
    assert len(desk.cuda.queue) <= contexts
    session.close()
    assert desk.cuda.left == NOTHING


def test_closing_waits_for_batches_that_are_computed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = desk.open()
    session.run(pixels(1))
    inside, go, wait = threading.Event(), threading.Event(), FakeCuda.cudaStreamSynchronize

    def slow(self: FakeCuda, stream: int) -> tuple[Any, ...]:
        if self.queue[stream] and not inside.is_set():
            inside.set()
            go.wait(10)
        return wait(self, stream)

    monkeypatch.setattr(FakeCuda, "cudaStreamSynchronize", slow)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(session.run, pixels(2))
        assert inside.wait(10)
        ending = pool.submit(session.close)
        time.sleep(0.05)
        assert not ending.done()
        with pytest.raises(BackendError, match=r"session of engine.plan is closed"):
            session.run(pixels(1))
        go.set()
        np.testing.assert_allclose(running.result(10), expected(pixels(2)), rtol=0, atol=1e-5)
        ending.result(10)
    assert desk.cuda.left == NOTHING
