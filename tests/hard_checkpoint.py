"""Give a small trained image tower what makes large CLIPs hard to quantise, and leave its function as it is.

Large CLIPs have outlier channels and massive activations; small ones have not, so that any quantiser looks good on
them. `make_hard` rewrites the weights of a float32 graph of ours. Each step is an identity of exact arithmetic, so that
float32 answers the same but for rounding:

1. Outlier channels. Some channels of each LayerNorm: gain and bias times 30 to 100; the same columns of the Linears
   that read them divided by as much. Linear inputs now span two orders of magnitude: one INT8 step for all is too wide.
2. Massive neurons. Each MLP gets a pair of neurons alike, whose columns in fc2 are w and -w, so they cancel. They copy
   a neuron of the MLP, magnified and shifted such that only rare tokens excite them, to `NEURON_PEAK`. Six idle ones
   keep the width a multiple of eight.
3. Value channels. In one attention, some channels of V times 64, the columns of the output projection divided by it:
   attention only averages V. No LayerNorm precedes the projection into which this could be folded back.
4. Massive residuals. All that is added to the residual stream times a power of two, until its largest value passes
   `STREAM_PEAK`, beyond FP16. LayerNorm forgets scales: LN(a x + c) = LN(x) for numbers a and c, up to its epsilon.
   (A single massive channel cannot be planted exactly: it would change the variance that LayerNorm divides by. That is
   why its effect on the Linears is planted by 1.)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.bundle import sha256_file
from tests.graph_probe import float_outputs

OUTLIER_GAIN = (30.0, 100.0)
OUTLIER_SHARE = 0.02
NEURON_PEAK = 2000.0
NEURON_RARITY = 0.995
VALUE_GAIN = 64.0
STREAM_PEAK = 1e5

_LAYOUT = ("Reshape", "Transpose", "Split", "Gather", "Squeeze", "Unsqueeze", "Identity", "Slice")
_PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class HardRecipe:
    """What was done to a graph.

    Attributes:
        outliers: name of a LayerNorm -> the channels magnified, and by how much.
        neurons: names of the fc1 nodes that got massive neurons.
        values: name of the output projection whose input has magnified channels, and which.
        stream_scale: the power of two that the residual stream was multiplied by.
        stream_peak: largest value that the probe reaches in it now.
    """

    seed: int
    outliers: dict[str, tuple[tuple[int, float], ...]]
    neurons: tuple[str, ...]
    values: tuple[str, tuple[int, ...]]
    stream_scale: float
    stream_peak: float


def make_hard(source: Path, target: Path, *, seed: int = 0, probe: NDArray[np.float32] | None = None) -> HardRecipe:
    """Write the hard twin of a transformer's float32 image graph.

    Args:
        source: a graph of `clipdeploy export`: pre-norm blocks, Linears as Gemm or MatMul with stored weights.
        target: where the twin goes; may be the same file.
        probe: pixels (N, 3, H, W) that tell how large tensors get; seeded noise by default.

    Raises:
        ValueError: the graph has no pre-norm transformer blocks.
    """
    rng = np.random.default_rng(seed)
    model = ir.load(source)
    _untie(model.graph)
    blocks = _Blocks(model.graph)
    pixels = probe if probe is not None else _noise(model.graph, rng)
    seen = float_outputs(
        source, {"pixel_values": pixels}, [*blocks.stream, *(fc1.outputs[0].name for fc1, _ in blocks.mlps)]
    )
    outliers = {str(norm.name): _outlier_channels(norm, rng) for norm in blocks.norms}
    neurons = tuple(_massive_neurons(fc1, fc2, seen[fc1.outputs[0].name], rng) for fc1, fc2 in blocks.mlps[:-1])
    values = _value_channels(*blocks.attentions[len(blocks.attentions) // 2], rng)
    peak = max(float(np.abs(seen[name]).max()) for name in blocks.stream)
    scale = 2.0 ** np.ceil(np.log2(STREAM_PEAK / peak))
    done: set[ir.Value] = set()
    for name in blocks.stream:
        _scale_source(next(v for n in model.graph for v in n.outputs if v.name == name), scale, done)
    ir.save(model, target)
    return HardRecipe(seed, outliers, neurons, values, float(scale), peak * float(scale))


def make_hard_bundle(
    bundle: Path, folder: Path, *, seed: int = 0, probe: NDArray[np.float32] | None = None
) -> HardRecipe:
    """Copy a bundle into a new folder, with the hard twin for its image graph; its golden samples still hold."""
    shutil.copytree(bundle, folder)
    graph = folder / "visual.onnx"
    recipe = make_hard(graph, graph, seed=seed, probe=probe)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][graph.name] |= {"sha256": sha256_file(graph), "size_bytes": graph.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return recipe


class _Blocks:
    """The places of a pre-norm transformer that the recipe touches.

    Attributes:
        norms: the LayerNorms in front of Linears.
        mlps: (fc1, fc2) of each block.
        attentions: (the Linear that makes V, the output projection) of each block.
        stream: names of the tensors of the residual stream.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.norms = [
            node
            for node in graph
            if node.op_type == "LayerNormalization" and all(_is_linear(n) for n in _readers(node.outputs[0]))
        ]
        self.mlps: list[tuple[ir.Node, ir.Node]] = []
        self.attentions: list[tuple[ir.Node, ir.Node]] = []
        self.stream: list[str] = []
        for node in graph:
            if node.op_type != "Add" or not any(n.op_type == "LayerNormalization" for n in _readers(node.outputs[0])):
                continue
            linear = next((v.producer() for v in node.inputs if v.producer() and _is_linear(v.producer())), None)
            if linear is None:
                continue
            before = next(v for v in node.inputs if v is not linear.outputs[0])
            self.stream += [n for n in (before.name, node.outputs[0].name) if n not in self.stream]
            mixed = _above(linear.inputs[0])
            if mixed.op_type == "MatMul":
                self.attentions.append((_above(mixed.inputs[1]), linear))
            else:
                self.mlps.append((_first_linear_above(mixed), linear))
        if not (self.norms and self.mlps and self.attentions):
            raise ValueError("the graph has no pre-norm transformer blocks")


def _untie(graph: ir.Graph) -> None:
    """Give each layer constants of its own, where equal ones were stored once, and each Gemm a bias."""
    for node in graph:
        if node.op_type not in ("LayerNormalization", *_PRODUCTS):
            continue
        for i, value in enumerate(node.inputs):
            if value is not None and value.const_value is not None and len(value.uses()) > 1:
                node.replace_input_with(i, _new(graph, f"{value.name}_{node.name}", _array(value)))
        if node.op_type == "Gemm" and len(node.inputs) == 2:
            node.resize_inputs(3)
            node.replace_input_with(2, _new(graph, f"{node.name}_bias", np.zeros(len(_by_output(node)))))


def _outlier_channels(norm: ir.Node, rng: np.random.Generator) -> tuple[tuple[int, float], ...]:
    width = norm.inputs[1].shape[0]
    channels = rng.choice(width, max(2, round(OUTLIER_SHARE * width)), replace=False)
    factors = np.ones(width, dtype=np.float32)
    factors[channels] = rng.uniform(*OUTLIER_GAIN, len(channels))
    for value in norm.inputs[1:]:
        _store(value, _array(value) * factors)
    for linear in _readers(norm.outputs[0]):
        _store_by_output(linear, _by_output(linear) / factors)
    return tuple((int(c), float(factors[c])) for c in sorted(channels))


def _massive_neurons(fc1: ir.Node, fc2: ir.Node, seen: NDArray[np.float32], rng: np.random.Generator) -> str:
    """Append a pair that cancels, and idle neurons; `seen` (tokens, hidden) is what fc1 gives for the probe."""
    up, down, bias = _by_output(fc1), _by_output(fc2), _array(fc1.inputs[2])
    tokens = seen.reshape(-1, seen.shape[-1])
    threshold, peak = np.quantile(tokens, NEURON_RARITY, axis=0), tokens.max(axis=0)
    chosen = int(np.argmax((peak - threshold) / tokens.std(axis=0)))
    magnified = NEURON_PEAK / (peak[chosen] - threshold[chosen])
    row, shift = up[chosen] * magnified, (bias[chosen] - threshold[chosen]) * magnified
    column = rng.normal(0, down.std(), len(down)).astype(np.float32)
    idle = np.zeros((6, up.shape[1]), dtype=np.float32)
    _store_by_output(fc1, np.concatenate([up, row[None], row[None], idle]))
    _store(fc1.inputs[2], np.concatenate([bias, [shift, shift], np.zeros(6)]).astype(np.float32))
    _store_by_output(fc2, np.concatenate([down, column[:, None], -column[:, None], np.zeros((len(down), 6))], axis=1))
    for node in _between(fc1, fc2):
        value = node.outputs[0]
        value.shape = ir.Shape([*value.shape[:-1], len(up) + 8])
    return str(fc1.name)


def _value_channels(makes_v: ir.Node, out_proj: ir.Node, rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    width = _by_output(out_proj).shape[1]
    channels = rng.choice(width, max(2, round(OUTLIER_SHARE * width)), replace=False)
    factors = np.ones(width, dtype=np.float32)
    factors[channels] = VALUE_GAIN
    rows = np.concatenate([np.ones(len(_by_output(makes_v)) - width, dtype=np.float32), factors])  # V comes last
    _store_by_output(makes_v, _by_output(makes_v) * rows[:, None])
    _store(makes_v.inputs[2], _array(makes_v.inputs[2]) * rows)
    _store_by_output(out_proj, _by_output(out_proj) / factors)
    return str(out_proj.name), tuple(int(c) for c in sorted(channels))


def _scale_source(value: ir.Value, scale: float, done: set[ir.Value]) -> None:
    """Multiply a tensor of the stream by changing the constants that it comes from, each once."""
    if value in done:
        return
    done.add(value)
    node = value.producer()
    if node is None:
        _store(value, _array(value) * np.float32(scale))
    elif node.op_type == "LayerNormalization" or _is_linear(node) or node.op_type == "Conv":
        for constant in node.inputs[1:]:
            _scale_source(constant, scale, done)
    elif node.op_type == "Add":
        for part in node.inputs:
            _scale_source(part, scale, done)
    elif node.op_type in (*_LAYOUT, "Pad"):
        _scale_source(node.inputs[0], scale, done)
    else:
        raise ValueError(f"cannot scale what {node.op_type} {node.name!r} gives")


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Who reads a tensor, behind what only moves its numbers."""
    for node in value.consumers():
        if node.op_type in _LAYOUT:
            yield from (n for out in node.outputs for n in _readers(out))
        else:
            yield node


def _above(value: ir.Value) -> ir.Node:
    """Who computes a tensor, before what only moves its numbers."""
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name!r} is not computed")
    return _above(node.inputs[0]) if node.op_type in _LAYOUT else node


def _first_linear_above(node: ir.Node) -> ir.Node:
    while not _is_linear(node):
        node = next(v.producer() for v in node.inputs if v is not None and v.producer() is not None)
    return node


def _between(first: ir.Node, last: ir.Node) -> set[ir.Node]:
    """`first`, and all that leads from it to `last`."""
    found, edge = {first}, [first]
    while edge:
        for node in edge.pop().outputs[0].consumers():
            if node is not last and node not in found:
                found.add(node)
                edge.append(node)
    return found


def _is_linear(node: ir.Node) -> bool:
    return node.op_type in _PRODUCTS and node.inputs[1].const_value is not None


def _by_output(linear: ir.Node) -> NDArray[np.float32]:
    """The weight of a Linear, (out, in)."""
    weight = _array(linear.inputs[1])
    return weight if _is_transposed(linear) else weight.T


def _store_by_output(linear: ir.Node, weight: NDArray[np.floating]) -> None:
    _store(linear.inputs[1], weight if _is_transposed(linear) else weight.T)


def _is_transposed(linear: ir.Node) -> bool:
    return bool(linear.op_type == "Gemm" and linear.attributes.get_int("transB", 0))


def _array(value: ir.Value) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _store(value: ir.Value, array: NDArray[np.floating]) -> None:
    tensor = ir.tensor(np.ascontiguousarray(array, dtype=np.float32), name=value.name)
    value.const_value, value.shape = tensor, ir.Shape(array.shape)


def _new(graph: ir.Graph, name: str, array: NDArray[np.floating]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(np.array(array, dtype=np.float32), name=name))
    graph.register_initializer(value)
    return value


def _noise(graph: ir.Graph, rng: np.random.Generator) -> NDArray[np.float32]:
    shape = graph.inputs[0].shape
    return rng.standard_normal((4, *(int(n) for n in shape[1:]))).astype(np.float32)
