"""A builder's complaints as sentences: which node, which operator, and the way out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipdeploy.engine.builder.memory import TOO_SMALL, show
from clipdeploy.engine.builder.outline import NodeOutline, Outline
from clipdeploy.engine.product import Product
from clipdeploy.errors import EngineError

MICROSOFT = "com.microsoft"
FOR_PROCESSORS = "quantise it for TensorRT: clipdeploy quantize BUNDLE --precision int8 --target tensorrt"
_ONLY_KNOWN = (
    "export or import the checkpoint with clipdeploy, whose graphs hold only operators that TensorRT has; "
    "clipdeploy check BUNDLE --target lists what a version takes"
)
_NO_GPU = "run clipdeploy doctor: an NVIDIA GPU and its driver must answer; --backend tensorrt-rtx builds without"

_UNKNOWN = re.compile(r"plugin not found|no importer registered", re.IGNORECASE)
_NOT_COMPUTED = ("UNSUPPORTED_NODE", "UNSUPPORTED_GRAPH")
_ZERO_POINT = re.compile(r"zero.?point|uint8", re.IGNORECASE)
_WEIGHTS = re.compile(r"failed to (?:import initializer|open file)|external weights", re.IGNORECASE)
_TYPES = re.compile(r"must have (?:the )?same (?:input )?types?|of type \w+ and", re.IGNORECASE)

_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|cudaErrorMemoryAllocation|\(cudaError 2\b|cuda failure: 2\b|bad_alloc|cannot allocate memory"
    r"|insufficient memory|Requested amount of GPU memory",
    re.IGNORECASE,
)
_NO_KERNEL = re.compile(r"Could not find any implementation for node (\{[^}]*\}|.+?)(?=\.?\)?(?:\s|$))")
_WORKSPACE = re.compile(r"within workspace limit|due to insufficient workspace", re.IGNORECASE)
_TARGETS = re.compile(
    r"Cannot compile for target\(s\) ([\w, ]+?), because the model contains HW-specific datatypes: (\w+)"
)
_TURING = re.compile(r"Cannot compile operation '([^']*)' for Turing \(SM75\): ([^.\]]+)")
_DRIVER = re.compile(
    r"cudaError (?:35|100)\b|CUDA initialization failure|no CUDA-capable device|driver version is insufficient",
    re.IGNORECASE,
)
_REFIT_JIT = re.compile(r"graph_jit\.cpp|kernel_gen\.cpp|accelerator list")
_LEAN = re.compile(r"libnvinfer_lean|nvinfer_lean")

_PLACE = re.compile(r"^(?:\[[^\]]*::[^\]]*\]\s*)?(?:I\w+::\w+:\s*)?Error Code \d+: ", re.IGNORECASE)
_SOURCE = re.compile(r"\s*\(?In \S+(?:\([^)]*\))? at /\S+?:\d+\)?")


@dataclass(frozen=True)
class ParserError:
    """One error of the ONNX parser; `index` of the node is -1 where it is of no node."""

    code: str
    text: str
    index: int
    node: str
    operator: str


def read_error(error: Any) -> ParserError:
    """Take an error out of the parser, which owns it."""
    return ParserError(error.code().name, error.desc(), error.node(), error.node_name(), error.node_operator())


def check_domains(outline: Outline, product: Product) -> None:
    """Refuse a graph for ONNX Runtime; the parser looks at an operator's name alone and takes another's for its own."""
    for node in outline.nodes:
        if node.domain == MICROSOFT:
            raise EngineError(
                f"{outline.path.name} was made for ONNX Runtime: {node} is none of ONNX's operators, and {product} "
                "has none of ONNX Runtime's",
                fix=FOR_PROCESSORS,
            )


def parse_failure(errors: Sequence[ParserError], log: Sequence[str], outline: Outline, product: Product) -> EngineError:
    """Why the graph could not be read."""
    name = outline.path.name
    if not errors:
        said = f": {_clean(log[0])}" if log else ""
        return EngineError(f"{product} finds no network in {name}{said}", fix="export the checkpoint again")
    error = errors[0]
    node = _node(error, outline)
    every = "\n".join([error.text, *log])
    if error.code == "MODEL_DESERIALIZE_FAILED":
        return EngineError(
            f"{product} cannot read {name}: it is cut off, or no ONNX file",
            fix="copy the file again, or export the checkpoint again",
        )
    if error.code == "MEM_ALLOC_FAILED" or _OUT_OF_MEMORY.search(every):
        return EngineError(f"memory ran out while {name} was read", fix=TOO_SMALL)
    if _WEIGHTS.search(every):
        return EngineError(
            f"{product} cannot read the weights of {name}: {_last_line(log) or _clean(error.text)}",
            fix=f"copy {name}.data into the same folder, or export the checkpoint again",
        )
    if _UNKNOWN.search(error.text):
        return EngineError(f"{product} does not know {node}: it has no such operator or plugin", fix=_ONLY_KNOWN)
    if error.operator in ("QuantizeLinear", "DequantizeLinear") and _ZERO_POINT.search(error.text):
        return EngineError(
            f"{product} quantises symmetrically in signed integers, and {node} has a zero point or unsigned integers: "
            f"{name} was made for a processor",
            fix=FOR_PROCESSORS,
        )
    if error.code in _NOT_COMPUTED:
        return EngineError(f"{product} does not compute {node}", fix=_ONLY_KNOWN)
    said = _clean(error.text)
    if _TYPES.search(said):
        return EngineError(
            f"{product} takes every type from the graph, and {node} mixes types: {said}",
            fix="write the typed graph with clipdeploy quantize, which casts where types meet",
        )
    return EngineError(f"{product} cannot read {node}: {said}", fix=_ONLY_KNOWN)


def build_failure(
    errors: Sequence[str],
    outline: Outline,
    product: Product,
    *,
    free_bytes: int | None = None,
    skipped_for_memory: int = 0,
    stripped: bool = False,
) -> EngineError:
    """Why no engine came of the network.

    Args:
        errors: what the builder logged.
        free_bytes: memory that was free before, None where it cannot be told.
        skipped_for_memory: kernels that the builder did not try for want of memory.
        stripped: whether the weights were to be left out.
    """
    name = outline.path.name
    every = "\n".join(errors)
    if found := _TARGETS.search(every):
        capabilities = ", ".join(f"{int(sm[:-1])}.{sm[-1]}" for sm in re.findall(r"sm(\d+)", found[1]))
        return EngineError(
            f"a GPU of compute capability {capabilities} does not compute in {found[2]}, which {name} does",
            fix="leave it out of --compute-capability, or build with --precision fp16 or int8 for it",
        )
    if found := _TURING.search(every):
        return EngineError(
            f"{product} cannot build node {found[1]!r} for compute capability 7.5: {found[2]}",
            fix="build with --precision fp16 for Turing, or leave 7.5 out of --compute-capability",
        )
    if stripped and (_REFIT_JIT.search(every) or _DRIVER.search(every)):
        return EngineError(
            f"{product} leaves weights out only where an NVIDIA GPU and its driver are",
            fix="build with --strip-weights on such a machine, or leave --strip-weights out",
        )
    if _DRIVER.search(every):
        return EngineError(f"{product} finds no GPU, or a driver too old for it: {_clean(every)}", fix=_NO_GPU)
    if _LEAN.search(every):
        return EngineError(
            f"{product} needs its lean runtime for --version-compatible, and cannot load it",
            fix="install the lean runtime of the same version (tensorrt_lean), or leave --version-compatible out",
        )
    free = f", {show(free_bytes)} were free" if free_bytes is not None else ""
    if _WORKSPACE.search(every) and not _OUT_OF_MEMORY.search(every):
        return EngineError(
            f"no kernel of {product} does its work within the scratch memory allowed{free}",
            fix="give more with --workspace; a smaller largest --batch and --precision fp16 need less",
        )
    kernel = _NO_KERNEL.search(every)
    if _OUT_OF_MEMORY.search(every) or (kernel and skipped_for_memory):
        at = f" at node {kernel[1]}" if kernel else ""
        return EngineError(f"memory ran out while {product} built {name}{at}{free}", fix=_less_memory(free_bytes))
    if kernel:
        return EngineError(
            f"{product} found no kernel for node {kernel[1]} of {name}; on a small device this is mostly want of "
            f"memory{free}",
            fix=f"{_less_memory(free_bytes)}; if memory is ample, clipdeploy check BUNDLE --target names known bad "
            "versions",
        )
    said = _clean(every) or "it says no reason"
    return EngineError(
        f"{product} could not build {name}: {said}",
        fix="clipdeploy check BUNDLE --target names what this version does not take; --debug shows more",
    )


def _less_memory(free_bytes: int | None) -> str:
    cap = f" (half of what is free is --workspace {free_bytes // 2 // 1024**2}MiB)" if free_bytes else ""
    return f"cap the scratch memory with --workspace{cap}, {TOO_SMALL}"


def _node(error: ParserError, outline: Outline) -> str:
    """The node in the words of the file, which knows its domain; the parser does not."""
    nodes = outline.nodes
    if 0 <= error.index < len(nodes) and nodes[error.index].operator == error.operator:
        return str(nodes[error.index])
    named = [node for node in nodes if node.name and node.name == error.node]
    if named:
        return str(named[0])
    return str(NodeOutline(error.node, error.operator, "")) if error.operator else "the graph"


def _last_line(log: Sequence[str]) -> str:
    """The first line of a log that names a file."""
    for message in log:
        if "file" in message.lower():
            return _clean(message)
    return ""


def _clean(text: str) -> str:
    """The first telling line of a message, without where in NVIDIA's source it comes from."""
    for line in text.splitlines():
        line = re.sub(r"^\S+\.cpp:\d+:\s*", "", _SOURCE.sub("", line)).strip()
        line = _PLACE.sub("", line)
        line = re.sub(r"^Assertion failed: .*?: (?=[A-Z])", "", line)
        line = re.sub(r"^(?:API Usage Error|Internal Error|Myelin|Cuda Runtime)\s*\((.*)\)?$", r"\1", line)
        line = line.strip().rstrip(")").strip()
        if line and not line.startswith("Invalid Node"):
            return line.rstrip(".")
    return ""
