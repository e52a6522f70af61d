"""A graph frozen at a batch of one, freed: its reshapes are told to carry the batch, its constants to repeat.

Exporters that are not told of a dynamic batch write it into the shapes they reshape to. After the constants are folded,
those shapes stand there plain, and inference at a batch of 1 and of 3 tells which axis of a tensor is the batch.
Whether the freed graph is right is measured by whoever asked for it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.graphs import import_onnx, save_graph
from clipdeploy.importing.looks import skeleton
from clipdeploy.runtime.ort import import_onnxruntime

Shapes: TypeAlias = "dict[str, tuple[int, ...]]"

_PROBE = 3
_FUSIONS = ["MatMulAddFusion", "ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "ReshapeFusion"]
"""Rewritings of ONNX Runtime that are none of folding, and that would hide where the batch goes."""


def free_batch(model: Any, label: str) -> Any:
    """A model whose one input's first axis is `batch`; the one given, at batch 1, may change too.

    Raises:
        CheckpointError: the batch is frozen in a way that is not known.
    """
    folded = _folded(model, label)
    (port,) = folded.graph.input
    frozen = _shapes(folded, 1)
    carrier = _Carrier(folded, port.name)
    while _free_next(folded, frozen, _shapes(folded, _PROBE), carrier):
        pass
    for value in (port, *folded.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del folded.graph.value_info[:]
    return folded


def frozen_error(label: str) -> CheckpointError:
    """What to say of a graph that cannot be freed."""
    return CheckpointError(
        f"{label} was exported for a batch of one, in a way that cannot be undone",
        fix='export it again with a dynamic batch: dynamic_axes={"INPUT": {0: "batch"}}',
    )


class _Carrier:
    """The length of the batch at run time, as a tensor that constants are expanded by."""

    def __init__(self, model: Any, port: str) -> None:
        self._model, self._port, self._added = model, port, list[str]()

    def constant(self, values: list[int], name: str) -> str:
        onnx = import_onnx()
        full = f"clipdeploy_batch_{name}"
        if all(tensor.name != full for tensor in self._model.graph.initializer):
            array = np.asarray(values, np.int64)
            self._model.graph.initializer.append(onnx.numpy_helper.from_array(array, full))
        return full

    def length(self) -> str:
        """(1,) int64: the batch."""
        if not self._added:
            ends = [self.constant([0], "zero"), self.constant([1], "one")]
            self._add("Shape", [self._port], "clipdeploy_batch_shape")
            self._add("Slice", ["clipdeploy_batch_shape", *ends], "clipdeploy_batch")
        return "clipdeploy_batch"

    def expanded(self, name: str, axis: int, rank: int) -> str:
        """`name`, repeated along `axis` for each sample."""
        batch, output = self.length(), f"{name}_batched"
        parts = [self.constant([1] * axis, f"head{axis}")] if axis else []
        parts += [batch] + (
            [self.constant([1] * (rank - axis - 1), f"tail{rank - axis - 1}")] if rank > axis + 1 else []
        )
        self._add("Concat", parts, f"{output}_shape", axis=0)
        self._add("Expand", [name, f"{output}_shape"], output)
        return output

    def counted(self, name: str, rank: int) -> str:
        """0, 1, 2, ... for each sample along the first axis, where `name` was the 0 of the only one."""
        batch, output = self.length(), f"{name}_counted"
        start, step = self.constant([0], "zero"), self.constant([1], "one")
        scalars = [f"{output}_{part}" for part in ("start", "limit", "delta")]
        for value, scalar in zip((start, batch, step), scalars, strict=True):
            self._add("Reshape", [value, self.constant([], "scalar")], scalar)
        self._add("Range", scalars, f"{output}_flat")
        self._add("Reshape", [f"{output}_flat", self.constant([-1] + [1] * (rank - 1), f"rank{rank}")], output)
        return output

    def offset(self, name: str, rows: int) -> str:
        """The indices (batch,) of a table in which each sample has `rows` rows of its own, after the first's."""
        sample, output = self.counted(name, 1), f"{name}_offset"
        graph, make = self._model.graph, import_onnx().helper.make_node
        place = next(i for i, node in enumerate(graph.node) if name in node.output) + 1
        rows_name = self.constant([rows], f"rows{rows}")
        graph.node.insert(place, make("Mul", [sample, rows_name], [f"{output}_rows"]))
        graph.node.insert(place + 1, make("Add", [name, f"{output}_rows"], [output]))
        return output

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Put a node in front, behind those put there before; what it reads are the input, constants and those."""
        if output not in self._added:
            node = import_onnx().helper.make_node(op, inputs, [output], name=output, **attributes)
            self._model.graph.node.insert(len(self._added), node)
            self._added.append(output)


def _folded(model: Any, label: str) -> Any:
    """The model with all that its frozen shapes make constant computed, by ONNX Runtime."""
    ort, onnx = import_onnxruntime(), import_onnx()
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "frozen.onnx", Path(scratch) / "folded.onnx"
        save_graph(model, source)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        try:
            ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=_FUSIONS)
            return onnx.load(str(target))
        except Exception as error:  # the engine's exceptions have no common base
            raise frozen_error(label) from error


def _shapes(model: Any, batch: int) -> Shapes:
    """The shapes of all tensors at a batch, where they follow."""
    onnx = import_onnx()
    light = skeleton(model)
    first = light.graph.input[0].type.tensor_type.shape.dim[0]
    first.Clear()
    first.dim_value = batch
    for output in light.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}
    found: Shapes = {tensor.name: tuple(tensor.dims) for tensor in light.graph.initializer}
    for value in (*light.graph.input, *light.graph.value_info, *light.graph.output):
        shape = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape):
            found[value.name] = tuple(dim.dim_value for dim in shape)
    return found


def _free_next(model: Any, frozen: Shapes, moving: Shapes, carrier: _Carrier) -> bool:
    """Free the first nodes that hold the batch back; whether there was any.

    What stands behind a freed node has other shapes than `moving` says, and waits for the next time.
    """
    changed: set[str] = set()
    for node in list(model.graph.node):
        if changed.intersection(node.input):
            changed.update(node.output)
        elif _free(node, model, frozen, moving, carrier):
            if node.op_type in ("Concat", "Gather"):
                return True  # nodes were put in: what was listed is no longer in place
            changed.update(node.output)
    return bool(changed)


def _free(node: Any, model: Any, frozen: Shapes, moving: Shapes, carrier: _Carrier) -> bool:
    """Free one node that holds the batch back; whether it did."""
    axes = [_batch_axis(frozen.get(name), moving.get(name)) for name in node.input]
    if node.op_type == "Reshape" and axes[0] is not None:
        return _free_reshape(node, model, frozen, axes[0])
    if node.op_type == "Expand" and axes[0] is not None:
        return _free_expand(node, model, frozen, axes[0])
    if node.op_type == "Gather" and axes == [0, 0] and not _ours(node.input[1]):
        output = node.output[0]
        return _reconnect(model, output, {1: carrier.offset(node.input[1], frozen[node.input[0]][0])})
    if node.op_type == "Concat" and any(axis is not None for axis in axes):
        axis = next(axis for axis in axes if axis is not None)
        held = [i for i, a in enumerate(axes) if a is None and node.input[i] in frozen and not _ours(node.input[i])]
        freed, output = {}, node.output[0]
        for i, name in [(i, node.input[i]) for i in held]:
            rank = len(frozen[name])
            counts = _is_zero(model, name) and frozen[name][0] == 1 and axis == 0
            freed[i] = carrier.counted(name, rank) if counts else carrier.expanded(name, axis, rank)
        return _reconnect(model, output, freed)
    return False


def _reconnect(model: Any, output: str, inputs: dict[int, str]) -> bool:
    """Let the node that makes `output` read other values; whether there are any. It is looked up anew, since nodes were
    put in."""
    node = next(node for node in model.graph.node if output in node.output)
    for i, name in inputs.items():
        node.input[i] = name
    return bool(inputs)


def _ours(name: str) -> bool:
    return name.endswith(("_batched", "_counted", "_offset"))


def _batch_axis(one: tuple[int, ...] | None, three: tuple[int, ...] | None) -> int | None:
    """The axis along which a tensor grows with the batch."""
    if one is None or three is None or len(one) != len(three):
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(one, three, strict=True)) if b == a * _PROBE and a]
    return grown[0] if len(grown) == 1 else None


def _free_reshape(node: Any, model: Any, frozen: Shapes, axis: int) -> bool:
    """Let the axis that holds the batch be whatever is left."""
    source, target = frozen[node.input[0]], frozen.get(node.output[0])
    if target is None or node.input[1].endswith("_freed"):
        return False
    place = _place(source, target, axis)
    return _replace(node, model, [-1 if i == place else size for i, size in enumerate(target)])


def _place(source: tuple[int, ...], target: tuple[int, ...], axis: int) -> int:
    """Which axis of `target` takes the batch: the 1 it held, else the neighbour that it was merged with.

    A reshape to fewer axes flattens it into the axis before, (L, 1, D) -> (L * N, D); one that splits an axis leaves it
    with the next, (L, 1, D) -> (L, N * heads, D / heads).
    """
    ahead = int(np.prod(source[:axis]))
    ones = [i for i, size in enumerate(target) if size == 1]
    if ones:
        return min(ones, key=lambda i: abs(int(np.prod(target[:i])) - ahead))
    starts = [i for i in range(len(target)) if int(np.prod(target[:i])) == ahead]
    if len(target) >= len(source) and starts:
        return starts[0]
    return next((i for i in range(len(target)) if int(np.prod(target[: i + 1])) >= ahead), 0)


def _free_expand(node: Any, model: Any, frozen: Shapes, axis: int) -> bool:
    """An Expand leaves an axis as it is where it is told 1."""
    target = frozen.get(node.output[0])
    if target is None or node.input[1].endswith("_freed"):
        return False
    place = axis + len(target) - len(frozen[node.input[0]])
    return _replace(node, model, [1 if i == place else size for i, size in enumerate(target)])


def _replace(node: Any, model: Any, shape: list[int]) -> bool:
    """Give a node a shape of its own."""
    onnx = import_onnx()
    name = f"{node.output[0]}_shape_freed"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(shape, np.int64), name))
    node.input[1] = name
    return True


def _is_zero(model: Any, name: str) -> bool:
    """Whether a constant is one integer 0, as the index of the only sample is."""
    onnx = import_onnx()
    for tensor in model.graph.initializer:
        if tensor.name == name:
            value = onnx.numpy_helper.to_array(tensor)
            return bool(value.dtype.kind == "i" and value.size == 1 and not value.any())
    return False
