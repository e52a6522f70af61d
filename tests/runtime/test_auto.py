"""`auto`: the fastest that answers rightly, measured once and remembered; what is out of the running is named."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.cli.root import root
from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.runtime.auto import choose, decide, timing
from clipdeploy.runtime.auto.decide import _only_frames
from clipdeploy.runtime.backends import BackendChoice
from clipdeploy.runtime.chosen import Chosen, settle
from clipdeploy.runtime.remembered import FILE, Remembered
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.bundles import make_bundle
from tests.runtime.fake_backends import Nature, golden_bundle, install, see

FAST, SLOW, SLOWER = (Nature(seconds=seconds) for seconds in (0.001, 0.004, 0.007))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("auto") / "tiny").folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_UNTIL_THREADS_SLEEP_S", "_WARM_UP_S", "_MEASURE_S"):
        monkeypatch.setattr(timing, name, 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path / "cache" / FILE)


def auto(
    bundle: Bundle,
    store: Remembered,
    *,
    precision: Precision | None = Precision.FP32,
    backend: str = "auto",
    usual_batch: int = 1,
    threads: int | None = None,
) -> Chosen:
    return choose(bundle, precision=precision, backend=backend, usual_batch=usual_batch, threads=threads, store=store)


def pair(chosen: Chosen) -> tuple[str, Precision]:
    return chosen.backend.name, chosen.precision


def test_the_fastest_is_taken_and_the_reason_says_what_was_measured(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    chosen = auto(bundle, store)
    assert pair(chosen) == ("openvino", Precision.FP32)
    reason = chosen.backend.reason
    assert reason.startswith("chosen by auto of 2, measured on this machine at batch 1: openvino fp32 ")
    assert "ms; onnxruntime fp32 " in reason
    assert all(session.closed for session in engines.sessions)


def test_of_all_precisions_the_fastest_pair(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    natures = {"onnxruntime_fp32": SLOWER, "onnxruntime_fp16": SLOW, "openvino_fp32": SLOWER, "openvino_fp16": SLOW}
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], openvino_bf16=FAST, **natures)
    chosen = auto(bundle, store, precision=None)
    assert pair(chosen) == ("openvino", Precision.BF16)
    assert set(chosen.precisions.values()) == {Precision.BF16}
    assert "chosen by auto of 5" in chosen.backend.reason
    assert ("onnxruntime", Precision.BF16, Tower.IMAGE) not in engines.opened
    named = auto(bundle, store, precision=None, backend="onnxruntime")
    assert pair(named) == ("onnxruntime", Precision.FP16)
    assert "chosen by auto of 2" in named.backend.reason


def test_what_is_named_is_taken_unmeasured(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"])
    chosen = auto(bundle, store, precision=Precision.FP16, backend="openvino")
    assert pair(chosen) == ("openvino", Precision.FP16)
    assert chosen.backend.reason.startswith("asked for by name")
    assert not engines.opened


def test_a_single_candidate_is_not_measured(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime"])
    chosen = auto(bundle, store)
    assert chosen.backend.reason.startswith("chosen by auto: onnxruntime fp32")
    assert not engines.opened
    assert not store.path.exists()


def test_fast_but_wrong_is_out_and_named(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Nature(changes={Tower.IMAGE: lambda rows: -rows})
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=wrong)
    chosen = auto(bundle, store)
    assert pair(chosen) == ("onnxruntime", Precision.FP32)
    assert "at batch 1: onnxruntime fp32 " in chosen.backend.reason
    assert "openvino fp32: the image encoder in fp32 on openvino:fake does not pass" in chosen.backend.reason
    assert chosen.backend.reason.endswith("it drifts from the checkpoint on 10 of 10 golden samples")


@pytest.mark.parametrize("tower", list(Tower))
def test_nan_is_out_in_either_encoder(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch, tower: Tower
) -> None:
    broken = Nature(changes={tower: lambda rows: rows * np.float32("nan")})
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=broken)
    chosen = auto(bundle, store)
    assert chosen.backend.name == "onnxruntime"
    assert f"openvino fp32: the {tower.value} encoder in fp32 on openvino:fake does not pass" in chosen.backend.reason
    assert "not finite" in chosen.backend.reason


def test_what_does_not_load_is_out_and_named(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], openvino_fp32=Nature(loads=False))
    chosen = auto(bundle, store)
    assert chosen.backend.name == "onnxruntime"
    assert chosen.backend.reason.endswith("openvino fp32: openvino cannot load visual.onnx")
    assert all(session.closed for session in engines.sessions)


def test_what_fails_while_it_is_timed_is_out(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def tired(rows: np.ndarray) -> np.ndarray:
        runs.append(len(rows))
        if len(runs) > 6:
            raise BackendError("memory ran out")
        return rows

    install(monkeypatch, bundle, ["onnxruntime", "openvino"], openvino_fp32=Nature(changes={Tower.IMAGE: tired}))
    chosen = auto(bundle, store)
    assert chosen.backend.name == "onnxruntime"
    assert chosen.backend.reason.endswith("openvino fp32: memory ran out")


def test_nothing_is_left(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Nature(loads=False)
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=out, openvino_fp32=out)
    with pytest.raises(BackendError, match="nothing on this machine runs bundle") as caught:
        auto(bundle, store)
    assert "  onnxruntime fp32: onnxruntime cannot load visual.onnx" in caught.value.message
    assert "  openvino fp32: openvino cannot load visual.onnx" in caught.value.message
    assert store.path.exists() is False


def test_a_precision_that_the_bundle_lacks_is_the_bundles_own_error(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, bundle, ["onnxruntime", "openvino"])
    with pytest.raises(InputError, match="holds no int8 graph of the image tower") as caught:
        auto(bundle, store, precision=Precision.INT8)
    assert "clipdeploy quantize" in (caught.value.fix or "")


def test_no_engine_at_all(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.backends.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs onnxruntime") as caught:
        auto(bundle, store)
    assert "pip install 'clipdeploy[cpu]'" in (caught.value.fix or "")


def test_it_is_remembered_until_something_changes(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)

    def opens(what: Bundle = bundle, **asked: object) -> int:
        before = len(engines.opened)
        assert auto(what, Remembered(store.path), **asked).backend.name == "openvino"  # type: ignore[arg-type]
        return len(engines.opened) - before

    assert opens() == 3  # both image encoders, and the text encoder of the faster
    assert opens() == 0
    earlier = auto(bundle, store).backend.reason
    assert earlier.startswith("chosen by auto of 2, measured earlier on this machine at batch 1: openvino fp32 ")
    assert opens(Bundle.open(shutil.copytree(bundle.folder, tmp_path / "moved"))) == 0
    assert opens(usual_batch=8) > 0
    assert opens(usual_batch=8) == 0
    assert opens(threads=1) > 0
    engines.versions["onnxruntime"] = "1.1"
    assert opens() > 0
    monkeypatch.setattr("clipdeploy.runtime.fingerprint.processor", lambda probes: "another")
    assert opens() > 0
    other = golden_bundle(tmp_path / "other", [Precision.FP32, Precision.FP16, Precision.INT8])
    assert opens(other) > 0


def test_a_remembered_choice_that_no_longer_loads_is_measured_again(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    auto(bundle, store)
    for kind, known in [("backend", "gone"), ("precision", "int8"), ("count", None)]:
        entry = next(entry for entry in store._own.values() if entry["kind"] == decide.KIND)
        entry["value"] = {**entry["value"], kind: known}
        if kind == "count":
            del entry["value"][kind]
        chosen = auto(bundle, store)
        assert chosen.backend.name == "openvino"
        assert "measured on this machine" in chosen.backend.reason


def test_a_folder_that_cannot_be_written_is_no_hindrance(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Remembered(tmp_path / "file" / FILE)
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    assert auto(bundle, store).backend.name == "openvino"
    opened = len(engines.opened)
    assert auto(bundle, store).backend.name == "openvino"
    assert len(engines.opened) == opened


def test_who_comes_meanwhile_waits_and_measures_nothing(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two loads at once; a lock between processes holds between the threads of one just as well."""
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    chosen: list[str] = []
    threads = [
        threading.Thread(target=lambda: chosen.append(auto(bundle, Remembered(store.path)).backend.name))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert chosen == ["openvino"] * 3
    assert len(engines.opened) == 3


def test_where_memory_is_short_one_is_open_at_a_time(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    monkeypatch.setattr(decide, "free_memory_bytes", lambda: 1 << 20)
    real, most = engines.open_session, [0]

    def counted(*given: object, **options: object) -> object:
        session = real(*given, **options)  # type: ignore[arg-type]
        most[0] = max(most[0], sum(not other.closed for other in engines.sessions))
        return session

    monkeypatch.setattr("clipdeploy.runtime.chosen.open_session", counted)
    assert auto(bundle, store).backend.name == "openvino"
    assert most == [1]


def test_without_golden_samples_the_fastest_is_taken_untested(
    tmp_path: Path, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "tiny"))
    wrong = Nature(changes={Tower.IMAGE: lambda rows: -rows})
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=wrong)
    chosen = auto(bundle, store)
    assert chosen.backend.name == "openvino"
    assert chosen.backend.reason.endswith("not tested: the bundle holds no golden samples")


def test_the_usual_batch_is_what_is_timed(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    natures = {"onnxruntime_fp32": Nature(seconds=0.002, largest=2), "openvino_fp32": Nature(seconds=0.004)}
    engines = install(monkeypatch, bundle, ["onnxruntime", "openvino"], **natures)
    assert auto(bundle, store).backend.name == "onnxruntime"
    assert auto(bundle, store, usual_batch=6).backend.name == "openvino"  # one run of 6 against three of 2
    assert {max(session.batches) for session in engines.sessions if session.largest_batch == 2} == {2}


def test_candidates_are_timed_side_by_side_and_the_hopeless_only_once() -> None:
    order: list[str] = []

    def run(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    runs = {"a": lambda: run("a", 0.002), "b": lambda: run("b", 0.0025), "slow": lambda: run("slow", 0.02)}
    times = timing.interleaved(runs)
    assert sorted(times, key=times.__getitem__) == ["a", "b", "slow"]
    turns = [name for number, name in enumerate(order) if number == 0 or order[number - 1] != name]
    assert turns[:3] == ["a", "b", "slow"]
    assert turns.count("slow") == 1
    assert "".join(turns[3:]) in ("baab", "baba", "bab")


def test_real_engines_through_load(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for library in ("onnxruntime", "openvino"):
        pytest.importorskip(library)
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(1).standard_normal((5, 3, 32, 32)).astype(np.float32)
    with clipdeploy.load(bundle, precision="auto") as clip:
        assert clip.backend.reason.startswith("chosen by auto of ")
        assert "openvino fp32" in clip.backend.reason and "onnxruntime fp32" in clip.backend.reason
        assert (clip.encode_pixels(pixels) * see(pixels)).sum(axis=1) == pytest.approx(1, abs=1e-3)
    with clipdeploy.load(bundle, precision="auto") as again:
        assert again.backend.name == clip.backend.name
        assert "measured earlier" in again.backend.reason
    called = CliRunner().invoke(root, ["verify", str(bundle.folder), "--precision", "auto", "--json"])
    assert called.exit_code == 0, called.output
    assert json.loads(called.stdout)["backend"] == clip.backend.name


def test_engines_for_frames_alone_are_told_and_not_timed(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times would be of another thing; whoever wants them is told what to pass."""
    install(monkeypatch, bundle, ["onnxruntime", "openvino"], onnxruntime_fp32=SLOW, openvino_fp32=FAST)
    other = settle(bundle, Precision.FP32, BackendChoice("openvino", ""))
    monkeypatch.setattr(Chosen, "frames", property(lambda self: (FrameSpec(64, 48, "bgr"),)))
    unbuilt = {Tower.IMAGE: "clipdeploy build-engine b"}
    monkeypatch.setattr(Chosen, "unbuilt", property(lambda self: unbuilt if self.backend.engine == "openvino" else {}))
    told = _only_frames(other)
    assert told is not None and 'pass backend="openvino"' in told.message and "build-engine b" in str(told.fix)
    chosen = choose(bundle, precision=Precision.FP32, backend="auto", store=store)
    assert chosen.backend.name == "onnxruntime"
    why = 'openvino fp32: its engines take frames of 64x48:bgr only, which auto does not time: pass backend="openvino"'
    assert why in chosen.backend.reason
