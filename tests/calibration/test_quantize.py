"""A bundle gets typed graphs: what is written, what it answers, and that a failure leaves no trace."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import onnx

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.demo import TEMPLATE, class_names, write_images
from clipdeploy.errors import (
    BackendError,
    CalibrationError,
    ClipdeployError,
    InputError,
    OutputError,
)
from clipdeploy.pipeline import VerifyRequest, verify_bundle
from clipdeploy.quantize import QuantizeOutcome, QuantizeRequest, quantize_bundle
from clipdeploy.runtime.selftest.recorded import answers_name, report_name
from clipdeploy.spec import Precision, Target, Tower
from tests.hard_checkpoint import make_hard_bundle

PICTURES = 96
KINDS: tuple[tuple[str, Target | None], ...] = (
    *(("fp16", None), ("bf16", None), ("int8", "tensorrt"), ("fp8", "tensorrt"), ("int8", "cpu")),
)
LARGEST = {"fp16": 0.52, "bf16": 0.52, "int8": 0.32, "fp8": 0.3}
"""Share of the fp32 file: the demo's small tower has more outside of its blocks than a large one."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("seen"), count=PICTURES, split="seen", seed=3).folder


@pytest.fixture(scope="module")
def quantised(vit_bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, QuantizeOutcome]:
    """One bundle with the image tower in every kind."""
    folder = tmp_path_factory.mktemp("quantised") / "bundle"
    shutil.copytree(vit_bundle, folder)
    return {kind: quantize_bundle(request(folder, data, *kind)) for kind in KINDS}


def request(
    bundle: Path, data: Path | tuple[str, ...], precision: str, target: Target | None = None, **more: Any
) -> Any:
    given = (str(data),) if isinstance(data, Path) else data
    settings = {"labels": class_names(), "templates": (TEMPLATE,), **more}
    return QuantizeRequest(bundle, precision, given, target=target, **settings)


def folder_of(quantised: dict[Any, QuantizeOutcome]) -> Path:
    return next(iter(quantised.values())).bundle


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_inside_its_budget_and_told(quantised: dict[Any, QuantizeOutcome], kind: Any) -> None:
    precision, target = kind
    (result,) = quantised[kind].towers
    assert result.accuracy.holds(result.budget)
    assert (result.accuracy.samples, result.samples.held_out, result.samples.calibrated) == (96, 24, 72)
    assert result.size_after < LARGEST[precision] * result.size_before
    bundle = Bundle.open(folder_of(quantised))
    name = bundle.graph_name(Tower.IMAGE, Precision(precision), target)
    entry = bundle.manifest.files[name]
    assert (entry.precision, entry.target, entry.tower) == (Precision(precision), target, Tower.IMAGE)
    assert entry.origin == result.origin and result.origin.startswith(f"quantize: {precision}")
    onnx.checker.check_model(str(bundle.path(name)), full_check=True)
    record = json.loads(bundle.path(report_name(name)).read_text(encoding="utf-8"))
    assert record["samples"]["sha256"] == result.samples.sha256
    assert [row["layer"] for row in record["layers"]][:2] == ["conv1", "transformer.resblocks.0.attn.qkv"]
    assert sum(trial["chosen"] for trial in record["trials"]) == 1
    page = bundle.path(report_name(name).replace(".json", ".html")).read_text(encoding="utf-8")
    document = ElementTree.fromstring(page.split("\n", 1)[1])
    assert len(list(document.iter("circle"))) == len(result.trials) and "held out" in page


@pytest.mark.parametrize("kind", KINDS)
def test_verify_holds_it_against_fp32_and_against_onnx_runtime(
    quantised: dict[Any, QuantizeOutcome], kind: Any
) -> None:
    precision, target = kind
    report = verify_bundle(
        VerifyRequest(folder_of(quantised), precision=precision, target=target, backend="onnxruntime")
    )
    assert report.passed, report.summary
    assert report.precisions == {"image": precision, "text": "fp32"}
    image, text = report.stage("image_tower"), report.stage("text_tower")
    assert "cosine to ONNX Runtime" in [check.name for check in image.checks]
    assert "cosine to ONNX Runtime" not in [check.name for check in text.checks]
    assert next(check.gate for check in text.checks if check.name == "cosine") == 0.99999
    assert text.notes[0] == f"fp32, since there is no {precision} graph"
    notes = " ".join(image.notes)
    assert "held out" in notes
    assert ("emulated" in notes) == (precision == "bf16")
    assert ("made for TensorRT" in notes) == (target == "tensorrt")


def test_a_graph_is_never_passed_off_for_another_target(quantised: dict[Any, QuantizeOutcome], tmp_path: Path) -> None:
    folder = folder_of(quantised)
    with clipdeploy.load(folder, precision="int8", backend="onnxruntime") as clip:
        assert clip.graphs[Tower.IMAGE].name == "visual_int8_cpu.onnx"
        assert clip.precisions == {Tower.IMAGE: Precision.INT8, Tower.TEXT: Precision.FP32}
        assert "text encoder: fp32, since there is no int8 graph" in clip.backend.reason
    with pytest.raises(InputError, match="for tensorrt, none for cpu") as caught:
        clipdeploy.load(folder, precision="fp8", backend="onnxruntime")
    assert "--target tensorrt" in (caught.value.fix or "")
    with clipdeploy.load(folder, precision="fp8", target="tensorrt", backend="onnxruntime") as clip:
        assert "computed here as it is written" in clip.backend.reason
        assert clip.classify(np.zeros((64, 64, 3), np.uint8), ["a", "b"]).label
    with pytest.raises(BackendError, match="does not compute in bf16"):
        clipdeploy.load(folder, precision="bf16", backend="onnxruntime")
    only = tmp_path / "only"
    shutil.copytree(folder, only)
    bundle = Bundle.open(only)
    bundle.add_all([], without=["visual_int8_cpu.onnx"])
    with pytest.raises(InputError, match="int8 graph of the image tower for tensorrt, none for cpu") as caught:
        clipdeploy.load(only, precision="int8", backend="onnxruntime")
    assert f"clipdeploy quantize {only} --precision int8 --target cpu" in (caught.value.fix or "")


def test_the_engines_fault_is_told_from_the_quantisers(quantised: dict[Any, QuantizeOutcome], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(folder_of(quantised), folder)
    bundle, name = Bundle.open(folder), "visual_int8_cpu.onnx"
    with bundle.path(answers_name(name)).open("rb") as stream:
        stored = dict(np.load(stream))
    spoilt = tmp_path / "spoilt.onnx"
    model = onnx.load(bundle.path(name))
    weights = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8)
    weights.raw_data = bytes(len(weights.raw_data))
    onnx.save(model, spoilt)
    entry = bundle.manifest.files[name]
    told = {"tower": entry.tower, "precision": entry.precision, "target": entry.target}

    def cause(files: list[NewFile]) -> str:
        Bundle.open(folder).add_all(files)
        report = verify_bundle(VerifyRequest(folder, precision="int8", backend="onnxruntime"))
        assert report.first_drift == "image_tower"
        finding = report.stage("image_tower").finding
        assert finding is not None
        return finding.cause

    graph = NewFile(name, spoilt, "graph", "tests", **told)
    assert cause([graph]).startswith("the engine: ONNX Runtime answered otherwise")
    from clipdeploy.verify.golden import read_golden

    pixels = read_golden(bundle).pixels
    with clipdeploy.load(folder, precision="int8", backend="onnxruntime", self_test=False) as clip:
        np.savez(tmp_path / "answers.npz", **{**stored, "embeds": clip.encode_pixels(pixels)})
    answers = NewFile(answers_name(name), tmp_path / "answers.npz", "golden", "tests")
    assert cause([answers]).startswith("the quantiser: ONNX Runtime answers the same")


def test_the_hard_checkpoint_holds_the_default_budget_where_naive_int8_does_not(
    vit_bundle: Path, data: Path, tmp_path: Path
) -> None:
    with clipdeploy.load(vit_bundle, backend="onnxruntime") as clip:
        probe = clip.images(sorted(data.rglob("*.jpg"))[:32])
    make_hard_bundle(vit_bundle, tmp_path / "hard", probe=probe)
    for precision, target in (("int8", "tensorrt"), ("int8", "cpu"), ("fp8", "tensorrt"), ("fp16", None)):
        (result,) = quantize_bundle(request(tmp_path / "hard", data, precision, target)).towers
        assert result.accuracy.holds(result.budget)
        if precision == "int8":
            assert not result.trials[0].accuracy.holds(result.budget)
            assert result.trials[0].accuracy.cosine_mean < 0.95
            assert result.recipe.smooth
        if precision == "fp16":
            assert any("reaches" in why for _, why in result.float32)  # its residual stream overflows
    report = verify_bundle(VerifyRequest(tmp_path / "hard", precision="int8", backend="onnxruntime"))
    assert report.passed, report.summary


def test_both_encoders_and_blocks_given_back(vit_bundle: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(vit_bundle, folder)
    asked = request(
        folder,
        data,
        "int8",
        towers=tuple(Tower),
        texts=("a red ring", "a blue star"),
        cosine_mean=0.99997,
        cosine_min=0.9,
    )
    image, text = quantize_bundle(asked).towers
    assert image.recipe.kept and len(image.trials) > 4
    back = [row for row in image.layers if row.reason == "given back to hold the budget"]
    assert {row.block for row in back} == image.recipe.kept
    assert all(row.precision is Precision.FP16 and row.sensitivity is not None for row in back)
    assert image.trials[-1].size_bytes > image.trials[0].size_bytes
    assert text.samples.bank == "96 calibration pictures"
    assert text.samples.coverage["given"] == 2
    bundle = Bundle.open(folder)
    assert bundle.targets(Tower.TEXT, Precision.INT8) == ["tensorrt"]
    with clipdeploy.load(folder, precision="int8", target="tensorrt", backend="onnxruntime") as clip:
        assert set(clip.precisions.values()) == {Precision.INT8}


def test_a_budget_that_cannot_be_held(vit_bundle: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(vit_bundle, folder)
    before = contents(folder)
    with pytest.raises(CalibrationError, match="cannot hold its budget") as caught:
        quantize_bundle(request(folder, data, "int8", cosine_min=1.0))
    assert "percentile ranges, smoothed" in caught.value.message  # the frontier
    assert "--precision fp16" in (caught.value.fix or "") and "--min-cosine 0.9" in (caught.value.fix or "")
    assert contents(folder) == before


def test_overwriting(quantised: dict[Any, QuantizeOutcome], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(folder_of(quantised), folder)
    with pytest.raises(OutputError, match=r"holds visual_int8_cpu\.onnx already") as caught:
        quantize_bundle(request(folder, data, "int8", "cpu"))
    assert "--overwrite" in (caught.value.fix or "")
    outcome = quantize_bundle(request(folder, data, "int8", "cpu", method="max", overwrite=True))
    assert outcome.towers[0].recipe.method == "max"
    assert Bundle.open(folder).manifest.files["visual_int8_cpu.onnx"].origin == outcome.towers[0].origin


@pytest.mark.parametrize(
    ("given", "more", "error", "message"),
    [
        ((), {}, CalibrationError, "int8 takes calibration data"),
        (("{tmp}/gone",), {}, InputError, "does not exist"),
        (("{tmp}/empty",), {}, InputError, "holds no picture"),
        (("{tmp}/text.npz",), {}, CalibrationError, "no .npz file"),
        (("{tmp}/text.mp4",), {}, ClipdeployError, "text.mp4"),
        (("{tmp}/words",), {}, CalibrationError, "could not be read"),
        (("{tmp}/few",), {}, CalibrationError, "at least 16 are needed"),
        (("{tmp}/few",), {"texts": ("a",)}, InputError, "go with the text encoder"),
        (("{tmp}/few",), {"precision": "fp32"}, InputError, "fp32 is what a bundle begins with"),
        (("{tmp}/few",), {"precision": "fp16", "target": "cpu"}, InputError, "fp16 graphs run anywhere"),
        (("{tmp}/few",), {"precision": "fp8", "target": "cpu"}, InputError, "do not compute in fp8"),
        (("{tmp}/few",), {"samples": 3}, InputError, "16 pictures or more"),
    ],
)
def test_unfit_data_and_arguments_leave_the_bundle_alone(
    vit_bundle: Path, tmp_path: Path, given: tuple[str, ...], more: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    for i in range(20):
        (tmp_path / "words" / f"{i}.jpg").write_text(f"not a picture {i}")
    for name in ("text.npz", "text.mp4"):
        (tmp_path / name).write_text("not what its name says")
    write_images(tmp_path / "few", count=9)
    before = contents(vit_bundle)
    settings = {"precision": "int8", **more}
    with pytest.raises(error, match=message):
        quantize_bundle(request(vit_bundle, tuple(place.format(tmp=tmp_path) for place in given), **settings))
    assert contents(vit_bundle) == before


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def on_call(number: int, then: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose call of this number does something else."""
    calls: list[int] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return (then if len(calls) == number else function)(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    ("where", "number", "then", "error"),
    [
        ("clipdeploy.calibration.half.convert.save_graph", 1, full, OutputError),  # while the graph is made
        ("clipdeploy.bundle.shutil.copyfile", 3, full, OutputError),  # half of the files are copied
        ("clipdeploy.writing.Path.rename", 2, full, OutputError),  # half of them have taken their places
        ("clipdeploy.writing.Path.rename", 3, interrupted, KeyboardInterrupt),
    ],
)
def test_a_full_disk_or_ctrl_c_leaves_the_bundle_as_it_was(
    quantised: dict[Any, QuantizeOutcome],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    number: int,
    then: Callable[..., Any],
    error: type[BaseException],
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(folder_of(quantised), folder)
    before = contents(folder)
    module, name = where.rsplit(".", 1)
    owner = pytest.importorskip(module) if not module.endswith(("shutil", "Path")) else None
    target = owner or (shutil if module.endswith("shutil") else Path)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, on_call(number, then, getattr(target, name)))
        with pytest.raises(error):
            quantize_bundle(request(folder, data, "fp16", overwrite=True))
    assert contents(folder) == before
    assert Bundle.open(folder)
    quantize_bundle(request(folder, data, "fp16", overwrite=True))


def test_the_choice_of_pictures_is_seeded(quantised: dict[Any, QuantizeOutcome], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(folder_of(quantised), folder)
    results = [
        quantize_bundle(request(folder, data, "int8", "cpu", samples=32, seed=seed, overwrite=True)).towers[0]
        for seed in (1, 1, 2)
    ]
    assert results[0].samples.sha256 == results[1].samples.sha256 != results[2].samples.sha256
    assert results[0].size_after == results[1].size_after
    assert any("fewer than 500" in note for note in results[0].samples.notes)
