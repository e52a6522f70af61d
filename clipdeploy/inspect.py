"""What is in a bundle or in an ONNX graph, as records."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.bundle import MANIFEST, Bundle, FileEntry, Provenance
from clipdeploy.errors import BundleCorruptError, InputError, MissingExtraError
from clipdeploy.spec import ModelSpec, TensorSpec, Tower

PARITY_JSON = "report/parity.json"
_PARITY_FIELDS = ("passed", "first_drift", "reference", "created", "precision", "backend")


@dataclass(frozen=True)
class ParitySummary:
    """What the parity report in a bundle says.

    Attributes:
        first_drift: the first stage that fails, None when all pass.
        reference: `pytorch`, the checkpoint; or `golden`, the samples in the bundle.
        measured: stage -> check -> value, such as `image_tower` -> `cosine` -> 0.9999999.
    """

    passed: bool
    first_drift: str | None
    reference: str
    created: str
    precision: str
    backend: str
    measured: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class BundleInfo:
    """What is in a bundle.

    Attributes:
        precisions: per tower (`image`, `text`), those there is a graph of.
        parity: of the report that the bundle carries, None where it has none.
        size_bytes: of all files together.
    """

    path: Path
    model: ModelSpec
    embedding_space: str
    provenance: Provenance
    tools: dict[str, str]
    files: dict[str, FileEntry]
    precisions: dict[str, tuple[str, ...]]
    parity: ParitySummary | None
    size_bytes: int


@dataclass(frozen=True)
class GraphInfo:
    """What is in an ONNX graph.

    Attributes:
        opsets: operator domain -> version; the standard domain is `ai.onnx`.
        nodes: operator -> how often, most frequent first; nodes of subgraphs and functions included.
        initializers: how many constant tensors.
        initializer_bytes: their bytes by dtype, most first.
        external: files beside the graph that hold tensors.
        size_bytes: of the graph's file.
    """

    path: Path
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: dict[str, int]
    initializers: int
    initializer_bytes: dict[str, int]
    external: tuple[str, ...]
    size_bytes: int


def inspect_path(path: str | Path, *, check_hashes: bool = True) -> BundleInfo | GraphInfo:
    """Read a bundle's manifest or a graph's structure.

    Args:
        path: a bundle's folder (or its `manifest.json`), or an `.onnx` file.
        check_hashes: read all files of a bundle and compare their sha256.

    Raises:
        InputError: the path is neither.
        BundleError: the bundle cannot be opened.
        MissingExtraError: a graph is given and onnx is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return inspect_bundle(path, check_hashes=check_hashes)
    if path.name == MANIFEST:
        return inspect_bundle(path.parent, check_hashes=check_hashes)
    if path.suffix.lower() == ".onnx":
        return inspect_graph(path)
    state = "is neither" if path.exists() else "does not exist"
    raise InputError(
        f"{path} {state}; expected a bundle's folder or an .onnx file",
        fix="name the folder that clipdeploy export wrote",
    )


def inspect_bundle(folder: Path, *, check_hashes: bool = True) -> BundleInfo:
    """What is in the bundle at `folder`; see `inspect_path`."""
    bundle = Bundle.open(folder, check_hashes=check_hashes)
    manifest = bundle.manifest
    return BundleInfo(
        path=folder,
        model=manifest.model,
        embedding_space=manifest.embedding_space,
        provenance=manifest.provenance,
        tools=manifest.tools,
        files=manifest.files,
        precisions={tower.value: tuple(p.value for p in bundle.precisions(tower)) for tower in Tower},
        parity=_parity(bundle),
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
    )


def _parity(bundle: Bundle) -> ParitySummary | None:
    if PARITY_JSON not in bundle.manifest.files:
        return None
    path = bundle.path(PARITY_JSON)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return ParitySummary(
            **{name: report[name] for name in _PARITY_FIELDS},
            measured={s["name"]: {c["name"]: c["value"] for c in s["checks"]} for s in report["stages"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BundleCorruptError(f"{path} is no parity report: {error!r}", fix="export the checkpoint again") from error


def inspect_graph(path: Path) -> GraphInfo:
    """What is in the ONNX file at `path`; see `inspect_path`. Weights in other files are not read."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file", fix="check the path of the graph")
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", extra="export", needed_for="inspecting a graph") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path} is no ONNX graph: {error}", fix="copy or export the graph again") from error
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{path} is no ONNX graph: it has no nodes and no outputs", fix="copy or export it again")
    nodes: Counter[str] = Counter()
    tensors: list[Any] = []
    _walk(model.graph, nodes, tensors)
    for function in model.functions:
        nodes.update(node.op_type for node in function.node)
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        dtype, bits = _dtype(tensor.data_type)
        sizes[dtype] += math.ceil(math.prod(tensor.dims) * bits / 8)
    constants = {tensor.name for tensor in model.graph.initializer}
    return GraphInfo(
        path=path,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        inputs=tuple(_tensor_spec(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_tensor_spec(value) for value in model.graph.output),
        nodes=dict(nodes.most_common()),
        initializers=len(tensors),
        initializer_bytes=dict(sizes.most_common()),
        external=tuple(sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})),
        size_bytes=path.stat().st_size,
    )


def _walk(graph: Any, nodes: Counter[str], tensors: list[Any]) -> None:
    """Collect operators and constant tensors of a graph and of the graphs inside it."""
    tensors.extend(graph.initializer)
    for node in graph.node:
        nodes[node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"] += 1
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
                _walk(inner, nodes, tensors)


def _dtype(data_type: int) -> tuple[str, int]:
    """Name and bits of an ONNX element type, such as `("float16", 16)` or `("float8e4m3fn", 8)`."""
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type).lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    digits = re.search(r"\d+", name)
    return name, int(digits[0]) if digits else {"bool": 8}.get(name, 0)


def _tensor_spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in tensor.shape.dim)
    return TensorSpec(value.name, _dtype(tensor.elem_type)[0], shape)
