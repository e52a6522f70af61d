"""Batches that are on the GPU already, and answers that stay there, on a GPU of the imagination."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.session import DeviceSession
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.runtime.trt import dlpack
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.spec import Precision, Tower
from tests.bundles import IMAGE_SIZE, make_bundle
from tests.fake_gpu import CudaError, FakeCuda, install, put_engine
from tests.runtime.test_tensorrt import expected, pixels

NOTHING = (0, 0, 0, 0, 0)
LEGACY = 1


class OnGpu:
    """An array of another library, in the imagined GPU's memory, whose values come when its stream gets to them."""

    def __init__(self, cuda: FakeCuda, values: np.ndarray, stream: int = LEGACY) -> None:
        self.cuda, self.shape, self.dtype, self.stream = cuda, values.shape, values.dtype, stream
        self.address = cuda.cudaMalloc(max(1, values.nbytes))[1]
        content = np.ascontiguousarray(values).view(np.uint8).ravel()
        cuda.give(stream, lambda: cuda.at(self.address, content.size).__setitem__(slice(None), content))

    def overwrite(self) -> None:
        self.cuda.give(self.stream, lambda: self.cuda.at(self.address, 4).fill(0x7F))


class ByInterface(OnGpu):
    told: Mapping[str, Any] = MappingProxyType({})

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": self.stream,
            **self.told,
        }


class ByDlpack(OnGpu):
    device = (2, 0)
    lent: Any = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        event = self.cuda.cudaEventCreateWithFlags(2)[1]
        self.cuda.cudaEventRecord(event, self.stream)
        self.cuda.cudaStreamWaitEvent(stream, event, 0)
        self.cuda.cudaEventDestroy(event)
        shape, address = self.shape, self.address
        return self.lent or dlpack.capsule(address, shape, self.dtype.name, self.device, self)


class Desk:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int = 1 << 30) -> None:
        self.cuda, self.product = install(monkeypatch, total=total)
        bundle = Bundle.open(make_bundle(tmp_path / "tiny"))
        put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 2, 8]], scratch=4096)
        self.engines = find_engines(bundle, "tensorrt", {Tower.IMAGE: Precision.FP32})
        self.session: Any = self.engines.open(Tower.IMAGE)

    def new_stream(self) -> int:
        stream: int = self.cuda.cudaStreamCreateWithFlags(1)[1]
        return stream


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Copies between the GPU and the machine."""
    seen: list[Any] = []
    copy = FakeCuda.cudaMemcpyAsync

    def watched(self: FakeCuda, dst: int, src: int, size: int, kind: Any, stream: int) -> tuple[Any, ...]:
        if kind.name != "cudaMemcpyDeviceToDevice":
            seen.append(kind)
        return copy(self, dst, src, size, kind, stream)

    monkeypatch.setattr(FakeCuda, "cudaMemcpyAsync", watched)
    return seen


def test_it_is_a_device_session(desk: Desk) -> None:
    session: DeviceSession = desk.session
    assert session.run_on_device(ByInterface(desk.cuda, pixels(1))).shape == (1, 16)


@pytest.mark.parametrize("kind", [ByInterface, ByDlpack])
@pytest.mark.parametrize("stream", ["legacy", "own"])
def test_a_batch_on_the_gpu(desk: Desk, kind: Any, stream: str, no_host: list[Any]) -> None:
    """Nothing is computed yet in its maker's stream when it is handed over: events order what follows."""
    maker = LEGACY if stream == "legacy" else desk.new_stream()
    for count in (1, 2, 2, 2, 2, 8, 3):
        batch = pixels(count, seed=count)
        given = kind(desk.cuda, batch, maker)
        answer = desk.session.run_on_device(given)
        given.overwrite()  # when the call is over the batch may be written to again
        desk.cuda.cudaStreamSynchronize(maker)
        assert (answer.shape, answer.dtype, answer.device) == ((count, 16), np.float32, 0)
        assert no_host == []
        np.testing.assert_allclose(answer.numpy(), expected(batch), rtol=0, atol=1e-5)
        no_host.clear()
    assert desk.cuda.launches > 0


def test_it_answers_bit_for_bit_as_from_the_machines_memory(desk: Desk) -> None:
    for count in (1, 5):
        batch = pixels(count)
        assert (
            desk.session.run_on_device(ByDlpack(desk.cuda, batch)).numpy().tobytes()
            == desk.session.run(batch).tobytes()
        )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"typestr": "<f2"}, "must be float32, got float16"),
        ({"typestr": ">f4"}, "without gaps"),
        ({"shape": (2, 3, IMAGE_SIZE)}, "must have shape"),
        ({"shape": (9, 3, IMAGE_SIZE, IMAGE_SIZE)}, "batches of 1 to 8, got 9"),
        ({"shape": (0, 3, IMAGE_SIZE, IMAGE_SIZE)}, "must have shape"),
        ({"strides": (4, 4, 4, 4)}, "must lie in memory without gaps"),
        ({"mask": object()}, "has a mask"),
        ({"stream": 0}, "stream 0 .* is ambiguous"),
        ({"stream": 4711}, "stream 4711 that it is computed in cannot be waited for"),
        ({"data": (7, False)}, "must be on GPU 0 .*, it is in the machine's memory"),
        ({"data": None}, "no __cuda_array_interface__ that can be read"),
        ({"version": "x"}, "no __cuda_array_interface__ that can be read"),
    ],
)
def test_what_an_interface_must_tell(desk: Desk, told: dict[str, Any], message: str) -> None:
    given = ByInterface(desk.cuda, pixels(8))
    given.told = told
    with pytest.raises(InputError, match=message):
        desk.session.run_on_device(given)
    given.told = {}
    assert desk.session.run_on_device(given).shape == (8, 16)


@pytest.mark.parametrize("told", [{"stream": None}, {"version": 2, "stream": 0}, {"strides": (192, 64, 8, 1)}])
def test_what_an_interface_may_tell(desk: Desk, told: dict[str, Any]) -> None:
    given = ByInterface(desk.cuda, pixels(1))
    if "strides" in told:
        told = {"strides": tuple(4 * step for step in (3 * IMAGE_SIZE**2, IMAGE_SIZE**2, IMAGE_SIZE, 1))}
    if told.get("stream", 0) is None:
        desk.cuda.cudaStreamSynchronize(LEGACY)  # it says that nothing is to be waited for
    given.told = told
    answer = desk.session.run_on_device(given).numpy()
    np.testing.assert_allclose(answer, expected(pixels(1)), rtol=0, atol=1e-5)


def test_arrays_that_are_elsewhere(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"must be on GPU 0 \(Fake GPU\), this ndarray is in the machine's memory"):
        desk.session.run_on_device(pixels(1))
    with pytest.raises(InputError, match="must be an array on the GPU, got list"):
        desk.session.run_on_device([1.0])
    given = ByDlpack(desk.cuda, pixels(1))
    given.device = (2, 1)
    with pytest.raises(InputError, match=r"must be on GPU 0 \(Fake GPU\), it is on GPU 1"):
        desk.session.run_on_device(given)
    second = ByInterface(desk.cuda, pixels(1))
    desk.cuda.elsewhere.add(second.address)
    with pytest.raises(InputError, match="it is on GPU 1"):
        desk.session.run_on_device(second)


def test_a_capsule_that_cannot_be_taken(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ByDlpack(desk.cuda, pixels(1))
    given.lent = "no capsule"
    with pytest.raises(InputError, match="cannot be handed over by DLPack: not a DLPack capsule"):
        desk.session.run_on_device(given)

    def needs_gradients(self: Any, *, stream: int | None = None) -> Any:
        raise BufferError("it requires gradients")

    monkeypatch.setattr(ByDlpack, "__dlpack__", needs_gradients)
    with pytest.raises(InputError, match="it requires gradients"):
        desk.session.run_on_device(given)


class Consumer:
    """Another library that takes our arrays into its stream."""

    def __init__(self, desk: Desk, stream: int) -> None:
        self.cuda, self.stream, self.seen = desk.cuda, stream, np.zeros(0, np.uint8)

    def read_later(self, address: int, size: int) -> None:
        def read() -> None:
            self.seen = self.cuda.at(address, size).copy()

        self.cuda.give(self.stream, read)

    @property
    def values(self) -> np.ndarray:
        self.cuda.cudaStreamSynchronize(self.stream)
        return self.seen.view(np.float32).reshape(-1, 16)


@pytest.mark.parametrize("how", ["dlpack", "dlpack, legacy", "interface"])
def test_an_answer_is_taken_by_another_library(desk: Desk, how: str) -> None:
    """Its stream waits for the answer; and the memory is not written to again before its stream has read it."""
    consumer = Consumer(desk, desk.new_stream() if how == "dlpack" else LEGACY)
    kept = []
    for seed in range(6):
        batch = pixels(2, seed=seed)
        answer = desk.session.run_on_device(ByInterface(desk.cuda, batch))
        if how == "interface":
            told = answer.__cuda_array_interface__
            assert (told["shape"], told["typestr"], told["version"], told["stream"]) == ((2, 16), "<f4", 3, LEGACY)
            assert told["strides"] is None
            address = told["data"][0]
        else:
            capsule = answer.__dlpack__(stream=consumer.stream if how == "dlpack" else None)
            lent = dlpack.read(capsule)
            assert (lent.shape, lent.dtype, lent.device) == ((2, 16), "float32", answer.__dlpack_device__())
            address = lent.address
            del capsule
        consumer.read_later(address, answer.nbytes)
        del answer  # while its reader has not even begun
        later = desk.session.run_on_device(ByInterface(desk.cuda, pixels(2, seed=99)))  # may get the same memory
        for stream in list(desk.cuda.queue):
            if stream != consumer.stream:
                desk.cuda.cudaStreamSynchronize(stream)
        kept += [address, later.__cuda_array_interface__["data"][0]]
        np.testing.assert_allclose(consumer.values, expected(batch), rtol=0, atol=1e-5)
    assert len(set(kept)) <= 2  # memory is used again


def test_what_dlpack_is_not_given(desk: Desk) -> None:
    answer = desk.session.run_on_device(ByInterface(desk.cuda, pixels(1)))
    for asked in ({"copy": True}, {"dl_device": (1, 0)}, {"stream": 0}, {"stream": -2}):
        with pytest.raises(BufferError):
            answer.__dlpack__(**asked)
    waited = len(desk.cuda.legacy)
    answer.__dlpack__(stream=-1, max_version=(1, 0), dl_device=(2, 0), copy=False)
    assert len(desk.cuda.legacy) == waited


def test_numpy_reads_it_by_a_copy(desk: Desk) -> None:
    answer = desk.session.run_on_device(ByInterface(desk.cuda, pixels(3)))
    np.testing.assert_array_equal(np.asarray(answer), answer.numpy())
    assert np.asarray(answer, dtype=np.float64).dtype == np.float64
    assert len(answer) == 3
    desk.cuda.failing = CudaError.cudaErrorInvalidResourceHandle
    with pytest.raises(BackendError, match="CUDA failed in computing"):
        answer.wait()
    desk.cuda.failing = None
    answer.wait()
    with pytest.raises(ValueError, match="without a copy"):
        answer.__array__(copy=False)
    assert repr(answer) == "DeviceArray(shape=(3, 16), dtype=float32, GPU 0)"


def test_memory_of_answers_is_used_again(desk: Desk) -> None:
    for _ in range(5):
        desk.session.run_on_device(ByInterface(desk.cuda, pixels(2))).numpy()
    given = ByInterface(desk.cuda, pixels(2))
    taken, left = desk.cuda.taken, desk.cuda.left
    for _ in range(100):
        desk.session.run_on_device(given)
    assert (desk.cuda.taken, desk.cuda.left) == (taken, left)
    many = [desk.session.run_on_device(given) for _ in range(40)]
    assert len({answer.__cuda_array_interface__["data"][0] for answer in many}) == 40
    held = len(desk.cuda.memory)
    del many
    desk.session.run_on_device(given)
    assert len(desk.cuda.memory) == held - 40 + 16  # those beyond what is kept are given back
    desk.session.close()
    desk.cuda.cudaStreamSynchronize(LEGACY)
    assert desk.cuda.left[2:] == (0, 0, 0)


def test_answers_outlive_their_session(desk: Desk) -> None:
    given = ByInterface(desk.cuda, pixels(2))
    answers = [desk.session.run_on_device(given) for _ in range(3)]
    capsule = answers[0].__dlpack__()
    desk.session.close()
    np.testing.assert_allclose(answers[1].numpy(), expected(pixels(2)), rtol=0, atol=1e-5)
    answers[2].close()
    for use in (answers[2].numpy, answers[2].__dlpack__):
        with pytest.raises(BackendError, match="this array is closed"):
            use()
    assert repr(answers[2]).endswith("closed)")
    del answers, use
    gc.collect()
    assert len(desk.cuda.memory) == 2  # the batch, and what the capsule holds
    assert len(desk.cuda.queue) == 1
    del capsule
    desk.cuda.cudaFree(given.address)
    assert desk.cuda.left == NOTHING
    with pytest.raises(BackendError, match="is closed"):
        desk.session.run_on_device(given)


def test_a_forgotten_session_gives_the_memory_of_its_answers_back(desk: Desk) -> None:
    given = ByInterface(desk.cuda, pixels(2))
    desk.session.run_on_device(given)
    desk.session = None
    gc.collect()
    desk.cuda.cudaFree(given.address)
    assert desk.cuda.left == NOTHING


def test_a_stream_that_is_no_more(desk: Desk) -> None:
    """What may still read the memory cannot be known, so the memory is given back when the GPU is done with all."""
    stream = desk.new_stream()
    given = ByInterface(desk.cuda, pixels(2))
    answer = desk.session.run_on_device(given)
    capsule = answer.__dlpack__(stream=stream)
    desk.cuda.cudaStreamSynchronize(stream)
    desk.cuda.cudaStreamDestroy(stream)
    del capsule, answer
    again = desk.session.run_on_device(given)
    np.testing.assert_allclose(again.numpy(), expected(pixels(2)), rtol=0, atol=1e-5)


def test_memory_that_does_not_suffice_for_an_answer(desk: Desk) -> None:
    given = ByInterface(desk.cuda, pixels(2))
    desk.cuda.total = desk.cuda.used
    with pytest.raises(BackendError, match=r"8 rows of \w+ on the GPU need 0.0 MiB of memory on Fake GPU"):
        desk.session.run_on_device(given)
    desk.cuda.total = 1 << 30
    assert desk.session.run_on_device(given).numpy().shape == (2, 16)


def test_a_failure_on_the_gpu(desk: Desk) -> None:
    given = ByInterface(desk.cuda, pixels(2))
    desk.cuda.failing = CudaError.cudaErrorInvalidResourceHandle
    with pytest.raises(BackendError, match="CUDA failed in computing"):
        desk.session.run_on_device(given)
    desk.cuda.failing = None
    assert desk.session.run_on_device(ByInterface(desk.cuda, pixels(2))).numpy().shape == (2, 16)


def test_a_broken_gpu(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ByInterface(desk.cuda, pixels(2))
    given.told = {"stream": None}
    desk.cuda.sticky = CudaError.cudaErrorIllegalAddress
    monkeypatch.setattr(Cuda, "copy", lambda *given: None)  # TensorRT meets it first, and says nothing of it
    monkeypatch.setattr(Cuda, "record", lambda *given: None)
    with pytest.raises(BackendError, match=r"IllegalAddress.*nothing runs on Fake GPU in this process") as caught:
        desk.session.run_on_device(given)
    assert "start the process again" in (caught.value.fix or "")


def test_24_threads_on_the_gpu(desk: Desk) -> None:
    jobs = [ByDlpack(desk.cuda, pixels(1 + number % 8, seed=number)) for number in range(16)]
    alone = [desk.session.run_on_device(job).numpy().tobytes() for job in jobs]

    def run(number: int) -> bytes:
        answer: bytes = desk.session.run_on_device(jobs[number % 16]).numpy().tobytes()
        return answer

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(run, range(320))) == [alone[number % 16] for number in range(320)]
