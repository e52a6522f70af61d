"""CUDA graphs, contexts, memory and arrays that stay on the GPU: what only a real one can show."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[engine]'")

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.runtime.trt.session import TensorRtSession
from clipdeploy.spec import Precision, Tower
from tests.gpu.conftest import BANDS, Device, Workshop
from tests.gpu.test_engines import inputs

LARGEST = max(band[2] for band in BANDS)


class Desk:
    """An engine of the shipped model, and pictures for it."""

    def __init__(self, workshop: Workshop, device: Device, precision: str) -> None:
        workshop.build(precision, Tower.IMAGE)
        bundle = Bundle.open(workshop.folder)
        self.engines = find_engines(bundle, device.backend, {Tower.IMAGE: Precision(precision)})
        self.rows = inputs(bundle, Tower.IMAGE, LARGEST)
        self.opened: list[TensorRtSession] = []

    def open(self, **options: Any) -> TensorRtSession:
        self.opened.append(self.engines.open(Tower.IMAGE, **options))
        return self.opened[-1]


@pytest.fixture(params=["fp32", "fp16", "int8"])
def desk(request: pytest.FixtureRequest, workshop: Workshop, device: Device) -> Iterator[Desk]:
    desk = Desk(workshop, device, request.param)
    yield desk
    for session in desk.opened:
        session.close()


def test_a_cuda_graph_answers_bit_for_bit(desk: Desk) -> None:
    graphs, plain = desk.open(), desk.open(graphs=False)
    for turn in range(80):  # graphs of some sizes, and other sizes between their launches
        count = (1, 8, LARGEST, 1, 3 + turn % 5)[turn % 5]
        rows = np.roll(desk.rows, turn, axis=0)[:count]
        assert graphs.run(rows).tobytes() == plain.run(rows).tobytes(), (turn, count)
    assert graphs.notes == (), "no CUDA graph could be recorded"


@pytest.mark.parametrize("contexts", [1, 2])
def test_24_threads_get_what_one_gets(desk: Desk, contexts: int) -> None:
    session = desk.open(contexts=contexts)
    jobs = [np.roll(desk.rows, number, axis=0)[: 1 + number % 8] for number in range(24)]
    alone = [session.run(batch).tobytes() for batch in jobs]
    with ThreadPoolExecutor(24) as pool:
        answers = pool.map(lambda number: session.run(jobs[number % 24]).tobytes(), range(2400))
        assert all(answer == alone[number % 24] for number, answer in enumerate(answers))


def test_10000_calls_take_no_memory(desk: Desk, device: Device) -> None:
    session = desk.open()
    sizes = (1, 8, 3, LARGEST)

    def calls(count: int) -> int:
        for number in range(count):
            session.run(desk.rows[: sizes[number % len(sizes)]])
        return device.cuda.memory()[0]

    before = calls(1000)
    assert abs(before - calls(10_000)) < 2 << 20


def of_torch(device: Device, rows: NDArray[Any]) -> Any:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return torch.from_numpy(rows).to(f"cuda:{device.cuda.gpu.index}")


def of_cupy(device: Device, rows: NDArray[Any]) -> Any:
    return pytest.importorskip("cupy", reason="needs CuPy").asarray(rows)


@pytest.mark.parametrize("make", [of_torch, of_cupy])
def test_arrays_of_others_go_in_and_out(desk: Desk, device: Device, make: Any) -> None:
    session = desk.open()
    for turn in range(40):
        rows = np.roll(desk.rows, turn, axis=0)[: (1, 8)[turn % 2]]
        given = make(device, rows)
        answer = session.run_on_device(given)
        given[...] = 0  # at once: the batch was read
        library: Any = pytest.importorskip(type(given).__module__.split(".")[0])
        taken = library.from_dlpack(answer)
        twice = taken + taken  # computed in the library's own stream
        del answer, taken  # and the memory may be used again at once
        session.run_on_device(make(device, desk.rows[:8]))
        host = twice.cpu().numpy() if hasattr(twice, "cpu") else twice.get()
        np.testing.assert_array_equal(host, 2 * session.run(rows))


def test_an_interface_goes_in_and_out(desk: Desk, device: Device) -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy")

    class Only:
        def __init__(self, array: Any) -> None:
            self.array = array

        @property
        def __cuda_array_interface__(self) -> Any:
            return self.array.__cuda_array_interface__

    session = desk.open()
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        for count in (1, 8):
            with stream:
                batch = Only(cupy.asarray(desk.rows[:count]) * 1)
                answer = session.run_on_device(batch)
                np.testing.assert_array_equal(cupy.asarray(answer).get(), session.run(desk.rows[:count]))


def test_what_does_not_fit_is_refused(desk: Desk, device: Device) -> None:
    session = desk.open()
    batch = of_torch(device, desk.rows)
    for wrong, told in (
        (batch.half(), "must be float32, got float16"),
        (batch.transpose(2, 3), "without gaps"),
        (batch[0], "must have shape"),
        (batch.cpu(), "must be on GPU"),
        (batch.requires_grad_(), "cannot be handed over by DLPack"),
    ):
        with pytest.raises(InputError, match=told):
            session.run_on_device(wrong)


def test_answers_on_the_gpu_take_no_memory(desk: Desk, device: Device) -> None:
    session = desk.open()
    batch = of_torch(device, desk.rows[:8])

    def calls(count: int) -> int:
        for _ in range(count):
            session.run_on_device(batch)
        session.run_on_device(batch).wait()
        return device.cuda.memory()[0]

    before = calls(100)
    assert abs(before - calls(10_000)) < 2 << 20
