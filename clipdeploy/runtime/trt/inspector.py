"""What a built engine says of its own layers, on a machine that can load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipdeploy.errors import ClipdeployError
from clipdeploy.runtime.trt.plan import read_plan
from clipdeploy.runtime.trt.product import product_log

_NOT_TOLD = "N/A due to dynamic shapes"


def inspector_json(plan: Path, module: Any, *, host_code: bool = False) -> str | None:
    """The layers of an engine in JSON; None where it cannot be loaded here, or tells less than their types.

    Args:
        plan: the engine file, which must have its weights; its first profile is looked at.
        module: the product's.
        host_code: whether it brings code of its own that may run here, being a version-compatible engine.
    """
    log = product_log(module)
    log.lines.clear()
    try:
        runtime = module.Runtime(log)
        runtime.engine_host_code_allowed = host_code
        engine = runtime.deserialize_cuda_engine(read_plan(plan))
        told = None if engine is None else _told(engine, module)
    except (ClipdeployError, OSError, RuntimeError, TypeError, ValueError):  # the bindings' own, when CUDA fails
        return None
    return told if told is not None and _tells_types(told) else None


def _told(engine: Any, module: Any) -> str | None:
    # Of an engine with a free batch, types are told for shapes that a context holds; it computes nothing, so it needs
    # no memory of the GPU.
    context = engine.create_execution_context(module.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is None:
        return None
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT:
            shapes = engine.get_tensor_profile_shape(name, 0)
            context.set_input_shape(name, tuple(shapes[1]))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    return str(text) if text else None


def _tells_types(text: str) -> bool:
    """Whether it is more than the names, which are all there is of an engine that was not built in detail."""
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(layers, list) and bool(layers) and all(map(_is_layer, layers)) and _NOT_TOLD not in text


def _is_layer(layer: Any) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("Name"), str):
        return False
    tensors = [layer.get(role) or [] for role in ("Inputs", "Outputs", "Constants")]
    return all(isinstance(some, list) and all(isinstance(tensor, dict) for tensor in some) for some in tensors)
