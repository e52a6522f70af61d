"""The tensors of a TorchScript archive (as OpenAI published its CLIPs), read without running its program.

`torch.jit.load` runs code from the file. An archive is a zip of raw tensors and a pickle that says which tensor
is which attribute of which module; that pickle is read here by an unpickler that knows tensors and nothing else.
"""

from __future__ import annotations

import math
import mmap
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from clipdeploy.errors import CheckpointError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_ENCRYPTED = 1  # of a zip entry's flags

_DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError),
    *(KeyError, IndexError, ValueError, TypeError, AttributeError),
)


class _Module:
    """Stands for any class of the archive's program: it keeps attributes and does nothing."""


class _DType(str):
    """Name of a storage class, in the place of the class."""


def is_torchscript(path: Path) -> bool:
    """Whether `path` is a TorchScript archive (its zip carries a program besides the tensors)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a TorchScript archive; raises CheckpointError where it is not what it should be."""
    try:
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].split("/", 1)[0]
            with archive.open(f"{top}/data.pkl") as stream, path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                module = _Reader(stream, archive, top, content).load()
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} is a TorchScript archive that cannot be read safely: {error}",
            fix="download the file again, or save its state dict as .safetensors where you trust it",
        ) from error
    state: dict[str, torch.Tensor] = {}
    _collect(module, "", state)
    return state


class _Reader(pickle.Unpickler):
    """Builds tensors and empty modules; any other class or function is refused."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, top: str, content: mmap.mmap) -> None:
        super().__init__(stream)
        self._archive, self._top, self._content = archive, top, content

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DType(name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, storage, key, _device, count = pid
        if kind != "storage" or not isinstance(storage, _DType) or count == 0:
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return self._values(f"{self._top}/data/{key}", _DTYPES[storage], count)

    def _values(self, name: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        """`count` values of an entry of the archive: mapped from the file where they stand there as they are."""
        entry = self._archive.getinfo(name)
        if count * dtype.itemsize > entry.file_size:
            raise pickle.UnpicklingError(f"{name} has {entry.file_size} bytes, too few for {count} values")
        # An entry's own header: 30 bytes, of which the last four say how long the name and the extra field behind are.
        lengths = struct.unpack_from("<HH", self._content, entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(lengths)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED or start % dtype.itemsize:
            return torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype, count=count)
        if zlib.crc32(memoryview(self._content)[start : start + entry.file_size]) != entry.CRC:
            raise pickle.UnpicklingError(f"{name} is damaged: its checksum is another")
        return torch.frombuffer(self._content, dtype=dtype, count=count, offset=start)


def _rebuild(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) == 0 or offset < 0 or min(stride, default=0) < 0 or last >= storage.numel():
        raise pickle.UnpicklingError(f"a tensor of shape {size} lies outside its {storage.numel()} stored values")
    return storage.as_strided(size, stride, offset)


def _collect(module: Any, prefix: str, state: dict[str, torch.Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", state)
