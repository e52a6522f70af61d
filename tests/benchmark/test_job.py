"""The whole stage on tiny bundles: what comes out, and what becomes of candidates that die."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.benchmark import job
from clipdeploy.benchmark.environment import environment, load_1min
from clipdeploy.benchmark.job import measure_bundle
from clipdeploy.benchmark.records import STAGES, BenchResult
from clipdeploy.errors import BackendError, InputError, OutputError
from clipdeploy.pack import PackRequest, pack_bundle
from clipdeploy.spec import Tower, from_dict, to_dict
from tests.benchmark.conftest import quick

DYING = """
import os, signal, sys, time
begun = time.perf_counter()
from clipdeploy.benchmark.serving import serve
from clipdeploy.benchmark.worker import Worker

worker = Worker(begun)
handlers = worker.handlers()
genuine = handlers["{at}"]

def dying(**given):
    if worker._clip is not None and worker._clip.precision.value in {precisions!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return genuine(**given)

serve({{**handlers, "{at}": dying}})
"""


def dying(monkeypatch: pytest.MonkeyPatch, at: str, *precisions: str) -> None:
    """Have candidates of these precisions be killed when they are asked that."""
    code = DYING.format(at=at, precisions=precisions)
    monkeypatch.setattr(job, "COMMAND", (sys.executable, "-c", code))


TOLD: list[tuple[str, int, int]] = []


@pytest.fixture(scope="module")
def result(tiny: Path) -> BenchResult:
    request = quick(tiny, precisions=("all",), batches=(1, 4))
    return measure_bundle(request, progress=lambda *step: TOLD.append(step))


def test_it_tells_how_far_it_is(result: BenchResult) -> None:
    """Every step that was planned is taken, and none beside."""
    *steps, last = TOLD
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert last == ("done", len(steps), len(steps))
    assert any("onnxruntime fp16: pictures, batches of 4, round 2 of 2" in what for what, _, _ in steps)


def test_everything_is_measured(result: BenchResult) -> None:
    assert [one.name for one in result.candidates] == ["onnxruntime fp32", "onnxruntime fp16"]
    for one in result.candidates:
        assert [figures.batch for figures in one.images] == [1, 4]
        assert [figures.batch for figures in one.texts] == [1, 4]
        for figures in (*one.images, *one.texts):
            assert 0 < figures.latency.fastest_ms <= figures.latency.p50_ms <= figures.latency.p99_ms
            assert len(figures.latency.rounds_ms) == 2
            assert figures.per_second == pytest.approx(figures.batch / figures.latency.p50_ms * 1e3)
        assert list(one.stages) == [stage for stage in STAGES if not stage.startswith("copy")]
        assert one.file_to_label is not None
        assert one.file_to_label.p50_ms > one.stages["encoder"].fastest_ms
        assert one.folder_per_second is not None
        assert one.folder_per_second > 0
        assert 0 < one.memory.imported <= one.memory.loaded <= one.memory.peak
        assert one.memory.gpu is None
        assert one.cold_start.first_text_s is not None
        assert one.texts_of is None
        assert set(one.files) > {"tokenizer.json"}
        assert "by name" in one.reason


def test_what_could_not_be_measured_is_told(result: BenchResult) -> None:
    assert [(one.backend, one.precision) for one in result.absent] == [("onnxruntime", "bf16")]


def test_the_record_says_how_and_where_and_gives_nothing_away(result: BenchResult, tiny: Path) -> None:
    text = json.dumps(to_dict(result), allow_nan=False)
    again = from_dict(BenchResult, json.loads(text))
    assert to_dict(again) == to_dict(result)
    assert (result.bundle, result.model) == ("tiny", "tiny-linear")
    assert str(tiny.parent) not in text
    assert os.uname().nodename not in {*re.findall(r"[\w.-]+", text)}
    assert {"batches", "rounds", "seconds", "threads", "pictures", "together", "how"} <= result.conditions.keys()
    assert {"processor", "libraries", "gpus", "load_before", "load_after"} <= result.environment.keys()
    assert result.conditions["together"] == [["onnxruntime fp32", "onnxruntime fp16"]]


def test_one_encoder_only(tiny: Path, tmp_path: Path) -> None:
    for tower in Tower:
        pack_bundle(PackRequest(tiny, tmp_path / tower.value, towers=(tower,), precisions=("fp32",)))
    (seeing,) = measure_bundle(quick(tmp_path / "image", rounds=1)).candidates
    assert seeing.images
    assert seeing.file_to_label
    assert seeing.texts == ()
    assert seeing.cold_start.first_text_s is None
    (reading,) = measure_bundle(quick(tmp_path / "text", rounds=1)).candidates
    assert reading.texts
    assert reading.images == ()
    assert (reading.stages, reading.file_to_label, reading.folder_per_second) == ({}, None, None)
    assert reading.cold_start.first_image_s is None
    assert reading.memory.loaded > 0
    with pytest.raises(InputError, match="no image encoder to measure"):
        measure_bundle(quick(tmp_path / "text", texts=False))


def test_one_that_is_killed_is_absent_and_the_rest_goes_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying(monkeypatch, "texts", "fp32")
    told: list[tuple[str, int, int]] = []
    result = measure_bundle(quick(tiny, precisions=("fp32", "fp16")), progress=lambda *step: told.append(step))
    assert [one.name for one in result.candidates] == ["onnxruntime fp16"]
    (gone,) = result.absent
    assert gone.precision == "fp32"
    assert "ended by signal 9 at texts" in gone.why
    assert told[-1] == ("done", told[-1][2], told[-1][2])


def test_all_that_die_are_an_error(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying(monkeypatch, "images", "fp32", "fp16")
    with pytest.raises(BackendError, match="nothing could be measured") as caught:
        measure_bundle(quick(tiny, precisions=("fp32", "fp16")))
    assert caught.value.message.count("signal 9") == 2


def test_the_same_text_graph_is_measured_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle whose image encoder alone has fp16; and when the one that measures dies, the next one does."""
    from clipdeploy.bundle import Bundle
    from clipdeploy.spec import Precision

    folder = tmp_path / "tiny"
    pack_bundle(PackRequest(tiny, folder, precisions=("fp32",)))
    opened = Bundle.open(folder)
    with_fp16 = Bundle.open(tiny).path("visual_fp16.onnx")
    opened.add("visual_fp16.onnx", with_fp16, kind="graph", origin="tests", tower=Tower.IMAGE, precision=Precision.FP16)
    both = quick(folder, precisions=("fp32", "fp16"))
    first, second = measure_bundle(both).candidates
    assert (first.texts_of, second.texts_of) == (None, "onnxruntime fp32")
    assert first.texts == second.texts
    dying(monkeypatch, "texts", "fp32")
    (left,) = measure_bundle(both).candidates
    assert (left.name, left.texts_of) == ("onnxruntime fp16", None)
    assert [figures.batch for figures in left.texts] == [1, 2]


def test_ctrl_c_ends_all_processes_and_writes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def interrupt(what: str, done: int, total: int) -> None:
        if "pictures" in what:
            seen.extend(child._process for child in live)
            os.kill(os.getpid(), signal.SIGINT)

    live: list[Any] = []
    from clipdeploy.benchmark import measure, turns

    def start(*given: Any) -> Any:
        children = turns.started(*given)
        live.extend(children.values())
        return children

    monkeypatch.setattr(measure, "started", start)
    output = tmp_path / "bench.json"
    with pytest.raises(KeyboardInterrupt):
        measure_bundle(quick(tiny, precisions=("fp32", "fp16"), output=output), progress=interrupt)
    assert len(seen) == 2
    assert all(process.poll() is not None for process in seen)
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_looked_at_before_anything_is_measured(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "COMMAND", ("/never/started",))
    with pytest.raises(OutputError, match="does not exist") as caught:
        measure_bundle(quick(tiny, output=tmp_path / "none" / "bench.json"))
    assert "mkdir" in (caught.value.fix or "")
    with pytest.raises(OutputError, match="is a folder"):
        measure_bundle(quick(tiny, html=tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batches": ()}, "batches"),
        ({"batches": (0,)}, "batches"),
        ({"batches": (2, 2)}, "twice"),
        ({"rounds": 0}, "rounds"),
        ({"seconds": 0.0}, "seconds"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments_that_make_no_sense(tiny: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        measure_bundle(quick(tiny, **changes))


def test_without_room_for_all_they_live_one_after_the_other(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipdeploy.benchmark.plan import plan
    from clipdeploy.bundle import Bundle

    candidates = plan(Bundle.open(tiny), quick(tiny, precisions=("all",))).candidates
    monkeypatch.setattr(job, "free_memory_bytes", lambda: 300_000_000)
    assert job._groups(candidates) == [["onnxruntime fp32"], ["onnxruntime fp16"]]
    monkeypatch.setattr(job, "free_memory_bytes", lambda: None)
    assert job._groups(candidates) == [["onnxruntime fp32", "onnxruntime fp16"]]


def test_the_environment_of_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from clipdeploy.machine import this_machine

    files = {
        "/proc/cpuinfo": "processor : 0\nmodel name\t: ARMv8 Processor\nFeatures\t: fp asimd asimddp\n",
        "/proc/meminfo": "MemTotal:        1000 kB\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "115200\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400\n",
    }
    board = replace(this_machine(), read=files.get, run=lambda _: None, processors=(0,), cpus=1)
    told = environment(board)
    assert told["processor"] == {
        "name": "ARMv8 Processor",
        "features": ["asimd", "asimddp"],
        "cores": 1,
        "processors": 1,
        "virtual": False,
        "memory_bytes": 1_024_000,
        "governor": "schedutil",
        "least_mhz": 115,
        "most_mhz": 1510,
    }
    assert told["gpus"] == []
    assert told["jetson"] is None
    load = load_1min()
    assert load is None or load >= 0
