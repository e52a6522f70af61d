"""The self-test at load: what answers as the checkpoint did serves, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BackendError, BundleCorruptError
from clipdeploy.runtime.backends import BackendChoice
from clipdeploy.runtime.chosen import Chosen, open_encoder, settle
from clipdeploy.runtime.remembered import FILE, Remembered
from clipdeploy.runtime.selftest import SelfTest, self_test
from clipdeploy.runtime.selftest.gates import EIGHT_BIT_GATES, FP32_GATES, gates_of, tower_gates
from clipdeploy.runtime.selftest.recorded import answers_name, inputs_sha256, read_recorded, report_name
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import read_golden
from tests.bundles import make_bundle
from tests.runtime.fake_backends import Engines, Nature, golden_bundle, install, see


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("selftest") / "tiny").folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture
def store(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path / FILE)


def chosen_of(bundle: Bundle, precision: Precision = Precision.FP32) -> Chosen:
    return settle(bundle, precision, BackendChoice("onnxruntime", "tests"))


def check(
    bundle: Bundle,
    store: Remembered,
    *,
    tower: Tower = Tower.IMAGE,
    precision: Precision = Precision.FP32,
    usual_batch: int = 1,
) -> SelfTest:
    chosen = chosen_of(bundle, precision)
    return self_test(chosen, tower, open_encoder(chosen, tower), store, usual_batch=usual_batch)


@pytest.mark.parametrize("tower", list(Tower))
def test_what_is_right_passes_alone_and_in_batches(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch, tower: Tower
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime"])
    passed = check(bundle, store, tower=tower)
    assert (passed.tested, passed.remembered) == (True, False)
    assert passed.cosine == pytest.approx(1.0, abs=1e-6)
    assert 2 <= passed.samples <= 16
    assert "least cosine 1.00000" in passed.told
    sizes = engines.batches()
    assert sizes[0] == 1
    assert set(sizes[1:]) == {4}
    assert len(sizes) <= 5


def test_it_is_run_once_for_each_circumstance(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = install(monkeypatch, bundle, ["onnxruntime"])

    def runs(**asked: object) -> int:
        before = len(engines.batches())
        check(bundle, Remembered(store.path), **asked)  # type: ignore[arg-type]
        return len(engines.batches()) - before

    assert runs() > 0
    assert runs() == 0
    assert check(bundle, store).remembered
    assert "self-tested earlier" in check(bundle, store).told
    assert runs(tower=Tower.TEXT) > 0
    assert runs(precision=Precision.FP16) > 0
    assert runs(usual_batch=8) > 0
    engines.versions["onnxruntime"] = "1.1"
    assert runs() > 0
    assert runs() == 0
    monkeypatch.setattr("clipdeploy.__version__", "99.0")
    assert runs() > 0
    monkeypatch.setattr("clipdeploy.runtime.fingerprint.processor", lambda probes: "another")
    assert runs() > 0


def test_what_fails_is_not_remembered(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = install(monkeypatch, bundle, [], onnxruntime_fp32=Nature(changes={Tower.IMAGE: lambda rows: -rows}))
    for _ in range(2):
        with pytest.raises(BackendError, match="cosine -1"):
            check(bundle, store)
    engines.natures.clear()
    assert not check(bundle, store).remembered


def turned(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    """Turn unit vectors, each by so much."""

    def turn(rows: np.ndarray) -> np.ndarray:
        aside = np.roll(rows, 1, axis=1) - (rows * np.roll(rows, 1, axis=1)).sum(axis=1, keepdims=True) * rows
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        angle = np.radians(degrees)
        return np.asarray(np.cos(angle) * rows + np.sin(angle) * aside, dtype=np.float32)

    return turn


def test_a_drift_names_tower_sample_numbers_gate_and_way_out(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, bundle, [], onnxruntime_fp32=Nature(changes={Tower.IMAGE: turned(1)}))
    with pytest.raises(BackendError) as caught:
        check(bundle, store)
    for told in (
        "image encoder in fp32 on onnxruntime:fake does not pass its self-test: it drifts",
        "golden samples; worst is",
        "cosine 0.99985 (at least 0.99999)",
        "(at most 0.0001)",
    ):
        assert told in caught.value.message
    assert any(picture.name in caught.value.message for picture in read_golden(bundle).pictures)
    assert f"clipdeploy verify {bundle.folder} --backend onnxruntime --precision fp32" in (caught.value.fix or "")
    assert "self_test=False" in (caught.value.fix or "")
    assert check(bundle, store, tower=Tower.TEXT).tested


def test_the_gates_are_those_of_the_precision(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = Nature(changes={Tower.IMAGE: turned(0.35)})  # cosine 0.99998
    install(monkeypatch, bundle, [], onnxruntime_fp16=little, onnxruntime_fp32=little)
    assert check(bundle, store, precision=Precision.FP16).cosine == pytest.approx(0.99998, abs=5e-6)
    with pytest.raises(BackendError, match=r"at least 0\.99999"):
        check(bundle, store)


def no_batch_axis(rows: np.ndarray) -> np.ndarray:
    """An engine whose graph was traced with one row and lost its batch axis: all answers are the first's."""
    return np.repeat(rows[:1], len(rows), axis=0)


def nan_in_the_last(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[-1, 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (nan_in_the_last, "not finite for 1 of 1 golden samples"),
        (lambda rows: rows[:, :-1], r"gives float32 \(1, 15\), expected float32 \(1, 16\)"),
        (lambda rows: rows.astype(np.float64), "gives float64"),
        (lambda rows: rows[:1], r"gives float32 \(1, 16\), expected float32 \(4, 16\)"),
        (lambda rows: np.asarray(rows * np.float32(1.01)), "length 1.01"),
        (no_batch_axis, "drifts from the checkpoint"),
        (lambda rows: np.roll(rows, 1, axis=0), "drifts from the checkpoint"),
    ],
)
def test_what_is_wrong_is_refused(
    bundle: Bundle,
    store: Remembered,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[np.ndarray], np.ndarray],
    told: str,
) -> None:
    install(monkeypatch, bundle, [], onnxruntime_fp32=Nature(changes={Tower.IMAGE: change}))
    with pytest.raises(BackendError, match=told):
        check(bundle, store)


@pytest.mark.parametrize(
    ("largest", "usual", "sizes"),
    [(1, 1, {1}), (3, 1, {1, 3}), (None, 8, {1, 8}), (8, 64, {1, 8}), (None, 99, {1, 32})],
)
def test_the_batches_are_what_the_encoder_takes_and_what_is_usual(
    bundle: Bundle,
    store: Remembered,
    monkeypatch: pytest.MonkeyPatch,
    largest: int | None,
    usual: int,
    sizes: set[int],
) -> None:
    engines = install(monkeypatch, bundle, [], onnxruntime_fp32=Nature(largest=largest))
    assert check(bundle, store, usual_batch=usual).samples > 4
    assert set(engines.batches()) == sizes


def test_a_slow_encoder_is_not_tested_for_long(
    bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipdeploy.runtime.selftest.check._LONG_ENOUGH_S", 0.01)
    engines = install(monkeypatch, bundle, [], onnxruntime_fp32=Nature(seconds=0.02))
    assert check(bundle, store).samples == 4
    assert engines.batches() == [1, 4]


def test_a_bundle_without_golden_samples_is_not_tested_and_says_so(tmp_path: Path, store: Remembered) -> None:
    pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")
    done = check(Bundle.open(make_bundle(tmp_path / "tiny")), store)
    assert not done.tested
    assert done.told == "not self-tested: the bundle holds no golden samples"


def test_golden_samples_that_are_altered(bundle: Bundle, store: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, bundle, [])
    file = bundle.folder / "golden/golden.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["image_embeds"][0] = -arrays["image_embeds"][0]
    np.savez_compressed(file, **arrays)
    with pytest.raises(BundleCorruptError, match="the embeddings"):
        check(bundle, store)


def quantised(bundle: Bundle, work: Path, *, cosine_min: float = 0.95) -> Bundle:
    """An int8 graph of the image encoder, with the record that quantising leaves."""
    name, pixels = "visual_int8_cpu.onnx", read_golden(bundle).pixels
    np.savez(work / "answers.npz", embeds=see(pixels), inputs_sha256=inputs_sha256(pixels))
    record = {
        "budget": {"cosine_mean": 0.995, "cosine_min": cosine_min, "top1": 0.99},
        "accuracy": {"cosine_mean": 0.999, "cosine_min": 0.99},
        "samples": {"measured": 8, "held_out": 8},
    }
    (work / "record.json").write_text(json.dumps(record), encoding="utf-8")
    made = {"tower": Tower.IMAGE, "precision": Precision.INT8, "opset": 19, "target": "cpu"}
    bundle.add_all(
        [
            NewFile(name, bundle.graph(Tower.IMAGE), "graph", "t", **made),  # type: ignore[arg-type]
            NewFile(report_name(name), work / "record.json", "report", "t"),
            NewFile(answers_name(name), work / "answers.npz", "golden", "t"),
        ]
    )
    return bundle


def test_a_quantised_graph_keeps_its_budget_and_onnx_runtimes_answers(
    bundle: Bundle, store: Remembered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised(bundle, tmp_path)
    engines = install(monkeypatch, bundle, [], onnxruntime_int8=Nature(changes={Tower.IMAGE: turned(4)}))
    assert check(bundle, store, precision=Precision.INT8).cosine == pytest.approx(0.99756, abs=1e-4)
    engines.natures["onnxruntime", Precision.INT8] = Nature(changes={Tower.IMAGE: turned(7)})
    store.path.unlink()
    with pytest.raises(BackendError, match=r"cosine to ONNX Runtime with the same graph 0\.99255 \(at least 0\.995\)"):
        check(bundle, Remembered(store.path), precision=Precision.INT8)


def test_the_gates_of_a_quantised_tower(bundle: Bundle, tmp_path: Path) -> None:
    chosen = chosen_of(quantised(bundle, tmp_path), Precision.INT8)
    recorded = read_recorded(bundle, chosen.graphs)
    assert set(recorded) == {Tower.IMAGE}
    assert tower_gates(Precision.INT8, recorded[Tower.IMAGE]).cosine == 0.95
    assert tower_gates(Precision.INT8, None) is gates_of(Precision.INT8) is EIGHT_BIT_GATES
    assert gates_of(Precision.FP32) is FP32_GATES


def test_engines_are_opened_through_the_seam_that_the_tests_replace(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: Engines = install(monkeypatch, bundle, [])
    open_encoder(chosen_of(bundle), Tower.TEXT).close()
    assert engines.opened == [("onnxruntime", Precision.FP32, Tower.TEXT)]
    assert engines.sessions[0].closed
