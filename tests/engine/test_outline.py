from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from onnx import TensorProto, helper

from clipdeploy.engine.builder.outline import NodeOutline, read_outline
from clipdeploy.errors import EngineError
from tests.bundles import text_weights, write_text_graph
from tests.engine.graphs import matrix, write_beside, write_graph


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="node_cast", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "w"], ["a"], name="node_product"),
        helper.make_node("Wonder", ["a"], ["y"], domain="acme.ai"),
    ]
    path = write_graph(tmp_path / "g.onnx", nodes, stored=[matrix(dtype=np.float16)], domains=("acme.ai",))
    outline = read_outline(path)
    assert outline.opset == 19
    assert outline.nodes[1:] == (NodeOutline("node_product", "MatMul", ""), NodeOutline("", "Wonder", "acme.ai"))
    assert [str(node) for node in outline.nodes[1:]] == [
        "node 'node_product' (MatMul)",
        "a node without a name (Wonder of acme.ai)",
    ]
    assert [(i.name, i.dtype, i.shape) for i in outline.inputs] == [("x", "float", ("batch", 8))]
    assert outline.dtypes == {"FLOAT16"}
    assert outline.bytes_on_disk == path.stat().st_size
    assert not outline.fp8


@pytest.mark.parametrize("any_length", [True, False])
def test_texts_of_any_length_have_the_longest(tmp_path: Path, any_length: bool) -> None:
    graph = write_text_graph(tmp_path / "textual.onnx", text_weights(100), any_length=any_length)
    assert [i.shape for i in read_outline(graph).inputs] == [("batch", 77)]


def test_fp8_is_seen(tmp_path: Path) -> None:
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    assert read_outline(write_graph(tmp_path / "g.onnx", stored=[matrix(), zero])).fp8


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write_graph(tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(1, len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(EngineError, match=r"cut\.onnx is (cut off, or )?no ONNX file"):
            read_outline(cut)


@pytest.mark.parametrize("content", [b"hello world" * 100, b"\xff" * 100, b"\x08\x0a"])
def test_what_is_no_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junk.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="no ONNX file"):
        read_outline(tmp_path / "junk.onnx")


def test_an_empty_or_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(EngineError, match=r"empty\.onnx is empty"):
        read_outline(tmp_path / "empty.onnx")
    with pytest.raises(EngineError, match="No such file"):
        read_outline(tmp_path / "none.onnx")


def test_weights_beside(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    weights = write_beside(path)
    assert read_outline(path).bytes_on_disk == path.stat().st_size + weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"g.onnx.data is cut off: it has 255 bytes, g.onnx reads 256"):
        read_outline(path)
    weights.unlink()
    with pytest.raises(EngineError, match=r"weights of g.onnx are missing: .*g.onnx.data is not there"):
        read_outline(path)
