"""The encoders at work: any number of rows, any number of threads, opened once, closed once."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, BundleCorruptError, InputError
from clipdeploy.runtime import chosen as chosen_module
from clipdeploy.runtime import encoders as encoders_module
from clipdeploy.runtime.backends import BackendChoice
from clipdeploy.runtime.chosen import Chosen, open_encoder, settle
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.spec import Precision, TensorSpec, Tower
from tests.bundles import EMBED_DIM, IMAGE_SIZE, make_bundle
from tests.runtime.fake_session import FakeArray, FakeDeviceSession, FakeSession

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    bundle = Bundle.open(make_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))
    return settle(bundle, Precision.FP32, BackendChoice("onnxruntime", "for tests"))


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def with_session(patch: pytest.MonkeyPatch, chosen: Chosen, session: Any) -> Encoders:
    patch.setattr(encoders_module, "open_encoder", lambda *given, **options: session)
    return Encoders(chosen)


@pytest.mark.parametrize("count", [0, 1, 7, 33, 1000])
@pytest.mark.parametrize("largest", [None, 1, 8, 64])
def test_any_number_of_rows(chosen: Chosen, monkeypatch: pytest.MonkeyPatch, count: int, largest: int | None) -> None:
    session = FakeSession(largest_batch=largest)
    encoders = with_session(monkeypatch, chosen, session)
    rows = pixels(count)
    embeds = encoders.run(Tower.IMAGE, rows, 32)
    assert embeds.dtype == np.float32
    np.testing.assert_array_equal(embeds, rows[:, 0, 0, :EMBED_DIM])
    assert sum(session.batches) == count
    size = min(32, largest or 32)
    assert all(batch == size for batch in session.batches[:-1])


def test_one_batch_is_not_copied(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = np.ones((5, EMBED_DIM), np.float32)
    encoders = with_session(monkeypatch, chosen, FakeSession(answer=lambda batch: answer))
    assert encoders.run(Tower.IMAGE, pixels(5), 32) is answer


def test_rows_that_are_no_numbers_are_named(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = with_session(monkeypatch, chosen, FakeSession(largest_batch=4))
    rows = pixels(9)
    rows[[2, 7], 0, 0, 0] = np.nan, np.inf
    with pytest.raises(BackendError, match=r"onnxruntime gave .* not finite \(fp32\), rows \[2 7\]"):
        encoders.run(Tower.IMAGE, rows, 32)


def test_closing_waits_for_those_that_run(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run that has begun ends with its answer, every later one with an error; the session never sees both."""
    session = FakeSession(takes_s=0.005)
    encoders = with_session(monkeypatch, chosen, session)
    start, rows = threading.Barrier(9), pixels(3)

    def work(_: int) -> tuple[int, str]:
        start.wait()
        for done in range(10_000):
            try:
                np.testing.assert_array_equal(encoders.run(Tower.IMAGE, rows, 2), rows[:, 0, 0, :EMBED_DIM])
            except BackendError as error:
                return done, error.message
        return 10_000, ""

    with ThreadPoolExecutor(8) as pool:
        workers = pool.map(work, range(8))
        start.wait()
        time.sleep(0.1)
        encoders.close()
        ended = session.closed, session.running
        outcomes = list(workers)
    assert ended == (1, 0)
    assert session.most_running > 1
    assert all(done for done, _ in outcomes)
    assert all("is closed" in message for _, message in outcomes)
    encoders.close()
    assert session.closed == 1


def test_closing_while_it_is_opened(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, go_on, session = threading.Event(), threading.Event(), FakeSession()

    def open_slowly(*given: Any, **options: Any) -> FakeSession:
        opening.set()
        assert go_on.wait(10)
        return session

    monkeypatch.setattr(encoders_module, "open_encoder", open_slowly)
    encoders = Encoders(chosen)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(encoders.run, Tower.IMAGE, pixels(1), 1)
        assert opening.wait(10)
        closing = pool.submit(encoders.close)
        time.sleep(0.05)
        assert not closing.done()
        go_on.set()
        assert answer.result(10).shape == (1, EMBED_DIM)
        closing.result(10)
    assert session.closed == 1
    with pytest.raises(BackendError, match="closed"):
        encoders.session(Tower.IMAGE)


def test_a_failed_run_does_not_keep_it_open(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = with_session(monkeypatch, chosen, FakeSession())
    with pytest.raises(InputError, match="must be float32"):
        encoders.run(Tower.IMAGE, pixels(1).astype(np.float64), 1)
    encoders.close()


def test_what_fails_its_self_test_is_closed(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[FakeSession] = []

    def opened(*given: Any, **options: Any) -> FakeSession:
        sessions.append(FakeSession())
        return sessions[-1]

    def drifts(*given: Any, **options: Any) -> Any:
        raise BackendError("the image encoder drifts")

    monkeypatch.setattr(encoders_module, "open_encoder", opened)
    monkeypatch.setattr(encoders_module, "self_test", drifts)
    encoders = Encoders(chosen)
    for count in (1, 2):
        with pytest.raises(BackendError, match="drifts"):
            encoders.run(Tower.IMAGE, pixels(1), 1)
        assert [session.closed for session in sessions] == [1] * count
    assert Encoders(chosen, self_test=False).run(Tower.IMAGE, pixels(1), 1).shape == (1, EMBED_DIM)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: setattr(s, "input", TensorSpec("pixels", "float32", s.input.shape)),
        lambda s: setattr(s, "output", TensorSpec("image_embeds", "float32", ("batch", 3))),
    ],
)
def test_what_is_not_the_manifests_is_closed(
    chosen: Chosen, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]
) -> None:
    session = FakeSession()
    change(session)
    monkeypatch.setattr(chosen_module, "open_session", lambda *given, **options: session)
    with pytest.raises(BundleCorruptError, match="the image graph has"):
        open_encoder(chosen, Tower.IMAGE)
    assert session.closed == 1


def test_what_was_asked_of_the_engine_reaches_it(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def open_session(graph: Path, **options: Any) -> FakeSession:
        asked.update(options, graph=graph)
        return FakeSession()

    monkeypatch.setattr(chosen_module, "open_session", open_session)
    Encoders(chosen, threads=3, usual_batch=8).session(Tower.IMAGE)
    assert asked == {
        "graph": chosen.graphs[Tower.IMAGE].path,
        "backend": "onnxruntime",
        "precision": Precision.FP32,
        "threads": 3,
        "usual_batch": 8,
        "as_written": False,
    }


def test_a_forgotten_clip_takes_all_with_it(chosen: Chosen) -> None:
    """No cycles: what a Clip holds goes when the last name for it goes, whether or not it was closed."""
    gc.collect()
    gc.disable()
    others = set(threading.enumerate())
    try:
        clip = clipdeploy.load(chosen.bundle, backend="onnxruntime")
        clip.classify([np.zeros((40, 40, 3), np.uint8)] * 4, ["a dog", "a cat"])
        classifier = clip.classifier(["a dog"])
        before = {t for t in threading.enumerate() if t.name.startswith("clipdeploy")} - others
        assert before
        held = [weakref.ref(one) for one in (clip, clip.images, clip._encoders.session(Tower.IMAGE), clip._encoders)]
        del clip
        assert held[0]() is None
        assert classifier.classify(np.zeros((40, 40, 3), np.uint8)).label == "a dog"
        del classifier
        assert [ref() for ref in held] == [None] * 4
        ends = time.monotonic() + 5
        while any(thread.is_alive() for thread in before) and time.monotonic() < ends:
            time.sleep(0.01)
        assert not [thread.name for thread in before if thread.is_alive()]
    finally:
        gc.enable()


def test_pixels_on_a_gpu_stay_there(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders_module, "open_encoder", lambda *given, **options: FakeDeviceSession(largest_batch=8))
    with clipdeploy.load(chosen.bundle, backend="onnxruntime") as clip:
        frames = FakeArray(pixels(5))
        embeds = clip.encode_pixels(frames)
        assert isinstance(embeds, FakeArray)
        np.testing.assert_array_equal(embeds.numpy(), frames.values[:, 0, 0, :EMBED_DIM])
        assert isinstance(clip.encode_pixels(pixels(2)), np.ndarray)
    with pytest.raises(BackendError, match="closed"):
        clip.encode_pixels(frames)


def test_pixels_on_a_gpu_that_the_backend_does_not_use(chosen: Chosen) -> None:
    class CudaArray:
        __cuda_array_interface__ = {"shape": (1, 3, 32, 32)}  # noqa: RUF012  # as CuPy offers it

    with clipdeploy.load(chosen.bundle, backend="onnxruntime") as clip:
        for array in (FakeArray(pixels(1)), CudaArray()):
            with pytest.raises(InputError, match=r"takes arrays in the memory of the host.*(?s:.*)tensorrt"):
                clip.encode_pixels(array)
        with pytest.raises(InputError, match="no backend reads"):
            clip.encode_pixels(FakeArray(pixels(1), device=10))
        with pytest.raises(InputError, match="cannot be shared: it is not in the memory"):
            clip.encode_pixels(FakeArray(pixels(1), device=1))


def test_a_tensor_of_pytorch_is_taken_as_it_is(chosen: Chosen) -> None:
    torch = pytest.importorskip("torch", reason="tensors of PyTorch: pip install 'clipdeploy[export]'")
    rows = pixels(3)
    with clipdeploy.load(chosen.bundle, backend="onnxruntime") as clip:
        expected = clip.encode_pixels(rows)
        np.testing.assert_array_equal(clip.encode_pixels(torch.from_numpy(rows)), expected)
        with pytest.raises(InputError, match=r"detach\(\)"):
            clip.encode_pixels(torch.from_numpy(rows).requires_grad_())
        with pytest.raises(InputError, match="must be float32, got float64"):
            clip.encode_pixels(torch.from_numpy(rows).double())
