"""Activation statistics of a graph: the right numbers, in one pass, without copies of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'clipdeploy[cpu]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from clipdeploy.calibration.observe import Observer, light_copy  # noqa: E402
from clipdeploy.calibration.ranges import collect  # noqa: E402
from clipdeploy.calibration.statistics import Statistics  # noqa: E402
from clipdeploy.errors import BackendError, CalibrationError, InputError  # noqa: E402

RNG = np.random.default_rng(0)
WIDE, DEEP = 48, 64
FIRST = RNG.standard_normal((WIDE, DEEP)).astype(np.float32)
SECOND = RNG.standard_normal((DEEP, 8)).astype(np.float32)
SMALL = np.float32(0.5)


def graph(path: Path, *, external: bool = False, opset: int = 19) -> Path:
    """`x` (batch, 5, 48) -> MatMul `hidden` -> Relu `rectified` -> Mul `halved` -> MatMul `y`."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["rectified"]),
        helper.make_node("Mul", ["rectified", "small"], ["halved"]),
        helper.make_node("MatMul", ["halved", "second"], ["y"]),
    ]
    constants = {"first": FIRST, "small": SMALL, "second": SECOND}
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5, WIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, str(path), save_as_external_data=external, location=path.name + ".data", size_threshold=1024)
    return path


def batches(*sizes: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((size, 5, WIDE)).astype(np.float32)} for size in sizes]


def tensors(feeds: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What the graph's tensors hold, over all batches."""
    x = np.concatenate([feed["x"] for feed in feeds])
    hidden = x @ FIRST
    halved = np.maximum(hidden, 0) * SMALL
    return {"x": x, "hidden": hidden, "halved": halved, "y": halved @ SECOND}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("opset", [17, 19, 21])
def test_the_numbers_are_those_of_the_graph(external: bool, opset: int, tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", external=external, opset=opset)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert ("g.onnx.data" in before) == external
    feeds = batches(4, 8, 3)
    told: list[tuple[int, int]] = []
    seen = collect(
        path,
        ["x", "hidden", "y"],
        feeds,
        channels=["hidden", "halved"],
        maxima=["rectified", "x"],
        total=15,
        progress=lambda _, done, total: told.append((done, total)),
    )
    expected = tensors(feeds)
    for name in ("x", "hidden", "y", "halved"):
        assert seen.abs_max(name) == pytest.approx(np.abs(expected[name]).max(), rel=1e-5)
        counted = seen.observed[name].histogram
        assert counted is not None and counted.count == expected[name].size
        low, high = seen.range(name, "max", symmetric=False).low, seen.range(name, "max", symmetric=False).high
        assert (low, high) == pytest.approx((expected[name].min(), expected[name].max()), rel=1e-5)
    for name in ("hidden", "halved"):
        largest = np.abs(expected[name]).max(axis=(0, 1))
        np.testing.assert_allclose(seen.channel_abs_max(name), largest, rtol=1e-5)
    assert seen.maxima()["rectified"] == pytest.approx(expected["hidden"].max(), rel=1e-5)
    assert seen.observed["rectified"].histogram is None
    assert (seen.samples, told) == (15, [(4, 15), (12, 15), (15, 15)])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_batch_sizes_do_not_matter(tmp_path: Path) -> None:
    path, (whole,) = graph(tmp_path / "g.onnx"), batches(12)
    parts = [{"x": whole["x"][start : start + 5]} for start in (0, 5, 10)]
    one, other = collect(path, ["x"], [whole]), collect(path, ["x"], parts)
    assert one.to_dict() == other.to_dict()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of values that each run of a graph gave."""
    sizes: list[int] = []
    run = Observer.run

    def counted(self: Observer, feeds: Any) -> Any:
        whole, extremes = run(self, feeds)
        sizes.append(sum(value.nbytes for value in whole.values()))
        return whole, extremes

    monkeypatch.setattr(Observer, "run", counted)
    return sizes


@pytest.mark.parametrize("count", [16, 200])
def test_what_is_held_at_once_stays_below_the_limit(count: int, held: list[int], tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx")
    one = 5 * 4 * (DEEP + DEEP + 8)  # bytes of hidden, rectified and y of a sample
    limit = int(one * 3.5)
    seen = collect(path, ["hidden", "rectified", "y"], batches(8, count - 8), limit_bytes=limit)
    assert (seen.samples, max(held)) == (count, 3 * one)


def test_tensors_of_one_sample_beyond_the_limit_come_in_groups(held: list[int], tmp_path: Path) -> None:
    path, feeds = graph(tmp_path / "g.onnx"), batches(4, 4)
    names = ["hidden", "rectified", "halved", "y"]
    limit = 5 * 4 * DEEP * 2
    whole = collect(path, names, feeds, maxima=["x"])
    del held[:]
    told: list[tuple[int, int]] = []
    grouped = collect(
        path, names, feeds, maxima=["x"], limit_bytes=limit, total=8,
        progress=lambda _, done, total: told.append((done, total)),
    )  # fmt: skip
    probe, *runs = held
    assert probe > limit >= max(runs)
    assert grouped.samples == 8
    assert told[-1] == (16, 16)
    for name in (*names, "x"):
        assert grouped.abs_max(name) == pytest.approx(whole.abs_max(name), rel=1e-6)
        for side in (grouped, whole):
            assert name == "x" or side.observed[name].histogram.count == 8 * 5 * (8 if name == "y" else DEEP)  # type: ignore[union-attr]


def test_batches_that_end_serve_where_one_pass_is_enough(tmp_path: Path) -> None:
    path, feeds = graph(tmp_path / "g.onnx"), batches(4, 4)

    def once() -> Iterator[dict[str, np.ndarray]]:
        yield from feeds

    assert collect(path, ["y"], once()).to_dict() == collect(path, ["y"], feeds).to_dict()
    with pytest.raises(InputError, match="only once"):
        collect(path, ["y", "hidden"], once(), limit_bytes=100)


def test_weights_are_named_not_copied(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx")
    light = light_copy(path)
    places = {tensor.name: tensor for tensor in light.graph.initializer}
    assert not places["first"].raw_data and not places["second"].raw_data
    assert places["small"].raw_data == SMALL.tobytes()
    read = {tensor.name: onnx.external_data_helper.ExternalDataInfo(tensor) for tensor in (places["first"],)}
    data = path.read_bytes()[read["first"].offset : read["first"].offset + read["first"].length]
    np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(FIRST.shape), FIRST)
    onnx.external_data_helper.load_external_data_for_model(light, str(tmp_path))
    restored, original = onnx.load(str(path)), light
    for tensor in original.graph.initializer:
        tensor.ClearField("data_location")
    assert restored == original


@pytest.mark.parametrize("cut", [1, 3, 1000, 9000])
def test_a_broken_graph_is_refused(cut: int, tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"g\.onnx"):
        collect(path, ["y"], batches(2))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"g\.onnx cannot be read"):
        collect(path, ["y"], batches(2))


def test_a_graph_without_its_weights_is_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx", external=True)
    (tmp_path / "g.onnx.data").unlink()
    with pytest.raises(BackendError, match=r"cannot load .*g\.onnx"):
        collect(path, ["y"], batches(2))


@pytest.mark.parametrize("asked", [{"tensors": ["nothing"]}, {"maxima": ["first"]}, {"channels": ["nothing"]}])
def test_unknown_tensors_are_refused(asked: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tensor named"):
        collect(graph(tmp_path / "g.onnx"), **{"tensors": [], **asked}, batches=batches(2))


@pytest.mark.parametrize("none", [[], batches(0)])
def test_no_samples_are_refused(none: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no samples"):
        collect(graph(tmp_path / "g.onnx"), ["y"], none)


def test_a_wrong_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"float32 \(1, 5, 7\)"):
        collect(graph(tmp_path / "g.onnx"), ["y"], [{"x": np.zeros((2, 5, 7), np.float32)}])


def test_values_that_are_not_finite_name_their_tensor(tmp_path: Path) -> None:
    path, feeds = graph(tmp_path / "g.onnx"), batches(2, 4)
    feeds[1]["x"][3, 2, 1] = np.nan
    with pytest.raises(CalibrationError, match=f"tensor hidden of g.onnx: {DEEP} of {4 * 5 * DEEP} values"):
        collect(path, ["hidden"], feeds)
    with pytest.raises(CalibrationError, match=r"tensor hidden of g\.onnx: a value is nan"):
        collect(path, [], feeds, maxima=["hidden"])


def test_an_infinite_extreme_is_told_as_it_is(tmp_path: Path) -> None:
    path, feeds = graph(tmp_path / "g.onnx"), batches(2)
    feeds[0]["x"][1, 2, 3] = 3e38
    seen = collect(path, [], feeds, maxima=["hidden", "x"])
    assert seen.abs_max("hidden") == np.inf
    text = json.dumps(seen.to_dict(), allow_nan=False)
    assert Statistics.from_dict(json.loads(text)).maxima() == seen.maxima()


def test_statistics_go_through_json(tmp_path: Path) -> None:
    seen = collect(graph(tmp_path / "g.onnx"), ["hidden"], batches(20), channels=["hidden"], maxima=["y"])
    read = Statistics.from_dict(json.loads(json.dumps(seen.to_dict(), allow_nan=False)))
    for method in ("max", "percentile", "entropy"):
        assert read.range("hidden", method) == seen.range("hidden", method)
    np.testing.assert_array_equal(read.channel_abs_max("hidden"), seen.channel_abs_max("hidden"))
    assert (read.maxima(), read.samples) == (seen.maxima(), 20)


@pytest.mark.parametrize("record", [{}, {"samples": 1, "observed": {"x": {"low": 0}}}, {"samples": 1, "observed": 3}])
def test_other_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="calibrate again"):
        Statistics.from_dict(record)
