"""Which graphs of a bundle run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.backends import choose_backend
from clipdeploy.runtime.choose import StandIns, choose_graphs
from clipdeploy.spec import Precision, Target, Tower
from tests.bundles import make_bundle


def bundle_with(folder: Path, *graphs: tuple[Tower, Precision, Target | None]) -> Bundle:
    """A tiny bundle with more graphs, all of which compute the same."""
    bundle = Bundle.open(make_bundle(folder))
    for tower, precision, target in graphs:
        name, source = tower.graph_name(precision, target), bundle.graph(tower)
        bundle.add_all([NewFile(name, source, "graph", "tests", tower=tower, precision=precision, target=target)])
    return bundle


def test_names() -> None:
    assert Tower.IMAGE.graph_name(Precision.INT8, "tensorrt") == "visual_int8.onnx"
    assert Tower.IMAGE.graph_name(Precision.INT8, "cpu") == "visual_int8_cpu.onnx"
    assert Tower.TEXT.graph_name(Precision.FP16) == "textual_fp16.onnx"


def test_an_encoder_that_lacks_the_precision_runs_in_fp32_and_that_is_told(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.FP16, None))
    with clipdeploy.load(bundle, precision="fp16") as clip:
        assert clip.precision is Precision.FP16
        assert clip.precisions == {Tower.IMAGE: Precision.FP16, Tower.TEXT: Precision.FP32}
        assert clip.backend.reason.endswith("text encoder: fp32, since there is no fp16 graph")


def test_the_engines_own_graph_is_taken(tmp_path: Path) -> None:
    int8 = [(Tower.IMAGE, Precision.INT8, target) for target in ("tensorrt", "cpu")]
    bundle = bundle_with(tmp_path / "b", *int8)  # type: ignore[arg-type]
    engine = choose_backend()
    chosen = choose_graphs(bundle, Precision.INT8, engine)[Tower.IMAGE]
    assert (chosen.name, chosen.target, chosen.as_written) == ("visual_int8_cpu.onnx", "cpu", False)
    other = choose_graphs(bundle, Precision.INT8, engine, target="tensorrt")[Tower.IMAGE]
    assert (other.name, other.target, other.as_written) == ("visual_int8.onnx", "tensorrt", True)
    with pytest.raises(InputError, match="for several targets") as caught:
        bundle.graph(Tower.IMAGE, Precision.INT8)
    assert caught.value.fix == "name the target: tensorrt or cpu"


def test_a_graph_whose_maker_does_not_tell_its_target_is_taken(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.INT8, None))
    assert choose_graphs(bundle, Precision.INT8, choose_backend())[Tower.IMAGE].name == "visual_int8.onnx"


def test_refusals(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.INT8, "tensorrt"), (Tower.IMAGE, Precision.BF16, None))
    with pytest.raises(InputError, match="for tensorrt, none for cpu"):
        clipdeploy.load(bundle, precision="int8")
    with pytest.raises(BackendError, match="does not compute in bf16"):
        clipdeploy.load(bundle, precision="bf16")
    with pytest.raises(InputError, match="holds no fp8 graph of the image tower; it holds: fp32, bf16, int8") as caught:
        clipdeploy.load(bundle, precision="fp8")
    assert "clipdeploy quantize" in (caught.value.fix or "")
    with pytest.raises(InputError, match="unknown target"):
        clipdeploy.load(bundle, target="gpu")  # type: ignore[arg-type]


def test_a_stand_in_is_loaded_and_told(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.BF16, None))
    instead = StandIns({Tower.IMAGE: bundle.graph(Tower.IMAGE)}, "emulated")
    with clipdeploy.load(bundle, precision="bf16", stand_ins=instead) as clip:
        assert clip.graph(Tower.IMAGE).note == "emulated"
        assert "image encoder: emulated" in clip.backend.reason
