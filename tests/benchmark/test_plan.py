"""Which pairs are measured, and what becomes of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clipdeploy.benchmark import plan as room
from clipdeploy.benchmark.plan import plan
from clipdeploy.benchmark.records import BenchRequest
from clipdeploy.benchmark.sizes import loaded_files
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.spec import BakedSpec, Tower


@pytest.fixture
def bundle(tiny: Path) -> Bundle:
    return Bundle.open(tiny)


def asked(backends: tuple[str, ...] = ("onnxruntime",), precisions: tuple[str, ...] = ("all",)) -> BenchRequest:
    return BenchRequest(Path("tiny"), backends=backends, precisions=precisions)


def test_all_precisions_of_a_backend_and_why_some_are_out(bundle: Bundle) -> None:
    planned = plan(bundle, asked())
    assert list(planned.candidates) == ["onnxruntime fp32", "onnxruntime fp16"]
    assert [(one.backend, one.precision) for one in planned.absent] == [("onnxruntime", "bf16")]
    assert "does not compute in bf16" in planned.absent[0].why


def test_all_backends_are_those_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "installed_backends", lambda: ("onnxruntime",))
    assert list(plan(bundle, asked(("all",), ("fp32",))).candidates) == ["onnxruntime fp32"]


def test_a_backend_named_twice_counts_once(bundle: Bundle) -> None:
    named = asked(("onnxruntime:cpu", "onnxruntime", "onnxruntime"), ("fp32", "fp32"))
    assert list(plan(bundle, named).candidates) == ["onnxruntime fp32"]


def test_a_pair_that_is_named_must_run(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="does not compute in bf16"):
        plan(bundle, asked(("onnxruntime",), ("fp32", "bf16")))
    with pytest.raises(InputError, match="int8"):
        plan(bundle, asked(("onnxruntime",), ("int8",)))


def test_a_name_is_named_although_all_stands_beside_it(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="does not compute in bf16"):
        plan(bundle, asked(("onnxruntime",), ("bf16", "all")))


def test_nothing_runs(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "installed_backends", lambda: ("onnxruntime",))
    with pytest.raises(BackendError, match=r"bf16"):
        plan(bundle, asked(("all",), ("bf16",)))
    with pytest.raises(BackendError, match="nothing that is asked for") as caught:
        plan(bundle, asked(("all",), ("bf16", "int8")))
    assert "onnxruntime bf16" in caught.value.message.replace(":", "")
    assert "int8" in caught.value.message


def test_names_that_are_none(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="unknown backend"):
        plan(bundle, asked(("onnxrunime",)))
    with pytest.raises(InputError, match="auto is no backend"):
        plan(bundle, asked(("auto",)))
    with pytest.raises(InputError, match="fp33"):
        plan(bundle, asked(precisions=("fp33",)))


def test_a_backend_that_is_not_installed_is_told_at_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.backends.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError):
        plan(bundle, asked(("openvino",)))


def test_a_baked_bundle_is_refused(bundle: Bundle) -> None:
    baked = Bundle(bundle.folder, replace(bundle.manifest, baked=BakedSpec(("dog", "cat"), ("{}",), None, "space")))
    with pytest.raises(InputError, match="is baked") as caught:
        plan(baked, asked())
    assert "baked from" in (caught.value.fix or "")


def test_the_files_that_a_candidate_loads(bundle: Bundle) -> None:
    chosen = plan(bundle, asked(precisions=("fp16",))).candidates["onnxruntime fp16"]
    files = loaded_files(chosen)
    assert list(files) == ["textual_fp16.onnx", "tokenizer.json", "visual_fp16.onnx"]
    assert all((bundle.folder / name).stat().st_size == size for name, size in files.items())
    del chosen.graphs[Tower.TEXT]
    assert list(loaded_files(chosen)) == ["visual_fp16.onnx"]
