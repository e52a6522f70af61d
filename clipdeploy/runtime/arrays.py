"""Where an array lies, told without the library that made it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError

# kDLCPU and kDLCUDAHost; kDLCUDA and kDLCUDAManaged: the devices of the DLPack standard, dlpack.h
_HOST, _CUDA = (1, 3), (2, 13)


def is_on_gpu(array: object) -> bool:
    """Whether an array lies in the memory of an NVIDIA GPU: it offers DLPack or `__cuda_array_interface__`."""
    if isinstance(array, np.ndarray):
        return False
    where = _dlpack_device(array)
    return where in _CUDA if where is not None else hasattr(array, "__cuda_array_interface__")


def as_host(array: Any, name: str) -> NDArray[Any]:
    """An array in the memory of the host as numpy's, without a copy; what offers no DLPack comes back as it is.

    Raises:
        InputError: it lies on another device, or its library does not share it.
    """
    if isinstance(array, np.ndarray):
        return array
    where = _dlpack_device(array)
    if where is None:
        return array  # type: ignore[no-any-return]  # whoever takes it refuses it
    if where not in _HOST:
        raise InputError(
            f"{name} lies on a device that no backend reads (DLPack device {where})", fix="copy it to the host first"
        )
    try:
        shared: NDArray[Any] = np.from_dlpack(array)
    except Exception as error:  # each library has its own for what it does not share
        raise InputError(
            f"{name}, a {type(array).__module__}.{type(array).__qualname__}, cannot be shared: {error}",
            fix="pass a float32 array; of a PyTorch tensor: tensor.detach().float()",
        ) from error
    return shared


def _dlpack_device(array: object) -> int | None:
    """The kind of device that an array lies on, as DLPack numbers them; None for what offers no DLPack."""
    told = getattr(array, "__dlpack_device__", None)
    return None if told is None else int(told()[0])
