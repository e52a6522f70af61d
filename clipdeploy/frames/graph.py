"""The graph that makes pixels of raw frames: resize, crop and normalisation as constant matrix products.

As Pillow, it resizes one axis after the other and rounds to 8 bits after each; see `coefficients` for why the result is
Pillow's bit for bit. The axis that a product runs over lies in front of all others, so that a block's window is one
piece of memory and all else is one long row.
"""

from __future__ import annotations

import numpy as np
import onnx
from PIL import Image

from clipdeploy.frames.coefficients import Blocks, blocks
from clipdeploy.frames.nodes import Nodes, Value
from clipdeploy.frames.planes import Nv12, Packed, Planes
from clipdeploy.runtime.resize import geometry, height_first
from clipdeploy.spec import FrameSpec, PixelSpec, TensorSpec

PREFIX = "frame_"
"""Of every name inside the graph."""
_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def frame_graph(
    frame: FrameSpec, pixels: PixelSpec, output: TensorSpec, *, opset: int, ir_version: int
) -> onnx.ModelProto:
    """Frames (batch, ...) uint8 -> pixels (batch, 3, height, width) float32, RGB, normalised.

    Args:
        frame: what it takes.
        pixels: what the image tower wants.
        output: the input of the image tower.
        opset: ONNX operator set; 13 or later.
        ir_version: of the ONNX file format.
    """
    place = geometry((frame.width, frame.height), pixels)
    resample = _RESAMPLE[pixels.interpolation]
    left, top, right, bottom = place.crop
    even = frame.color == "nv12"
    columns = blocks(frame.width, place.size[0], left, right, resample, even=even)
    rows = blocks(frame.height, place.size[1], top, bottom, resample, even=even)
    nodes = Nodes(PREFIX)
    by_rows = height_first((frame.width, frame.height), place.size)
    planes: Planes = (Nv12 if even else Packed)(nodes, frame, columns.used, rows.used, by_rows=by_rows)
    resize = _height_first if by_rows else _width_first
    done = resize(nodes, planes, columns, rows)
    if frame.color == "bgr":
        done = nodes("Gather", done, nodes.integers(2, 1, 0), axis=1)
    _normalised(nodes, done, pixels)
    return nodes.model(frame.tensor, output, opset, ir_version)


def _width_first(nodes: Nodes, planes: Planes, columns: Blocks, rows: Blocks) -> Value:
    """(batch, 3, height, width) float32, whole numbers in 0..255, as Pillow resizes most pictures."""
    done = _first_pass(nodes, planes, columns)
    done = nodes.reshape(done, columns.outputs * 3, rows.used[1] - rows.used[0])
    done = nodes.transpose(done, 2, 1)
    done = _second_pass(nodes, done, rows, columns.outputs * 3)
    return nodes.transpose(nodes.reshape(done, rows.outputs, columns.outputs, 3), 3, 1, 2)


def _height_first(nodes: Nodes, planes: Planes, columns: Blocks, rows: Blocks) -> Value:
    """Likewise, as Pillow resizes those that lose much of their height."""
    width = columns.used[1] - columns.used[0]
    done = _first_pass(nodes, planes, rows)
    if planes.interleaved:
        done = nodes.transpose(nodes.reshape(done, rows.outputs, width, 3), 2, 3, 1)
    else:
        done = nodes.transpose(nodes.reshape(done, rows.outputs, 3, width), 3, 2, 1)
    done = _second_pass(nodes, nodes.reshape(done, width, 3 * rows.outputs), columns, 3 * rows.outputs)
    return nodes.transpose(nodes.reshape(done, columns.outputs, 3, rows.outputs), 2, 3, 1)


def _first_pass(nodes: Nodes, planes: Planes, axis: Blocks) -> Value:
    """Raw pixels to (batch, outputs, row) float32, whole numbers in 0..255; each block while it is in cache."""
    made = [
        nodes("MatMul", weights, planes.window(start, start + axis.window))
        for start, weights in zip(axis.starts, axis.weights, strict=True)
    ]
    together = nodes("Concat", *made, axis=1) if len(made) > 1 else made[0]
    return _outputs(nodes, nodes.reshape(together, axis.count, 2 * axis.size, planes.row), axis, planes.row)


def _second_pass(nodes: Nodes, value: Value, axis: Blocks, row: int) -> Value:
    """(batch, used, row) float32 to (batch, outputs, row), whole numbers in 0..255; all blocks at once."""
    windows = (np.array(axis.starts)[:, None] + np.arange(axis.window)).reshape(-1)
    taken = nodes("Gather", value, windows.astype(np.int64), axis=1) if axis.count > 1 else value
    taken = nodes.reshape(taken, axis.count, axis.window, row)
    return _outputs(nodes, nodes("MatMul", axis.weights, taken), axis, row)


def _outputs(nodes: Nodes, sums: Value, axis: Blocks, row: int) -> Value:
    """Coarse and fine sums (batch, blocks, 2 * size, row) to what Pillow makes of them: (batch, outputs, row).

    floor(coarse + fine + 0.5) without an addition that rounds: of the coarse sum only the part behind the point is
    added to the fine one.
    """
    coarse = nodes.slice(sums, 2, 0, axis.size, 2 * axis.size)
    fine = nodes.slice(sums, 2, axis.size, 2 * axis.size, 2 * axis.size)
    raised = nodes("Add", coarse, _number(0.5))
    whole = nodes("Floor", raised)
    rest = nodes("Add", nodes("Sub", raised, whole), fine)
    value = nodes("Clip", nodes("Add", whole, nodes("Floor", rest)), _number(0), _number(255))
    total = axis.count * axis.size
    return nodes.slice(nodes.reshape(value, total, row), 1, 0, axis.outputs, total)


def _normalised(nodes: Nodes, value: Value, pixels: PixelSpec) -> Value:
    """`(value / 255 - mean) / std`, in the order of the runtime's own table."""
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (pixels.mean, pixels.std))
    return nodes("Div", nodes("Sub", nodes("Div", value, _number(255)), mean), std)


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)
