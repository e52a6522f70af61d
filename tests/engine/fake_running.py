"""The running half of the imagined TensorRT: engines loaded, refitted, looked at and run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.engine.fake_acts import (
    DTYPES,
    MAGIC,
    NUMPY,
    PRODUCTS,
    BuilderActs,
    inputs_of,
    node_name,
    nodes_digest,
    sizes_of,
    types_of,
)


class Acts(BuilderActs):
    """All of one version on one machine."""

    # Runtime and ICudaEngine

    def Runtime_init(self, this: Any, logger: Any) -> None:
        this._state["logger"] = logger

    def Runtime_deserialize_cuda_engine(self, this: Any, **given: Any) -> Any:
        logger, content = this._state["logger"], bytes(memoryview(given["serialized_engine"]))
        if self.cuda is None:
            self.say(logger, "ERROR", "CUDA initialization failure with error: 35")
            return None
        if not content.startswith(MAGIC):
            self.say(
                logger,
                "ERROR",
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Magic tag does not match)",
            )
            return None
        start = len(MAGIC) + 4
        length = int.from_bytes(content[start - 4 : start], "big")
        header = json.loads(content[start : start + length])
        newer = "VERSION_COMPATIBLE" in header["flags"] and this._state.get("engine_host_code_allowed", False)
        if header["version"] != self.api.version and not newer:
            self.say(logger, "ERROR", "The engine plan file is not compatible with this version of TensorRT")
            return None
        body = content[start + length :]
        model = onnx.load_from_string(body) if body else None
        return self.new("ICudaEngine", header=header, model=model, logger=logger, shown=model)

    def _ports(self, engine: Any) -> tuple[Any, Any]:
        model = engine._state["model"]
        if model is None:
            raise RuntimeError("the engine has no weights")
        return inputs_of(model)[0], model.graph.output[0]

    def _port(self, engine: Any, name: str) -> Any:
        return next(port for port in self._ports(engine) if port.name == name)

    def ICudaEngine_num_io_tensors(self, this: Any) -> int:
        return len(self._ports(this))

    def ICudaEngine_num_optimization_profiles(self, this: Any) -> int:
        return len(this._state["header"]["profiles"])

    def ICudaEngine_num_layers(self, this: Any) -> int:
        return len(this._state["model"].graph.node)

    def ICudaEngine_device_memory_size_v2(self, this: Any) -> int:
        return 1 << 16

    def ICudaEngine_get_tensor_name(self, this: Any, index: int) -> str:
        return str(self._ports(this)[index].name)

    def ICudaEngine_get_tensor_mode(self, this: Any, name: str) -> Any:
        return self.classes["TensorIOMode"]["INPUT" if name == self._ports(this)[0].name else "OUTPUT"]

    def ICudaEngine_get_tensor_dtype(self, this: Any, name: str) -> Any:
        return self.classes["DataType"][DTYPES[self._port(this, name).type.tensor_type.elem_type]]

    def ICudaEngine_get_tensor_shape(self, this: Any, name: str) -> Any:
        return self.dims(sizes_of(self._port(this, name)))

    def ICudaEngine_get_tensor_profile_shape(self, this: Any, name: str, profile_index: int) -> list[Any]:
        assert name == self._ports(this)[0].name, "only an input has a profile"
        return [self.dims(shape) for shape in this._state["header"]["profiles"][profile_index]]

    def ICudaEngine_create_engine_inspector(self, this: Any) -> Any:
        return self.new("EngineInspector", engine=this)

    def EngineInspector_get_engine_information(self, this: Any, format: Any) -> str:
        model, header = this._state["engine"]._state["model"], this._state["engine"]._state["header"]
        if format.name == "ONELINE":
            return "\n".join(self.layers(model, True))
        if not header["detailed"]:
            return json.dumps({"Layers": [node_name(node) for node in model.graph.node]})
        types = types_of(model)
        context = this._state.get("execution_context")
        if context is None or not context._state["shapes"]:
            types = dict.fromkeys(types, "N/A due to dynamic shapes")
        key = "Datatype" if self.major >= 11 or self.api.rtx else "Format/Datatype"
        layers = [
            {
                "Name": node_name(node),
                "LayerType": "gemm" if node.op_type in PRODUCTS else "kgen",
                "Inputs": [{"Name": n, key: types.get(n, "Float")} for n in node.input if n],
                "Outputs": [{"Name": n, key: types.get(n, "Float")} for n in node.output if n],
                "Metadata": f"[ONNX Layer: {node_name(node)}]",
            }
            for node in model.graph.node
        ]
        return json.dumps({"Layers": layers})

    def ICudaEngine_create_execution_context(self, this: Any, **given: Any) -> Any:
        assert self.cuda is not None
        config = given.get("runtime_config")
        strategy = given.get("strategy") if config is None else config._state.get("strategy")
        own = getattr(strategy, "name", "STATIC") != "USER_MANAGED"
        scratch = self.ICudaEngine_device_memory_size_v2(this) if own else 0
        if self.cuda.used + scratch > self.cuda.total:
            self.say(this._state["logger"], "ERROR", "Requested amount of GPU memory could not be allocated")
            return None
        scratch = own or not self.ICudaEngine_device_memory_size_v2(this)
        return self.new(
            "IExecutionContext", owner=this, chosen=0, shapes={}, addresses={}, scratch=scratch, flushed=None
        )

    # IRuntimeConfig and IRuntimeCache

    def ICudaEngine_create_runtime_config(self, this: Any) -> Any:
        return self.new("IRuntimeConfig", engine=this)

    def IRuntimeConfig_set_execution_context_allocation_strategy(self, this: Any, strategy: Any) -> None:
        this._state["strategy"] = strategy

    def IRuntimeConfig_create_runtime_cache(self, this: Any) -> Any:
        return self.new("IRuntimeCache", kernels=b"")

    def IRuntimeConfig_set_runtime_cache(self, this: Any, cache: Any) -> bool:
        this._state["cache"] = cache
        return True

    def IRuntimeCache_deserialize(self, this: Any, blob: Any) -> bool:
        fits = bytes(memoryview(blob)).startswith(self.api.version.encode())
        if fits:
            this._state["kernels"] = bytes(memoryview(blob))[len(self.api.version) :]
        return fits

    def IRuntimeCache_serialize(self, this: Any) -> Any:
        return self.memory(self.api.version.encode() + this._state["kernels"])

    # IExecutionContext

    def IExecutionContext_set_optimization_profile_async(
        self, this: Any, profile_index: int, stream_handle: int
    ) -> bool:
        assert self.cuda is not None and stream_handle in self.cuda.queue
        this._state.update(chosen=profile_index, shapes={})
        return 0 <= profile_index < len(this._state["owner"]._state["header"]["profiles"])

    def IExecutionContext_set_input_shape(self, this: Any, name: str, shape: Any) -> bool:
        owner = this._state["owner"]
        least, _, most = owner._state["header"]["profiles"][this._state["chosen"]]
        inside = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        if not inside:
            self.say(owner._state["logger"], "ERROR", "IExecutionContext::setInputShape: Error Code 3: API Usage Error")
            return False
        this._state["shapes"][name] = tuple(shape)
        return True

    def IExecutionContext_get_tensor_shape(self, this: Any, name: str) -> Any:
        rows = next(iter(this._state["shapes"].values()))[0]
        return self.dims([rows, *sizes_of(self._port(this._state["owner"], name))[1:]])

    def IExecutionContext_set_tensor_address(self, this: Any, name: str, memory: int) -> bool:
        assert self.cuda is not None and memory in self.cuda.memory
        this._state["addresses"][name] = memory
        return True

    def IExecutionContext_set_device_memory(self, this: Any, memory: int, size: int) -> None:
        assert self.cuda is not None
        self.cuda.at(memory, size)
        this._state["scratch"] = True

    def IExecutionContext_is_stream_capturable(self, this: Any, stream: int) -> bool:
        return bool(this._state["shapes"])

    def IExecutionContext_execute_async_v3(self, this: Any, stream_handle: int) -> bool:
        cuda, state = self.cuda, this._state
        assert cuda is not None
        model = state["owner"]._state["model"]
        given, told = self._ports(state["owner"])
        assert state["scratch"], "without scratch memory"
        shape, addresses = state["shapes"][given.name], dict(state["addresses"])
        now = (state["chosen"], shape, addresses)
        stream = cuda.queue[stream_handle]
        if stream.capture is not None and state["flushed"] != now:
            stream.broken_capture = True
            self.say(
                state["owner"]._state["logger"], "ERROR", "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime"
            )
            return False
        state["flushed"] = now
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

        def compute() -> None:
            dtype = np.dtype(NUMPY[DTYPES[given.type.tensor_type.elem_type]])
            size = int(np.prod(shape)) * dtype.itemsize
            batch = cuda.at(addresses[given.name], size).view(dtype).reshape(shape)
            (answer,) = session.run([told.name], {given.name: batch})
            flat = np.ascontiguousarray(answer).view(np.uint8).ravel()
            cuda.at(addresses[told.name], flat.nbytes)[:] = flat

        return bool(cuda.give(stream_handle, compute)[0].value == 0)

    # refitting

    def Refitter_init(self, this: Any, engine: Any, logger: Any) -> None:
        this._state.update(engine=engine, logger=logger, model=None)

    def Refitter_refit_cuda_engine(self, this: Any) -> bool:
        model = this._state["model"]
        if model is None:
            return False
        this._state["engine"]._state["model"] = model
        return True

    def Refitter_get_missing_weights(self, this: Any) -> list[str]:
        return [] if this._state["model"] is not None else ["weights"]

    def OnnxParserRefitter_init(self, this: Any, refitter: Any, logger: Any) -> None:
        this._state.update(refitter=refitter, logger=logger)

    def OnnxParserRefitter_num_errors(self, this: Any) -> int:
        return 0

    def OnnxParserRefitter_refit_from_file(self, this: Any, model: str) -> bool:
        loaded, refitter = onnx.load(model), this._state["refitter"]
        if nodes_digest(loaded) != refitter._state["engine"]._state["header"]["nodes"]:
            return False
        refitter._state["model"] = loaded
        return True
