"""What the imagined TensorRT of `fake_tensorrt.py` does, one method a member: `Builder_create_network` and so on.

An engine is a header, with what was asked of the builder, and the ONNX file with its weights; a stripped one has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from tests.engine.api import Api
from tests.fake_gpu import FakeCuda

MAGIC = b"imagined engine\n"
DTYPES = {1: "FLOAT", 10: "HALF", 16: "BF16", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8", 17: "FP8"}
SPELT = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}
SPELT |= {"BOOL": "Bool", "UINT8": "UInt8", "FP8": "FP8"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64}
PRODUCTS = ("MatMul", "Gemm", "Conv")
OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
PHASES = (("Building engine", None, 2), ("Computing profile costs", "Building engine", 3))


class BuilderActs:
    """The builder of one version on one machine."""

    def __init__(self, api: Api, new: Callable[..., Any], classes: dict[str, Any], cuda: FakeCuda | None) -> None:
        self.api, self.new, self.classes, self.cuda = api, new, classes, cuda
        self.major = int(api.version.split(".")[0])

    def knows(self, label: str) -> bool:
        return hasattr(self, label.replace(".", "_"))

    def act(self, label: str, this: Any, values: dict[str, Any]) -> Any:
        act = getattr(self, label.replace(".__init__", ".init").replace(".", "_"), None)
        if act is None:
            if label.endswith("__init__"):
                this._state.update(values)
                return None
            raise NotImplementedError(f"the imagined TensorRT does not act out {label}")
        return act(this, **values)

    # what Python itself adds

    @staticmethod
    def volume(iterable: Any) -> int:
        return int(np.prod([int(size) for size in iterable]))

    def nptype(self, trt_type: Any) -> Any:
        if trt_type.name in NUMPY:
            return NUMPY[trt_type.name]
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")

    def DataType_itemsize(self, this: Any) -> int:
        return int(np.dtype(NUMPY[this.name]).itemsize)

    def Dims_init(self, this: Any, **values: Any) -> None:
        this._state["sizes"] = tuple(values.get("shape") or ())

    def Dims___len__(self, this: Any, args: Any) -> int:
        return len(this._state["sizes"])

    def Dims___getitem__(self, this: Any, args: Any) -> int:
        return int(this._state["sizes"][args[0]])

    def dims(self, sizes: Any) -> Any:
        return self.new("Dims", sizes=tuple(int(size) for size in sizes))

    def say(self, logger: Any, severity: str, text: str) -> None:
        logger.log(self.classes["ILogger.Severity"][severity], text)

    # Logger

    def Logger_log(self, this: Any, severity: Any, msg: str) -> None:
        this._state.setdefault("lines", []).append((severity.name, msg))

    # Builder

    def Builder_init(self, this: Any, logger: Any) -> None:
        if self.cuda is None and not self.api.rtx:
            self.say(logger, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        this._state["logger"] = logger

    def Builder_create_network(self, this: Any, flags: int) -> Any:
        bit = self.classes["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"].value
        strong = self.major >= 11 or self.api.rtx or bool(flags >> bit & 1)
        return self.new("INetworkDefinition", strong=strong, model=None, logger=this._state["logger"], name="")

    def Builder_create_builder_config(self, this: Any) -> Any:
        made = self.new("IBuilderConfig", profiles=[], pools={}, logger=this._state["logger"], capabilities={})
        self.IBuilderConfig_set_flag(made, self.classes["BuilderFlag"].TF32)  # on by default, as documented
        return made

    def Builder_create_optimization_profile(self, this: Any) -> Any:
        return self.new("IOptimizationProfile", shapes={})

    def Builder_build_serialized_network(self, this: Any, network: Any, config: Any, **rest: Any) -> Any:
        logger, state = this._state["logger"], config._state
        model, profiles = network._state["model"], state["profiles"]
        monitor = state.get("progress_monitor")
        problem = _shape_problem(model, profiles) if network._state["strong"] else "the network is not strongly typed"
        if problem:
            self.say(logger, "ERROR", f"IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({problem})")
            return None
        if monitor is not None and not _ran(monitor):
            return None
        verbosity = state.get("profiling_verbosity")
        detailed = verbosity is not None and verbosity.name == "DETAILED"
        lines = list(self.layers(model, detailed))
        if lines and (detailed or self.major == 10):
            head = "Engine Layer Information:" if self.major == 10 else "Layers:"
            self.say(logger, "VERBOSE", "\n".join([head, *lines]))
        header = {
            "api": self.api.name,
            "version": self.api.version,
            "profiles": [[list(shape) for shape in shapes] for shapes in _only_input(model, profiles)],
            "flags": sorted(
                flag.name for flag in self.classes["BuilderFlag"] if state.get("flags", 0) >> flag.value & 1
            ),
            "level": state.get("builder_optimization_level"),
            "hardware": getattr(state.get("hardware_compatibility_level"), "name", "NONE"),
            "capabilities": [state["capabilities"][index].name for index in sorted(state["capabilities"])],
            "workspace": state["pools"].get("WORKSPACE"),
            "nodes": nodes_digest(model),
            "detailed": detailed,
        }
        stripped = "STRIP_PLAN" in header["flags"] or "WEIGHTLESS" in header["flags"]
        text = json.dumps({**header, "stripped": stripped}).encode()
        body = b"" if stripped else model.SerializeToString()
        return self.memory(MAGIC + len(text).to_bytes(4, "big") + text + body)

    def memory(self, content: bytes) -> Any:
        return self.new("IHostMemory", content, nbytes=len(content))

    def layers(self, model: Any, detailed: bool) -> Iterator[str]:
        types = types_of(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:
            kind = "gemm" if node.op_type in PRODUCTS else "kgen"
            name = node_name(node)
            into, outof = ([n for n in names if n] for names in (node.input, node.output))
            if self.major == 10:
                given = ", ".join(f"{n} ({types.get(n, 'Float')}[1])" for n in into if n not in constants)
                told = ", ".join(f"{n} ({types.get(n, 'Float')}[1])" for n in outof)
                yield f"Layer({kind}): {name}, Tactic: 0x0, {given} -> {told}"
                continue
            given, stored, told = (
                ", ".join(
                    f"{{ Name: {n}, Dimensions: [1], Datatype: {types.get(n, 'Float')}, Format: Linear }}" for n in part
                )
                for part in ([n for n in into if n not in constants], [n for n in into if n in constants], outof)
            )
            yield (
                f"Name: {name}, LayerType: {kind}, Inputs: [{given}], Constants: [{stored}], Outputs: [{told}], "
                f"TacticName: none, StreamId: 0, Metadata: [ONNX Layer: {name}]"
            )

    # INetworkDefinition and what it holds

    def _tensor(self, value: Any) -> Any:
        dtype = self.classes["DataType"][DTYPES[value.type.tensor_type.elem_type]]
        return self.new("ITensor", name=value.name, shape=self.dims(sizes_of(value)), dtype=dtype)

    def INetworkDefinition_num_inputs(self, this: Any) -> int:
        return len(inputs_of(this._state["model"])) if this._state["model"] else 0

    def INetworkDefinition_num_outputs(self, this: Any) -> int:
        return len(this._state["model"].graph.output) if this._state["model"] else 0

    def INetworkDefinition_num_layers(self, this: Any) -> int:
        return len(this._state["model"].graph.node) if this._state["model"] else 0

    def INetworkDefinition_get_input(self, this: Any, index: int) -> Any:
        return self._tensor(inputs_of(this._state["model"])[index])

    def INetworkDefinition_get_output(self, this: Any, index: int) -> Any:
        return self._tensor(this._state["model"].graph.output[index])

    # OnnxParser

    def OnnxParser_init(self, this: Any, network: Any, logger: Any) -> None:
        this._state.update(network=network, logger=logger, errors=[])

    def OnnxParser_num_errors(self, this: Any) -> int:
        return len(this._state["errors"])

    def OnnxParser_get_error(self, this: Any, index: int) -> Any:
        return this._state["errors"][index]

    def OnnxParser_parse_from_file(self, this: Any, model: str) -> bool:
        errors = this._state["errors"]
        try:
            loaded = onnx.load(model)
            onnx.checker.check_model(loaded)
        except (DecodeError, onnx.checker.ValidationError) as error:
            unknown = _unknown(Path(model))
            if unknown is None:
                errors.append(self._error("MODEL_DESERIALIZE_FAILED", str(error), -1, "", ""))
                return False
            index, node = unknown
            text = "Plugin not found, are the plugin name, version, and namespace correct?"
            errors.append(self._error("UNSUPPORTED_NODE", text, index, node.name, node.op_type))
            return False
        this._state["network"]._state["model"] = loaded
        return True

    def _error(self, code: str, text: str, node: int, name: str, op: str) -> Any:
        told = {
            "code": self.classes["ErrorCode"][code],
            "desc": text,
            "node": node,
            "node_name": name,
            "node_operator": op,
        }
        return self.new("ParserError", told=told)

    def ParserError_code(self, this: Any) -> Any:
        return this._state["told"]["code"]

    def ParserError_desc(self, this: Any) -> Any:
        return this._state["told"]["desc"]

    def ParserError_node(self, this: Any) -> Any:
        return this._state["told"]["node"]

    def ParserError_node_name(self, this: Any) -> Any:
        return this._state["told"]["node_name"]

    def ParserError_node_operator(self, this: Any) -> Any:
        return this._state["told"]["node_operator"]

    # IBuilderConfig

    def IOptimizationProfile_set_shape(self, this: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        this._state["shapes"][input] = tuple(tuple(shape) for shape in (min, opt, max))

    def IBuilderConfig_add_optimization_profile(self, this: Any, profile: Any) -> int:
        this._state["profiles"].append(profile._state["shapes"])
        return len(this._state["profiles"]) - 1

    def IBuilderConfig_num_optimization_profiles(self, this: Any) -> int:
        return len(this._state["profiles"])

    def IBuilderConfig_set_flag(self, this: Any, flag: Any) -> None:
        this._state["flags"] = this._state.get("flags", 0) | 1 << flag.value

    def IBuilderConfig_get_flag(self, this: Any, flag: Any) -> bool:
        return bool(this._state.get("flags", 0) >> flag.value & 1)

    def IBuilderConfig_clear_flag(self, this: Any, flag: Any) -> None:
        this._state["flags"] = this._state.get("flags", 0) & ~(1 << flag.value)

    def IBuilderConfig_set_memory_pool_limit(self, this: Any, pool: Any, pool_size: int) -> None:
        this._state["pools"][pool.name] = pool_size

    def IBuilderConfig_set_compute_capability(self, this: Any, compute_capability: Any, index: int) -> bool:
        if not 0 <= index < this._state.get("num_compute_capabilities", 0):
            return False
        this._state["capabilities"][index] = compute_capability
        return True

    def IBuilderConfig_create_timing_cache(self, this: Any, serialized_timing_cache: Any) -> Any:
        content = bytes(memoryview(serialized_timing_cache))
        return self.new("ITimingCache", content=content or self._cache_head() + b"nothing\n")

    def IBuilderConfig_set_timing_cache(self, this: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and not cache._state["content"].startswith(self._cache_head()):
            return False
        cache._state["content"] += b"a kernel\n"
        this._state["cache"] = cache
        return True

    def IBuilderConfig_get_timing_cache(self, this: Any) -> Any:
        return this._state.get("cache")

    def ITimingCache_combine(self, this: Any, input_cache: Any, ignore_mismatch: bool) -> bool:
        return True

    def ITimingCache_serialize(self, this: Any) -> Any:
        return self.memory(this._state["content"])

    def _cache_head(self) -> bytes:
        return f"timing cache of {self.api.name}\n".encode()


def node_name(node: Any) -> str:
    """As the parser names it."""
    return node.name or f"node_of_{node.output[0]}"


def _ran(monitor: Any) -> bool:
    """Whether the monitor let the build go on to its end."""
    going = True
    for name, parent, steps in PHASES:
        monitor.phase_start(name, parent, steps)
        for step in range(steps):
            going = going and monitor.step_complete(name, step)
    for name, _, _ in reversed(PHASES):
        monitor.phase_finish(name)
    return going


def inputs_of(model: Any) -> list[Any]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def sizes_of(value: Any) -> list[int]:
    return [size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim]


def _only_input(model: Any, profiles: list[dict[str, Any]]) -> Iterator[Any]:
    (value,) = inputs_of(model)
    fixed = tuple(sizes_of(value))
    for shapes in profiles or [{}]:
        yield shapes.get(value.name, (fixed, fixed, fixed))


def _shape_problem(model: Any, profiles: list[dict[str, Any]]) -> str | None:
    for value in inputs_of(model):
        sizes = sizes_of(value)
        if -1 not in sizes:
            continue
        if not profiles:
            return f"network has dynamic inputs, but no optimization profile has been defined: {value.name}"
        for shapes in profiles:
            least, usual, most = shapes.get(value.name, ((), (), ()))
            ranks = all(len(shape) == len(sizes) for shape in (least, usual, most))
            if not ranks or not all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
                return f"the profile of {value.name} does not fit"
            if any(
                size not in (-1, low) or size not in (-1, high)
                for size, low, high in zip(sizes, least, most, strict=True)
            ):
                return f"static dimension mismatch of {value.name}"
    return None


def types_of(model: Any) -> dict[str, str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    found |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: SPELT.get(DTYPES.get(dtype, ""), "Float") for name, dtype in found.items()}


def nodes_digest(model: Any) -> str:
    text = "\n".join(f"{node.op_type} {node.name} {list(node.input)}" for node in model.graph.node)
    return hashlib.sha256(text.encode()).hexdigest()


def _unknown(path: Path) -> tuple[int, Any] | None:
    """The first node of no known operator, where the file can be read at all."""
    try:
        model = onnx.load(path)
    except DecodeError:
        return None
    found = ((i, node) for i, node in enumerate(model.graph.node) if node.domain or node.op_type not in OPERATORS)
    return next(found, None)
