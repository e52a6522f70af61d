"""Which of a machine's GPUs engines are built for and run on: the one that CUDA uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import BackendError, EngineError
from clipdeploy.machine import Gpu, cuda_gpus
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.product import find_cuda


def gpu_of_cuda() -> tuple[str, str] | None:
    """Name and compute capability of the GPU that CUDA uses in this thread; None where CUDA cannot be asked."""
    api = find_cuda()
    if api is None:
        return None
    try:
        gpu = Cuda(api).gpu
    except (BackendError, RuntimeError):  # no driver, no GPU, or a cuda-python for a later CUDA than the product's own
        return None
    return gpu.name, gpu.compute_capability


def gpu_for_threads() -> Callable[[], AbstractContextManager[None]]:
    """What makes the GPU of the thread that asks that of another one, for a `with` block; nothing without CUDA.

    CUDA keeps the choice of a GPU for each thread, and a new thread begins with the first one.
    """
    api = find_cuda()
    if api is None:
        return nullcontext
    try:
        return Cuda(api).in_use
    except (BackendError, RuntimeError):
        return nullcontext


def gpu_by_environment(
    gpus: Sequence[Gpu], environment: Mapping[str, str], backend: EngineBackend
) -> tuple[str | None, str | None]:
    """Name and compute capability of the GPU that CUDA is going to use, as nvidia-smi and the environment tell.

    Raises:
        EngineError: there are several that differ, and nothing tells which.
    """
    may_be = dict.fromkeys((gpu.name, gpu.compute_capability) for gpu in cuda_gpus(gpus, environment))
    if len(may_be) > 1:
        listed = ", ".join(f"{gpu.name} ({gpu.uuid})" for gpu in gpus)
        raise EngineError(
            f"this machine has GPUs that differ, and it cannot be told which of them CUDA uses: {listed}",
            fix=f"set CUDA_VISIBLE_DEVICES={gpus[0].uuid or 'to the UUID of one'}, as nvidia-smi -L tells it, or "
            f"install cuda-python: pip install 'clipdeploy[{backend}]'",
        )
    return next(iter(may_be), (None, None))
