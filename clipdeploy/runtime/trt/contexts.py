"""What runs an engine: its contexts, which bring no scratch memory of their own, so that several can share one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.errors import BackendError
from clipdeploy.runtime.trt.cuda import SMALLER, Cuda, mebibytes
from clipdeploy.runtime.trt.kernels import KernelCache
from clipdeploy.runtime.trt.plan import Loaded, said
from clipdeploy.runtime.trt.product import product_log


class Contexts:
    """Makes the contexts of one engine; may be asked by several threads at once.

    TensorRT for RTX compiles kernels when it meets a shape. It is made to do so before the first batch of that shape
    is answered, not beside the next ones: answers would change in their last digits when the new kernels take over.

    Args:
        loaded: the engine.
        cuda: the GPU that it is on.
        path: the engine's file, for messages.
        kernels: where TensorRT for RTX keeps compiled kernels; None keeps them for as long as the process lives.
    """

    def __init__(self, loaded: Loaded, cuda: Cuda, path: Path, kernels: Path | None) -> None:
        module = loaded.module
        self._loaded, self._cuda, self._path = loaded, cuda, path
        self.scratch_bytes = int(loaded.engine.device_memory_size_v2)
        self._runtime_config: Any = None
        self._kernels: KernelCache | None = None
        if hasattr(module, "IRuntimeCache"):
            runtime_config = loaded.engine.create_runtime_config()
            strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
            runtime_config.set_execution_context_allocation_strategy(strategy)
            eager = module.DynamicShapesKernelSpecializationStrategy.EAGER
            runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
            runtime_cache = runtime_config.create_runtime_cache()
            self._kernels = KernelCache(runtime_cache=runtime_cache, path=kernels)
            runtime_config.set_runtime_cache(runtime_cache)
            self._runtime_config = runtime_config

    def make(self, scratch: int) -> Any:
        """A context that works in the scratch memory at that address, of `scratch_bytes`.

        Raises:
            BackendError: what it needs besides does not fit into the GPU's memory.
        """
        loaded = self._loaded
        module, engine = loaded.module, loaded.engine
        log = product_log(module)
        log.lines.clear()
        if self._runtime_config is not None:
            context = engine.create_execution_context(self._runtime_config)
        else:
            context = engine.create_execution_context(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise BackendError(
                f"{loaded.label} cannot make {self._path} ready on {self._cuda.gpu.name}, which needs more than "
                f"{mebibytes(self.scratch_bytes)} for it; {self._cuda.free_memory()} ({said(log)})",
                fix=SMALLER,
            )
        if self.scratch_bytes:
            context.set_device_memory(scratch, self.scratch_bytes)
        return context

    def keep_kernels(self) -> None:
        """Keep what was compiled for shapes met up to now, where the product compiles at all."""
        if self._kernels is not None:
            self._kernels.keep()
