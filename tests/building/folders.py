"""What a bundle's folder holds, to see whether a failed build left a trace; and another graph for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.spec import Tower


def content(folder: Path) -> dict[str, str]:
    """Name -> hash of every file that is not hidden; the bundle must open."""
    Bundle.open(folder)
    names = (path for path in sorted(folder.rglob("*")) if path.is_file())
    shown = (path for path in names if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def hidden(folder: Path) -> list[str]:
    """Names in the folder that begin with a dot: what is left of work in progress."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def put_graph(folder: Path, nodes: Sequence[Any], constants: dict[str, Any], *, batch: int | str = "batch") -> Path:
    """Give a tiny bundle another image graph."""
    graph = helper.make_graph(
        list(nodes),
        "image",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, [batch, 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder.parent / "visual.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), str(path))
    return put_file(folder, path)


def put_file(folder: Path, path: Path) -> Path:
    entry = Bundle.open(folder).manifest.files["visual.onnx"]
    new = NewFile("visual.onnx", path, "graph", "tests", Tower.IMAGE, entry.precision, entry.opset)
    Bundle.open(folder).add_all([new])
    path.unlink()
    return folder
