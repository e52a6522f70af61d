"""What the benchmarks compute of their times: fits, ceilings, and how much two runs differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]


def test_a_line_is_found_again() -> None:
    from bench.curves import linear

    fit = linear([(n, 3.0 + 2.0 * n) for n in (1.0, 2.0, 8.0, 64.0)])
    assert (fit.fixed, fit.slope) == (pytest.approx(3.0), pytest.approx(2.0))
    assert fit.worst == pytest.approx(0.0, abs=1e-9)
    assert fit.at(10.0) == pytest.approx(23.0)


def test_small_values_count_as_much_as_large_ones() -> None:
    from bench.curves import linear

    fit = linear([(1.0, 10.0), (2.0, 20.0), (4.0, 40.0), (64.0, 1280.0)])  # the last one is twice the line
    assert abs(fit.at(1.0) / 10.0 - 1) < 0.2
    assert fit.worst == pytest.approx(max(abs(fit.at(x) / y - 1) for x, y in ((1, 10), (2, 20), (4, 40), (64, 1280))))


def test_an_exponent_is_found_again() -> None:
    from bench.curves import power

    fit = power([(x, 5.0 * x**0.8) for x in (2.0, 9.0, 160.0)])
    assert (fit.factor, fit.exponent) == (pytest.approx(5.0), pytest.approx(0.8))
    assert fit.at(100.0) == pytest.approx(5.0 * 100.0**0.8)


def test_a_curve_holds_points_of_all_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole way, with an engine that answers at once."""
    from bench import curves
    from bench.encoder_graphs import Encoder

    class Instant:
        def run(self, pixels: Any) -> Any:
            return pixels

        def close(self) -> None:
            closed.append(self)

    closed: list[Instant] = []
    monkeypatch.setattr(curves, "open_session", lambda graph, **given: Instant())
    monkeypatch.setattr(curves, "encoder", lambda model, side=None: Encoder(model, side or 32, 8.8, 1, int(side != 64)))
    monkeypatch.setattr(curves, "_REST_S", 0.0)
    found = curves.by_side([32, 64, 96], threads=1, rounds=2)
    assert {pair: [point["name"] for point in points] for pair, points in found["pairs"].items()} == {
        "onnxruntime fp32": ["32 px", "64 px", "96 px"],
        "openvino bf16": ["32 px", "64 px", "96 px"],
        "openvino int8": ["32 px", "96 px"],  # the other has no product in 8 bits
    }
    assert [point["x"] for point in found["pairs"]["openvino bf16"]] == [1.0, 4.0, 9.0]
    assert all(len(point["rounds_ms"]) == 2 for points in found["pairs"].values() for point in points)
    assert len(closed) == 8
    assert "64 px" in curves.curve_table(json.loads(json.dumps(found)))


def test_the_ceiling_is_of_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import ceiling

    monkeypatch.setattr(ceiling, "_COPIED", 1 << 20)
    monkeypatch.setattr(ceiling, "in_rounds", lambda named, **given: {name: [[2.0, 1.0], [4.0, 4.0]] for name in named})
    record = ceiling.measure(2, 2, {"fp32": (16,), "bf16": (16,), "int8": (16, 32)})
    top = ceiling.best(record, "int8")
    assert top["side"] == 32
    assert top["fastest"] == pytest.approx(2 * 32**3 / 1e9 / 1.0 * 1e3)  # products in GFLOP, by its fastest call
    assert list(top["rounds"]) == [pytest.approx(2 * 32**3 / 1e9 / ms * 1e3) for ms in (1.5, 4.0)]
    assert {row["threads"] for row in record["products"]} == {1, 2}
    assert "int8 product, 2 threads" in ceiling.report(record)


def test_a_ceiling_with_more_threads_is_no_lower() -> None:
    from bench.ceiling import best

    rows = [{"precision": "fp32", "threads": 1, "fastest": 9.0}, {"precision": "fp32", "threads": 2, "fastest": 8.0}]
    assert best({"products": rows}, "fp32", 2)["fastest"] == 9.0
    assert best({"products": rows}, "fp32", 1)["fastest"] == 9.0


def test_the_products_and_the_probe_can_be_called() -> None:
    from bench import ceiling

    for libraries in ceiling._libraries().values():
        for make in libraries.values():
            make(64, 1)()
    assert 0.0 < ceiling.probe() < 10_000.0


FIRST = {
    "environment": {"command": "python -m bench.folder", "load_1min": 3.0},
    "rounds": 5,
    "picture_ms": {"a": {"median_ms": 10.0, "fastest_ms": 1.0}, "b": {"median_ms": 20.0}},
    "rows": [{"latency_ms": {"1": 40.0}, "nodes": 280}],
    "probe_ms": [[5.0]],
}


def test_only_what_the_page_shows_is_compared() -> None:
    from bench.again import figures

    assert dict(figures(FIRST)) == {
        "picture_ms/a/median_ms": 10.0,
        "picture_ms/b/median_ms": 20.0,
        "rows/0/latency_ms/1": 40.0,
    }


def test_a_difference_counts_the_same_either_way() -> None:
    from bench.again import again_text, compared

    second = json.loads(json.dumps(FIRST).replace("10.0", "8.0").replace("20.0", "21.0"))
    found = compared(FIRST, {**second, "environment": {"date": "2026-02-01"}})
    assert (found["figures"], found["most"], found["which"]) == (3, pytest.approx(0.25), "picture_ms/a/median_ms")
    assert found["median"] == pytest.approx(0.05)
    assert "of 3 figures half differ by less than 5%" in again_text({"again": found})
    assert again_text(FIRST) == "Run once."


def test_again_writes_into_the_first_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import again

    path = tmp_path / "folder.json"
    path.write_text(json.dumps(FIRST), encoding="utf-8")
    ran: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        ran.append(command)
        second = json.dumps(FIRST).replace("10.0", "11.0")
        Path(command[-1]).write_text(second, encoding="utf-8")

    monkeypatch.setattr(subprocess, "run", run)
    again.main(["folder", "--count", "8", "--json", str(path)])
    assert ran[0][:5] == [sys.executable, "-m", "bench.folder", "--count", "8"]
    record = json.loads(path.read_text("utf-8"))
    assert record["again"]["most"] == pytest.approx(0.1)
    assert record["picture_ms"] == FIRST["picture_ms"]


def test_again_wants_the_first_result_and_the_same_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import again

    path = tmp_path / "folder.json"
    with pytest.raises(SystemExit, match=r"run python -m bench\.folder first"):
        again.main(["folder", "--json", str(path)])
    path.write_text(json.dumps(FIRST), encoding="utf-8")
    other = {**FIRST, "environment": {"command": "python -m bench.folder --count 8"}}
    monkeypatch.setattr(subprocess, "run", lambda command, check: Path(command[-1]).write_text(json.dumps(other)))
    with pytest.raises(SystemExit, match="pass the same options"):
        again.main(["folder", "--json", str(path)])


def test_a_command_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    """As `environment` tells it of the benchmark that runs."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text(f"__path__.append({str(ROOT / 'bench')!r})")
    told = "from bench.common import environment\nprint(environment(1)['command'])"
    (tmp_path / "bench" / "telling.py").write_text(told)
    given = ["--photos", "/some/where/photos", "--json", "/else/where/x.json", "--count", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.telling", *given], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "python -m bench.telling --photos photos --count 8"
