"""Run a graph of others as it is: any number of inputs, any batch it takes, the embedding alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.ports import ImagePort, TextPort
from clipdeploy.runtime.ort import import_onnxruntime
from clipdeploy.spec import PixelSpec, TokenSpec

_NUMPY: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class ForeignGraph:
    """A graph file in ONNX Runtime on the CPU, read for some of its outputs.

    Args:
        path: the file, run as it is.
        outputs: which outputs to read.
        batch: how many samples it takes at a time, None for any number; may be changed.
        other_px: height and width of pictures that nobody feeds, where the graph leaves them open.

    Raises:
        CheckpointError: ONNX Runtime refuses the graph.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self, path: Path, outputs: list[str], batch: int | None, *, other_px: tuple[int, int] = (224, 224)
    ) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: they arrive as exceptions
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine's exceptions have no common base
            raise CheckpointError(
                f"onnxruntime {ort.__version__} cannot load {path}: {_first_line(error)}",
                fix="upgrade onnxruntime, or export the graph again with an older opset",
            ) from error
        self.batch = batch
        self._path, self._outputs, self._px = path, outputs, other_px
        self._inputs = {i.name: (_NUMPY.get(i.type, np.float32), list(i.shape)) for i in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for N samples; inputs that nobody feeds, those of the other tower, get ones.

        Raises:
            CheckpointError: the graph cannot be run.
        """
        count = len(next(iter(feeds.values())))
        step = self.batch or count
        parts = [self._once({n: a[i : i + step] for n, a in feeds.items()}) for i in range(0, count, step)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _once(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        rows = len(next(iter(feeds.values())))
        whole = {
            name: feeds[name].astype(dtype) if name in feeds else self._ones(name, shape).astype(dtype)
            for name, (dtype, shape) in self._inputs.items()
        }
        if self.batch and rows < self.batch:
            whole = {n: np.resize(a, (self.batch, *a.shape[1:])) if n in feeds else a for n, a in whole.items()}
        try:
            found = self._session.run(self._outputs, whole)
        except Exception as error:  # the engine's exceptions have no common base
            shapes = ", ".join(f"{n} {a.dtype} {a.shape}" for n, a in whole.items())
            raise CheckpointError(
                f"{self._path} cannot be run with {shapes}: {_first_line(error)}",
                fix="check --image-size and --context-length, or export the graph again",
            ) from error
        return [array[:rows] if self.batch else array for array in found]

    def _ones(self, name: str, shape: list[Any]) -> NDArray[Any]:
        sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
        if len(sizes) == 4:
            return np.ones([sizes[0] or 1, sizes[1] or 3, sizes[2] or self._px[0], sizes[3] or self._px[1]])
        return np.ones([size or (1 if axis == 0 else 8) for axis, size in enumerate(sizes)])


def image_feeds(port: ImagePort, pixels: NDArray[np.float32], spec: PixelSpec) -> dict[str, NDArray[Any]]:
    """Normalised `(N, 3, H, W)` pixels as the graph wants them: bytes where it normalises itself."""
    values: NDArray[Any] = pixels
    if port.port.dtype == "uint8":
        mean, std = (np.asarray(three, np.float64).reshape(1, 3, 1, 1) for three in (spec.mean, spec.std))
        values = np.rint((pixels * std + mean) * 255).astype(np.uint8)
    return {port.port.name: values.transpose(0, 2, 3, 1) if port.channels_last else values}


def text_feeds(port: TextPort, ids: NDArray[np.int64], spec: TokenSpec, *, masks: bool) -> dict[str, NDArray[Any]]:
    """Ids `(N, L)` and what the graph wants besides: computed here apart from what is built into the graph."""
    feeds: dict[str, NDArray[Any]] = {port.ids.name: ids}
    if port.mask is not None:
        feeds[port.mask.name] = _mask(ids, spec) if masks else np.ones_like(ids)
    if port.positions is not None:
        feeds[port.positions.name] = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
    if port.types is not None:
        feeds[port.types.name] = np.zeros_like(ids)
    return feeds


def _mask(ids: NDArray[np.int64], spec: TokenSpec) -> NDArray[np.int64]:
    """1 for a text's own ids, 0 for padding, as a tokenizer says it: the end token is the text's own once."""
    mask = np.ones_like(ids)
    for row, line in zip(mask, ids, strict=True):
        if spec.pad_id != spec.end_id:
            row[line == spec.pad_id] = 0
        elif (ends := np.flatnonzero(line == spec.end_id)).size:
            row[ends[0] + 1 :] = 0
    return mask


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
