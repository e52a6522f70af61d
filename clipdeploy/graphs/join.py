"""Two graphs as one: what the first gives, the second takes.

The joined graph computes what the two do one behind the other, in the number formats that each is typed in. Weights
that lie beside a graph stay references to their files until the joined one is saved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from clipdeploy.errors import InputError
from clipdeploy.graphs.files import load_graph, save_graph, weight_bytes
from clipdeploy.graphs.opset import agree_on_opset


def join_files(
    front: Path, back: Path, target: Path, names: Mapping[str, str] | None = None, *, keep: Collection[str] = ()
) -> Path | None:
    """Write the joined graph of two files; returns the file of weights beside it, or None. See `join_models`."""
    return save_graph(join_models(load_graph(front), load_graph(back), names, keep=keep), target)


def join_graphs(
    front: onnx.ModelProto,
    back: onnx.ModelProto,
    names: Mapping[str, str] | None = None,
    *,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """`join_models` for messages, which stay as they are. External weights keep the place that they name."""
    joined = join_models(ir.from_proto(front), ir.from_proto(back), names, keep=keep)
    proto: onnx.ModelProto = ir.to_proto(joined)
    return proto


def join_models(
    front: ir.Model, back: ir.Model, names: Mapping[str, str] | None = None, *, keep: Collection[str] = ()
) -> ir.Model:
    """One graph of two; both are used up.

    Args:
        front: runs first.
        back: runs on what `front` gives.
        names: from an output of `front` to the input of `back` that it becomes; None where the names are equal.
        keep: outputs of `front` that stay outputs of the whole, in front of those of `back`.

    Returns:
        Its inputs are those of `front`, and behind them those of `back` that `names` leaves open. Names within the
        lighter graph give way where both use one; inputs and outputs of the whole keep theirs.

    Raises:
        InputError: the two do not fit: a name is missing, a type or shape differs, or no opset suits both.
    """
    outputs = {str(value.name): value for value in front.graph.outputs}
    if names is None:
        names = {str(v.name): str(v.name) for v in back.graph.inputs if v.name in outputs}
    pairs = _pairs(outputs, {str(value.name): value for value in back.graph.inputs}, names)
    for name in keep:
        if name not in outputs:
            raise InputError(f"no output {name!r} to keep; the first graph has {_list(outputs)}")
    agree_on_opset(front, back)
    kept = [outputs[name] for name in keep]
    ports = [
        *front.graph.inputs,
        *kept,
        *(v for v in back.graph.inputs if v not in pairs.values()),
        *back.graph.outputs,
    ]
    _distinct(front, back, ports, set(pairs.values()))
    for source, taken in pairs.items():
        taken.replace_all_uses_with(source)
        for place, value in enumerate(back.graph.outputs):
            if value is taken:  # given on as it came
                back.graph.outputs[place] = source
    return _moved(front, back, set(pairs.values()), kept)


def _pairs(
    outputs: Mapping[str, ir.Value], inputs: Mapping[str, ir.Value], names: Mapping[str, str]
) -> dict[ir.Value, ir.Value]:
    """The values that are tied together, from one of `outputs` to one of `inputs`."""
    if not names:
        raise InputError(
            f"nothing ties the graphs together: the first gives {_list(outputs)}, the second takes {_list(inputs)}",
            fix="say which output becomes which input",
        )
    pairs = {}
    for given, taken in names.items():
        if given not in outputs or taken not in inputs:
            raise InputError(
                f"cannot tie output {given!r} to input {taken!r}: "
                f"the first graph gives {_list(outputs)}, the second takes {_list(inputs)}"
            )
        a, b = outputs[given], inputs[taken]
        if a.dtype != b.dtype or not _fits(a.shape, b.shape):
            raise InputError(
                f"output {given!r} is {a.dtype} {_axes(a.shape)}, but input {taken!r} is {b.dtype} {_axes(b.shape)}"
            )
        pairs[a] = b
    return pairs


def _fits(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Whether the two can be one shape: where both have a fixed size, it is the same."""
    if a is None or b is None:
        return True
    fixed = (not (isinstance(m, int) and isinstance(n, int)) or m == n for m, n in zip(a, b, strict=False))
    return len(a) == len(b) and all(fixed)


def _axes(shape: ir.Shape | None) -> str:
    """A shape in words."""
    return "of any shape" if shape is None else f"({', '.join(str(getattr(axis, 'value', axis)) for axis in shape)})"


def _list(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"


def _distinct(front: ir.Model, back: ir.Model, ports: Collection[ir.Value], going: Collection[ir.Value]) -> None:
    """Give another name to what is called as something of the other graph; in the lighter one where that will do.

    Those of `going` are no part of the joined graph, so that what takes their place may keep its name.
    """
    light, heavy = (front, back) if weight_bytes(front) <= weight_bytes(back) else (back, front)
    fixed = set(ports)
    reserved = {str(port.name) for port in fixed}
    if len(reserved) < len(fixed):
        raise InputError(f"two inputs or outputs of the joined graph would have one name: {_list(sorted(reserved))}")
    for model, other in ((light, heavy), (heavy, light)):
        taken = reserved | ({str(v.name) for v in _values(other) if v not in going} if model is light else set())
        own = {str(value.name) for value in _values(model)}
        for value in _values(model):
            if value not in fixed and value not in going and value.name in taken:
                _rename(model.graph, value, _free(str(value.name), taken | own))
                own.add(str(value.name))
    nodes = {node.name for node in heavy.graph.all_nodes()}
    for node in light.graph.all_nodes():
        if node.name is not None and node.name in nodes:
            node.name = _free(node.name, nodes)
            nodes.add(node.name)


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Another name for a value, a stored constant's too."""
    stored = value.name is not None and graph.initializers.get(value.name) is value
    if stored:
        del graph.initializers[str(value.name)]
        if isinstance(value.const_value, ir.serde.TensorProtoTensor):  # its name is that in the message
            value.const_value = ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype)
    value.name = name
    if stored:
        graph.register_initializer(value)


def _free(name: str, taken: Collection[str | None]) -> str:
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value with a name, those of the graphs inside too; each once."""
    for graph in (model.graph, *model.graph.subgraphs()):
        constants = list(graph.initializers.values())
        yield from (value for value in graph.inputs if value not in constants)
        yield from constants
    for node in model.graph.all_nodes():
        yield from (value for value in node.outputs if value.name)


def _moved(front: ir.Model, back: ir.Model, tied: Collection[ir.Value], kept: Collection[ir.Value]) -> ir.Model:
    """All of `front` before what is in `back`."""
    graph = back.graph
    inputs, nodes = list(front.graph.inputs), list(front.graph)
    constants = list(front.graph.initializers.values())
    open_inputs = [value for value in graph.inputs if value not in tied]
    front.graph.outputs.clear()
    front.graph.inputs.clear()
    front.graph.initializers.clear()
    front.graph.remove(nodes)
    graph.inputs.clear()
    graph.inputs.extend([*inputs, *open_inputs])
    graph.outputs[:0] = list(kept)
    for value in constants:
        graph.register_initializer(value)
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)
    back.functions.update(front.functions)
    back.ir_version = max(front.ir_version, back.ir_version)
    return back
