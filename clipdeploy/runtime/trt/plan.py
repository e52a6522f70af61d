"""Engine files: read, checked, and given back the weights that they were built without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle, sha256_file
from clipdeploy.engine_key import ENGINES
from clipdeploy.errors import BackendError, BundleCorruptError
from clipdeploy.manifest import COPY_AGAIN
from clipdeploy.runtime.engines import VERSION_COMPATIBLE, EngineEntry
from clipdeploy.runtime.trt.cuda import Cuda, mebibytes
from clipdeploy.runtime.trt.product import NAMES, product_log

STRIPPED = "strip-weights"
"""Flag of the key of an engine whose weights are put back when it is loaded."""
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "out_of_memory", "memory allocation", "memoryallocation")


@dataclass(frozen=True)
class Loaded:
    """An engine in the GPU's memory.

    Attributes:
        module: the product's module.
        runtime: what loaded it; an engine does not outlive it.
        engine: its `ICudaEngine`.
        label: product, version and file, for people.
    """

    module: Any
    runtime: Any
    engine: Any
    label: str


def load_engine(bundle: Bundle, entry: EngineEntry, module: Any, cuda: Cuda, *, rebuild: str) -> Loaded:
    """An engine of a bundle into the GPU's memory.

    Args:
        bundle: opened.
        entry: an engine of it whose key fits this machine; see `choose_engine`.
        module: the product's.
        cuda: the GPU to load it on.
        rebuild: the command that builds it anew, for messages.

    Raises:
        BundleCorruptError: the file, or the graph that a stripped engine's weights come from, is not what was written.
        BackendError: the product refuses the file, or the GPU's memory does not suffice.
    """
    label = f"{NAMES[entry.key.backend]} {module.__version__}"
    log = product_log(module)
    log.lines.clear()
    with cuda.in_use():
        runtime = module.Runtime(log)
        if VERSION_COMPATIBLE in entry.key.flags:
            # Such an engine brings code that runs here, so let it be the one that was built.
            _check_unaltered(bundle, [f"{ENGINES}/{entry.name}/{entry.path.name}"])
            runtime.engine_host_code_allowed = True
        try:
            plan = read_plan(entry.path)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"cannot read the engine {entry.path}: {error}", fix=f"build it anew: {rebuild}"
            ) from error
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise _refusal(label, entry, cuda, said(log), rebuild)
        if STRIPPED in entry.key.flags:
            _refit(bundle, entry, engine, module, label)
    return Loaded(module, runtime, engine, label)


def read_plan(path: Path) -> NDArray[np.uint8]:
    """An engine file as the product reads it, never whole in memory; OSError or ValueError where it cannot be read."""
    return np.memmap(path, dtype=np.uint8, mode="r")


def said(log: Any) -> str:
    """The product's latest errors in a line."""
    lines = (line.splitlines()[0] for line in list(log.lines) if line)  # other threads may be writing to it
    return "; ".join(dict.fromkeys(lines)) or "it gave no reason"


def _refusal(label: str, entry: EngineEntry, cuda: Cuda, why: str, rebuild: str) -> BackendError:
    """The error for an engine that the product does not take."""
    if not any(mark in why.lower() for mark in _OUT_OF_MEMORY):
        return BackendError(f"{label} cannot load {entry.path}: {why}", fix=f"build it anew on this machine: {rebuild}")
    return BackendError(
        f"{label} cannot load {entry.path}: memory of {cuda.gpu.name} does not suffice for its "
        f"{mebibytes(entry.size_bytes)}; {cuda.free_memory()} ({why})",
        fix="close other programs on the GPU, or take an engine of fewer bits: --precision fp16 or int8",
    )


def _refit(bundle: Bundle, entry: EngineEntry, engine: Any, module: Any, label: str) -> None:
    """Give a stripped engine the weights of the bundle's graph, which must be the very one that it was built from."""
    log, graph = product_log(module), entry.graph
    _check_unaltered(bundle, [name for name in (graph, f"{graph}.data") if name in bundle.manifest.files])
    refitter = module.Refitter(engine, log)
    parser = module.OnnxParserRefitter(refitter, log)
    if parser.refit_from_file(str(bundle.path(graph))) and refitter.refit_cuda_engine():
        return
    why = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    if lacking := refitter.get_missing_weights():
        why.append(f"{len(lacking)} weights are missing, such as {lacking[0]}")
    raise BackendError(
        f"{label} cannot put the weights of {graph} back into {entry.path}: {'; '.join(why) or said(log)}",
        fix="build the engine without --strip-weights",
    )


def _check_unaltered(bundle: Bundle, names: Sequence[str]) -> None:
    """Raise BundleCorruptError unless the files are those that the manifest names."""
    for name in names:
        if sha256_file(bundle.path(name)) != bundle.manifest.files[name].sha256:
            raise BundleCorruptError(f"bundle {bundle.folder}: {name} is altered", fix=COPY_AGAIN)
