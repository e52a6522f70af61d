"""The layers of a built engine, from what the builder logs or the engine's inspector says.

Three forms are read. TensorRT for RTX logs one line a layer, `Name: ..., LayerType: ..., Inputs: [...]`, when it builds
an engine in detail. TensorRT since version 8 logs `Layer(Kind): name, Tactic: 0x0, in (Half[8,3]) -> out (Half[8,4])`.
Both have an inspector that answers in JSON, whose `Format/Datatype` became `Datatype` and `Format` in TensorRT 11
(https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/api/migration/tensorrt-10x-to-11x-IEngineInspector.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clipdeploy.engine.records import EngineLayer, EngineTensor
from clipdeploy.errors import EngineError

_BUILD_AGAIN = "build the engine again; if it stays so, this version of TensorRT writes what clipdeploy does not know"
_HEADERS = ("Layers:", "Engine Layer Information:")
_END = ("I/O Tensors:", "Bindings:", "Engine Metadata:")
_KEY = re.compile(r"([A-Z][A-Za-z/]*): ?")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_OLD = re.compile(
    r"Layer\((?P<kind>[^)]*)\): (?P<name>.*), Tactic: (?P<tactic>[^,]*), (?P<inputs>.*?) ?-> (?P<outputs>.*)"
)
_OLD_TENSOR = re.compile(r"(?P<name>\S.*?) ?[\[(](?P<dtype>[A-Z]\w*)[\[(][^\])]*[\])][\])](?:, |$)")
_DTYPES = (
    ("BFloat16", r"bf16|bfloat16"),
    ("Float", r"fp32|float32|float"),
    ("Half", r"fp16|float16|half"),
    ("FP8", r"fp8|fp8e4m3|e4m3|float8\w*"),
    ("FP4", r"fp4\w*"),
    ("Int4", r"int4"),
    ("UInt8", r"uint8"),
    ("Int8", r"int8"),
    ("Int32", r"int32"),
    ("Int64", r"int64"),
    ("Bool", r"bool"),
)
"""The engine's short name of a type, and how it is spelt in descriptions such as `Row major linear FP16 format`."""


def read_layers(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    """The layers that a builder logged, in the order of execution; none where it was not told to log them.

    Args:
        lines: of the log, or messages of several lines; what is about no layer is passed over.

    Raises:
        EngineError: a layer's line is cut off.
    """
    layers: list[EngineLayer] = []
    listed = False
    for line in (one for message in lines for one in message.splitlines() or [""]):
        text = line.strip()
        if text.endswith(_HEADERS):
            layers, listed = [], True  # a later list is the final one
        elif text.startswith(_END):
            listed = False
        elif line.startswith("Name: "):
            layers.append(_from_line(line))
        elif text.startswith("Layer("):
            layers.append(_from_old_line(text))
        elif listed and text and not text.startswith("["):
            layers.append(EngineLayer(text, "", (), ()))
        else:
            listed = listed and bool(text)
    return tuple(layers)


def read_inspector(text: str) -> tuple[EngineLayer, ...]:
    """The layers that an engine's inspector tells as JSON; names alone where the engine was not built in detail.

    Raises:
        EngineError: it is no answer of an inspector.
    """
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise EngineError(f"the engine's inspector did not answer in JSON: {error}", fix=_BUILD_AGAIN) from error
    layers = answer.get("Layers") if isinstance(answer, dict) else None
    if not isinstance(layers, list):
        raise EngineError("the engine's inspector told no layers: there is no list 'Layers'", fix=_BUILD_AGAIN)
    return tuple(_from_json(layer, number) for number, layer in enumerate(layers))


def short_dtype(description: str) -> str:
    """The engine's short name of a tensor's type, such as `Half`; empty where it does not tell.

    Engines with a dynamic batch say `N/A due to dynamic shapes` to an inspector without an execution context.
    """
    for name, spelt in _DTYPES:
        if re.search(rf"(?<![A-Za-z0-9])(?:{spelt})(?![A-Za-z0-9])", description, re.IGNORECASE):
            return name
    return ""


def _from_json(layer: Any, number: int) -> EngineLayer:
    if isinstance(layer, str):
        return EngineLayer(layer, "", (), ())
    name = layer.get("Name") if isinstance(layer, dict) else None
    if not isinstance(name, str):
        raise EngineError(f"layer {number} of the engine has no name: {str(layer)[:80]}", fix=_BUILD_AGAIN)
    constants = [*_tensors(layer, "Constants", name)]
    for role in ("Weights", "Bias"):
        stored = layer.get(role)
        if isinstance(stored, dict) and stored.get("Count"):
            constants.append(EngineTensor(role.lower(), short_dtype(str(stored.get("Type", "")))))
    return EngineLayer(
        name=name,
        kind=str(layer.get("LayerType", "")),
        inputs=tuple(_tensors(layer, "Inputs", name)),
        outputs=tuple(_tensors(layer, "Outputs", name)),
        nodes=_nodes(str(layer.get("Metadata", ""))),
        constants=tuple(constants),
        tactic=str(layer.get("TacticName", "")),
    )


def _tensors(layer: Mapping[str, Any], key: str, name: str) -> Iterator[EngineTensor]:
    tensors = layer.get(key) or []
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise EngineError(f"{key} of the engine's layer {name!r} is no list of tensors", fix=_BUILD_AGAIN)
    for tensor in tensors:
        yield _tensor({str(field): str(value) for field, value in tensor.items()})


def _tensor(fields: Mapping[str, str]) -> EngineTensor:
    described = fields.get("Datatype") or fields.get("Format/Datatype") or fields.get("DataType") or ""
    return EngineTensor(fields.get("Name", ""), short_dtype(described))


def _from_line(line: str) -> EngineLayer:
    fields = _fields(line)
    if "LayerType" not in fields or "Outputs" not in fields:
        raise EngineError(f"the builder's line about a layer is cut off: {line[:120]}", fix=_BUILD_AGAIN)
    return EngineLayer(
        name=fields["Name"],
        kind=fields["LayerType"],
        inputs=_listed(fields.get("Inputs", "")),
        outputs=_listed(fields["Outputs"]),
        nodes=_nodes(fields.get("Metadata", "")),
        constants=_listed(fields.get("Constants", "")),
        tactic=fields.get("TacticName", ""),
    )


def _from_old_line(line: str) -> EngineLayer:
    match = _OLD.fullmatch(line)
    if match is None:
        raise EngineError(f"the builder's line about a layer is cut off: {line[:120]}", fix=_BUILD_AGAIN)
    return EngineLayer(
        name=match["name"],
        kind=match["kind"],
        inputs=_old_tensors(match["inputs"]),
        outputs=_old_tensors(match["outputs"]),
        tactic=match["tactic"],
    )


def _old_tensors(text: str) -> tuple[EngineTensor, ...]:
    return tuple(EngineTensor(m["name"], short_dtype(m["dtype"])) for m in _OLD_TENSOR.finditer(text))


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_NODE.findall(metadata)))


def _listed(text: str) -> tuple[EngineTensor, ...]:
    """The tensors of `[ { Name: ..., Datatype: ... }, { ... }]`."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return tuple(_tensor(_fields(one.strip().removeprefix("{").removesuffix("}").strip())) for one in _split(inner))


def _fields(text: str) -> dict[str, str]:
    """The keys and values of `Key: value, Key: [ ... ], ...`; raises EngineError where a bracket stays open."""
    fields: dict[str, str] = {}
    key = ""
    for part in _split(text):
        match = _KEY.match(part)
        if match:
            key = match[1]
            fields[key] = part[match.end() :]
        elif key:
            fields[key] += f", {part}"  # a comma inside a value
    return fields


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that stand outside of all brackets."""
    depth = start = 0
    for at, char in enumerate(text):
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:at].strip()
            start = at + 1
    if depth > 0:
        raise EngineError(f"the builder's line about a layer is cut off: {text[:120]}", fix=_BUILD_AGAIN)
    if text[start:].strip():
        yield text[start:].strip()
