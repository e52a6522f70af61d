"""Which graphs of a bundle run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.backends import BACKENDS, BackendChoice, choose_backend, parse_backend
from clipdeploy.runtime.choose import StandIns, choose_graphs, computes, parse_precision, told
from clipdeploy.spec import Precision, Target, Tower
from tests.bundles import make_bundle


def bundle_with(folder: Path, *graphs: tuple[Tower, Precision, Target | None]) -> Bundle:
    """A tiny bundle with more graphs, all of which compute the same."""
    bundle = Bundle.open(make_bundle(folder))
    for tower, precision, target in graphs:
        name, source = tower.graph_name(precision, target), bundle.graph(tower)
        bundle.add_all([NewFile(name, source, "graph", "tests", tower=tower, precision=precision, target=target)])
    return bundle


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever processor the tests run on, it computes in bf16."""
    monkeypatch.setattr("clipdeploy.runtime.choose._require_bf16", lambda backend: None)


def test_names() -> None:
    assert Tower.IMAGE.graph_name(Precision.INT8, "tensorrt") == "visual_int8.onnx"
    assert Tower.IMAGE.graph_name(Precision.INT8, "cpu") == "visual_int8_cpu.onnx"
    assert Tower.TEXT.graph_name(Precision.FP16) == "textual_fp16.onnx"


def test_an_encoder_that_lacks_the_precision_runs_in_fp32_and_that_is_told(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.FP16, None))
    with clipdeploy.load(bundle, precision="fp16", backend="onnxruntime") as clip:
        assert clip.precision is Precision.FP16
        assert clip.precisions == {Tower.IMAGE: Precision.FP16, Tower.TEXT: Precision.FP32}
        assert clip.backend.reason.endswith("text encoder: fp32, since there is no fp16 graph")


def test_beside_8_bits_that_were_chosen_freely_the_rest_is_rounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.INT8, "tensorrt"), (Tower.IMAGE, Precision.FP16, None))

    def text(backend: str, precision: Precision = Precision.INT8, *, freely: bool = True) -> Precision:
        return choose_graphs(bundle, precision, BackendChoice(backend, ""), freely=freely)[Tower.TEXT].precision

    free = choose_graphs(bundle, Precision.INT8, BackendChoice("openvino", ""), freely=True)
    assert {tower: graph.precision for tower, graph in free.items()} == {
        Tower.IMAGE: Precision.INT8,
        Tower.TEXT: Precision.BF16,
    }
    assert free[Tower.TEXT].name == "textual.onnx"
    assert free[Tower.TEXT].note == "bf16, since there is no int8 graph"
    assert text("openvino", freely=False) is Precision.FP32
    assert text("openvino", Precision.FP16) is Precision.FP32
    assert text("tensorrt") is Precision.FP32

    def has_none(backend: BackendChoice) -> None:
        raise BackendError("this processor does not compute in bf16")

    monkeypatch.setattr("clipdeploy.runtime.choose._require_bf16", has_none)
    assert text("openvino") is Precision.FP32


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
        clipdeploy.load(bundle, precision="int8", backend="onnxruntime")
    with pytest.raises(BackendError, match="does not compute in bf16"):
        clipdeploy.load(bundle, precision="bf16", backend="onnxruntime")
    with pytest.raises(InputError, match="holds no fp8 graph of the image tower; it holds: fp32, bf16, int8") as caught:
        clipdeploy.load(bundle, precision="fp8", backend="onnxruntime")
    assert "clipdeploy quantize" in (caught.value.fix or "")
    with pytest.raises(InputError, match="unknown target"):
        clipdeploy.load(bundle, target="gpu")  # type: ignore[arg-type]


def test_a_stand_in_is_loaded_and_told(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", (Tower.IMAGE, Precision.BF16, None))
    instead = StandIns({Tower.IMAGE: bundle.graph(Tower.IMAGE)}, "emulated")
    with clipdeploy.load(bundle, precision="bf16", backend="onnxruntime", stand_ins=instead) as clip:
        assert clip.graph(Tower.IMAGE).note == "emulated"
        assert "image encoder: emulated" in clip.backend.reason


ALL = [
    (Tower.IMAGE, Precision.FP16, None),
    (Tower.IMAGE, Precision.BF16, None),
    (Tower.IMAGE, Precision.INT8, "tensorrt"),
    (Tower.IMAGE, Precision.INT8, "cpu"),
    (Tower.IMAGE, Precision.FP8, "tensorrt"),
]
INT8, CPU_INT8, FP8 = "visual_int8.onnx", "visual_int8_cpu.onnx", "visual_fp8.onnx"
FP16, BF16, FP32 = "visual_fp16.onnx", "visual_bf16.onnx", "visual.onnx"
REFUSED = None


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with all graphs of the image encoder."""
    return bundle_with(tmp_path_factory.mktemp("choose") / "b", *ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "fp16", "bf16", "int8", "fp8"),
    [
        ("onnxruntime", FP16, REFUSED, CPU_INT8, "only for tensorrt"),
        ("onnxruntime:cuda", FP16, BF16, REFUSED, REFUSED),
        ("onnxruntime:tensorrt", FP16, BF16, INT8, FP8),
        ("onnxruntime:tensorrt-rtx", FP16, BF16, INT8, FP8),
        ("openvino", FP16, FP32, INT8, REFUSED),
        ("openvino:gpu", FP16, REFUSED, INT8, REFUSED),
        ("tensorrt", FP16, BF16, INT8, FP8),
        ("tensorrt-rtx", FP16, BF16, INT8, FP8),
    ],
)
def test_which_graph_each_backend_takes(
    every: Bundle, backend: str, fp16: str | None, bf16: str | None, int8: str | None, fp8: str | None
) -> None:
    expected = {Precision.FP32: FP32, Precision.FP16: fp16, Precision.BF16: bf16, Precision.INT8: int8}
    choice = BackendChoice(backend, "asked for")
    for precision, name in {**expected, Precision.FP8: fp8}.items():
        assert computes(backend, precision) is (name is not REFUSED)
        if name is REFUSED:
            with pytest.raises(BackendError, match=r"OpenVINO|ONNX Runtime") as caught:
                choose_graphs(every, precision, choice)
            assert caught.value.fix
        elif name == "only for tensorrt":
            with pytest.raises(InputError, match="for tensorrt, none for cpu"):
                choose_graphs(every, precision, choice)
        else:
            graphs = choose_graphs(every, precision, choice)
            assert (graphs[Tower.IMAGE].name, graphs[Tower.IMAGE].precision) == (name, precision)
            assert not graphs[Tower.IMAGE].as_written
            assert graphs[Tower.TEXT].name == "textual.onnx"


def test_openvino_rounds_the_fp32_graphs_to_bf16_itself(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b")
    graphs = choose_graphs(bundle, Precision.BF16, BackendChoice("openvino", ""))
    assert {graph.precision for graph in graphs.values()} == {Precision.BF16}
    assert [graph.path for graph in graphs.values()] == [bundle.graph(tower) for tower in graphs]
    with pytest.raises(InputError, match="no bf16 graph"):
        choose_graphs(bundle, Precision.BF16, BackendChoice("onnxruntime:cuda", ""))


def test_graphs_for_processors_are_onnx_runtimes_alone(every: Bundle) -> None:
    for backend in BACKENDS:
        if backend not in ("auto", "onnxruntime", "onnxruntime:cuda"):
            with pytest.raises(InputError, match=f"{backend} runs no 8-bit graphs of target cpu"):
                choose_graphs(every, Precision.INT8, BackendChoice(backend, ""), target="cpu")


def test_8_bits_on_cuda_say_where_they_run(every: Bundle) -> None:
    with pytest.raises(BackendError, match="does not compute in 8 bits") as caught:
        choose_graphs(every, Precision.INT8, BackendChoice("onnxruntime:cuda", ""))
    for other in ("onnxruntime", "onnxruntime:tensorrt", "openvino", "tensorrt"):
        assert f'"{other}"' in (caught.value.fix or "")


def test_what_both_encoders_have_to_say_is_said_once(tmp_path: Path) -> None:
    towers = [(tower, Precision.FP16, None) for tower in Tower]
    graphs = choose_graphs(bundle_with(tmp_path / "b", *towers), Precision.FP16, BackendChoice("openvino", ""))
    said = told(BackendChoice("openvino", "asked for"), graphs).reason
    assert said == "asked for; both encoders: 16-bit weights, computed in float32"


def test_names_of_backends() -> None:
    assert [parse_backend(name) for name in BACKENDS] == list(BACKENDS)
    assert parse_backend("onnxruntime:cpu") == "onnxruntime"
    assert parse_backend("openvino:cpu") == "openvino"
    for wrong, near in [
        ("OpenVINO", "openvino"),
        ("tensorrt_rtx", "tensorrt-rtx"),
        ("onnxruntime-cuda", "onnxruntime:cuda"),
    ]:
        with pytest.raises(
            InputError, match=f"unknown backend '{wrong}'; expected one of auto, onnxruntime,"
        ) as caught:
            parse_backend(wrong)
        assert caught.value.fix == f'pass backend="{near}"'
    choice = BackendChoice("onnxruntime:cuda", "")
    assert (choice.engine, choice.device) == ("onnxruntime", "gpu")


def test_names_of_precisions() -> None:
    assert parse_precision("auto") is None
    assert parse_precision("int8") is Precision.INT8
    with pytest.raises(InputError, match="fp32, fp16, bf16, int8, fp8, auto"):
        parse_precision("int4")
