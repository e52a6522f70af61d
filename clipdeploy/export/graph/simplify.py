"""Make a traced graph smaller: onnxsim, then an ordered list of small passes of our own.

Each step is run against the graph before it, on several batch sizes; one that changes an embedding is an error that
names it. Between steps only the graph is rewritten: the weights lie once in a scratch file that all steps share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from clipdeploy.errors import BackendError, ExportError
from clipdeploy.export.graph.checks import Feeds, embeddings, latencies_ms, relative_difference
from clipdeploy.export.graph.passes import PASSES, GraphPass
from clipdeploy.graphs.files import (
    INLINE_LIMIT_BYTES,
    SMALL_TENSOR_BYTES,
    data_path,
    load_graph,
    save_graph,
    scratch_folder,
    tidy,
    weight_bytes,
)
from clipdeploy.progress import Progress, silent

TOLERANCE = 1e-5
"""Largest difference a step may make, relative to the largest value of the embeddings before it."""

_FIX = "export with --no-simplify, and report the architecture"


@dataclass(frozen=True)
class SimplifyStep:
    """The graph after one step.

    Attributes:
        name: `traced`, `onnxsim`, or a pass.
        nodes: operators in the graph.
        size_bytes: graph and weights.
        latency_ms: median of one run on the CPU; None where it was not measured.
        max_abs: largest difference to the step before, relative to the largest value of the embeddings.
        seconds: time that the step took, its check included.
    """

    name: str
    nodes: int
    size_bytes: int
    latency_ms: float | None
    max_abs: float
    seconds: float


@dataclass(frozen=True)
class SimplifyResult:
    """What simplifying did: one record for the graph as it came, then one for each step that changed it."""

    steps: tuple[SimplifyStep, ...]


def simplify_graph(
    source: Path,
    target: Path,
    *,
    feeds: Feeds,
    progress: Progress = silent,
    measure: bool = False,
    shortest: int | None = None,
    passes: Sequence[GraphPass] = PASSES,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> SimplifyResult:
    """Write a simpler graph that computes the same.

    Args:
        source: a traced graph.
        target: the file to write, as `save_graph` does; another than `source`.
        feeds: one batch of inputs of at least two samples, `(N, ...)` each.
        measure: time the graph as it came, after onnxsim, and at the end.
        shortest: where the length of texts is free, how many ids the first sample has.
        passes: what to run behind onnxsim, in this order.
        inline_limit_bytes: weights beyond this lie beside the graph.

    Raises:
        ExportError: a step changes an embedding or makes it non-finite, or gives a graph that cannot be run.
    """
    with scratch_folder(target.parent) as scratch:
        run = _Run(scratch, feeds, shortest, progress, total=len(passes) + 1)
        run.start(source)
        model = _run_onnxsim(source, inline_limit_bytes)
        run.check("onnxsim", model)
        for graph_pass in passes:
            changes = graph_pass.apply(model)
            RemoveUnusedNodesPass()(model)
            run.check(graph_pass.name, model, changed=changes > 0)
        run.finish()
        steps = run.timed_steps() if measure else tuple(run.steps)
        save_graph(model, target, inline_limit_bytes=inline_limit_bytes)
        return SimplifyResult(steps)


class _Run:
    """The steps so far, and the embeddings that the last of them gave."""

    def __init__(self, scratch: Path, feeds: Feeds, shortest: int | None, progress: Progress, *, total: int) -> None:
        self.scratch, self.feeds, self.shortest = scratch, feeds, shortest
        self.progress, self.total = progress, total
        self.steps: list[SimplifyStep] = []
        self.graphs: list[Path] = []
        self._done = 0
        self._expected: list[NDArray[np.float32]] = []
        self._since = time.perf_counter()

    def start(self, source: Path) -> None:
        """Take the graph as it came."""
        self.progress("simplifying", 0, self.total)
        self._expected = embeddings(source, self.feeds, self.shortest)
        self._record("traced", source, 0.0)

    def check(self, name: str, model: ir.Model, *, changed: bool = True) -> None:
        """Compare the graph to the step before; raises ExportError naming this step where they differ."""
        if changed:
            path = self.scratch / f"{len(self.graphs)}.onnx"
            _weights_to_disk(model, path)
            ir.save(model, path)
            found = self._embeddings(name, path)
            difference = relative_difference(found, self._expected)
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"step {name!r} of simplifying {model.graph.name!r} changes the embeddings by {difference:.3g} "
                    f"of their largest value; at most {TOLERANCE:g} is allowed",
                    fix=_FIX,
                )
            self._expected = found
            self._record(name, path, difference)
        self._done += 1
        self.progress("simplifying", self._done, self.total)

    def finish(self) -> None:
        """Check the last graph against the ONNX standard; raises ExportError where it leaves it."""
        try:
            onnx.checker.check_model(str(self.graphs[-1]), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the simplified graph is no valid ONNX: {error}", fix=_FIX) from error

    def timed_steps(self) -> tuple[SimplifyStep, ...]:
        """The steps, with the times of the first, of onnxsim and of the last, for one sample."""
        picked = sorted({0, 1, len(self.steps) - 1})
        one = {name: batch[:1] for name, batch in self.feeds.items()}
        times = latencies_ms({str(i): self.graphs[i] for i in picked}, one)
        medians = {int(i): float(np.median(samples)) for i, samples in times.items()}
        return tuple(replace(step, latency_ms=medians.get(i)) for i, step in enumerate(self.steps))

    def _embeddings(self, name: str, path: Path) -> list[NDArray[np.float32]]:
        try:
            return embeddings(path, self.feeds, self.shortest)
        except BackendError as error:
            raise ExportError(
                f"step {name!r} of simplifying gives a graph that does not run: {error.message}", fix=_FIX
            ) from error

    def _record(self, name: str, path: Path, difference: float) -> None:
        now = time.perf_counter()
        self.steps.append(describe_graph(name, path, max_abs=difference, seconds=now - self._since))
        self.graphs.append(path)
        self._since = now


def describe_graph(name: str, path: Path, *, max_abs: float, seconds: float) -> SimplifyStep:
    """The record of a graph on disk."""
    model = load_graph(path)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    external = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, ir.ExternalTensor))
    return SimplifyStep(name, model.graph.num_nodes(), path.stat().st_size + external, None, max_abs, seconds)


def _weights_to_disk(model: ir.Model, path: Path) -> None:
    """Store the weights that a step made, which so far are in memory, beside its graph."""
    folder = path.parent
    fresh = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.nbytes > SMALL_TENSOR_BYTES
        and not _lies_in(value, folder)
    ]
    tensors = [value.const_value for value in fresh]
    for value, tensor in zip(
        fresh, ir.external_data.convert_tensors_to_external(tensors, folder, data_path(path).name), strict=True
    ):
        value.const_value = tensor


def _lies_in(value: ir.Value, folder: Path) -> bool:
    tensor = value.const_value
    return isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == folder


def _run_onnxsim(source: Path, inline_limit_bytes: int) -> ir.Model:
    """The graph after onnxsim."""
    import onnxsim

    model = load_graph(source)
    producer, notes = (model.producer_name, model.producer_version), dict(model.metadata_props)
    fits = weight_bytes(model) <= inline_limit_bytes
    # It reads weights only to fold a BatchNormalization into a Conv; else they would only slow it down.
    weights = {} if fits and _has_batch_norm(model) else _weights_to_inputs(model)
    ir.external_data.load_to_model(model)
    try:
        proto, _ = onnxsim.simplify(ir.to_proto(model))
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"onnxsim fails on {model.graph.name!r}: {error}", fix=_FIX) from error
    simpler = ir.from_proto(proto)
    _inputs_to_weights(simpler, weights)
    tidy(simpler)
    simpler.producer_name, simpler.producer_version = producer
    simpler.metadata_props.update(notes)
    return simpler


def _has_batch_norm(model: ir.Model) -> bool:
    return any(node.op_type == "BatchNormalization" for node in model.graph)


def _weights_to_inputs(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Take the weights, not the biases, out of a graph, which then asks for them as inputs; returns them by name."""
    weights = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) > 1 and tensor.nbytes > SMALL_TENSOR_BYTES:
            weights[name] = tensor
            del model.graph.initializers[name]
            value.const_value, value.shape, value.dtype = None, ir.Shape(tensor.shape), tensor.dtype
            model.graph.inputs.append(value)
    return weights


def _inputs_to_weights(model: ir.Model, weights: dict[str, ir.TensorProtocol]) -> None:
    """Put the weights back that `_weights_to_inputs` took out."""
    for value in [v for v in model.graph.inputs if v.name in weights]:
        model.graph.inputs.remove(value)
        if value.uses():
            value.const_value = weights[str(value.name)]
            model.graph.register_initializer(value)
