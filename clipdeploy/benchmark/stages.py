"""One picture from its file to its labels, stage by stage."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.classifier import LabelSet
from clipdeploy.runtime.image import open_image

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip
    from clipdeploy.runtime.trt.cuda import Cuda

T = TypeVar("T")
Timed = Callable[[Callable[[], object], float], list[float]]
"""Times a call for so many seconds: ms of each."""

LABELS = 10
"""Labels that a picture is compared with; what they say changes no time."""
_PICTURES = 2
_RECORDED = 5
"""Runs before what is measured on a GPU: an engine records its kernels in the first few."""

HOW = (
    "decode, resize, normalise, encoder and similarity are timed one by one, in the thread that asks. An encoder on "
    "the CPU, and one of onnxruntime or openvino on a GPU, is timed from array to array, copies and all. Of an engine "
    "of TensorRT the encoder is timed from the GPU's memory to the GPU's memory, copy out is its answer copied to an "
    "array, and copy in what a run from array to array takes beyond the two."
)


def time_stages(clip: Clip, pictures: Sequence[Path], timed: Timed, seconds: float) -> dict[str, list[float]]:
    """Calls of each stage in ms, by the names of `STAGES`; copies only where the engine says where it computes.

    Args:
        clip: opened for single pictures, with an image encoder.
        pictures: files; the first few take turns.
        timed: what times a stage.
        seconds: for all stages together.
    """
    files = pictures[:_PICTURES]
    opened = [open_image(file) for file in files]
    crops = [clip.images.crop(picture)[None] for picture in opened]
    pixels = [clip.images.normalize(crop) for crop in crops]
    embeds = [clip.encode_pixels(each_pixels) for each_pixels in pixels]
    labels = some_labels(clip)
    before: dict[str, Callable[[], object]] = {
        "decode": each(open_image, files),
        "resize": each(clip.images.crop, opened),
        "normalise": each(clip.images.normalize, crops),
    }
    share = seconds / (len(before) + 2)
    taken = {name: timed(call, share) for name, call in before.items()}
    if clip.chosen.engines is not None:
        taken |= _on_device(clip, pixels[0], share)
    else:
        taken["encoder"] = timed(each(clip.encode_pixels, pixels), share)
    taken["similarity"] = timed(each(lambda rows: labels.answers(rows, None), embeds), share)
    return taken


def file_to_label(clip: Clip) -> Callable[[Path], object]:
    """A picture's file to its labels, as `Clip.classify` does it with labels that it knows."""
    labels = some_labels(clip)
    return lambda picture: labels.answers(clip.encode_image(picture), None)


def some_labels(clip: Clip) -> LabelSet:
    """Labels of the model's width; drawn, since a bundle may have no text encoder."""
    rows = np.random.default_rng(0).standard_normal((LABELS, clip.spec.embed_dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return LabelSet.made(tuple(f"label {number}" for number in range(LABELS)), ("{}",), rows, clip.spec)


def each(call: Callable[[T], object], items: Sequence[T]) -> Callable[[], object]:
    """A call that takes the items in turn."""
    turn = itertools.cycle(items)
    return lambda: call(next(turn))


def _on_device(clip: Clip, pixels: NDArray[np.float32], seconds: float) -> dict[str, list[float]]:
    """Copies and encoder apart; each run from array to array stands beside one that stays on the GPU."""
    from clipdeploy.runtime.backends import engine_backend
    from clipdeploy.runtime.trt.cuda import Cuda
    from clipdeploy.runtime.trt.product import import_cuda

    product = engine_backend(clip.backend.name)
    assert product is not None
    there = OnGpu(Cuda(import_cuda(product)), pixels)
    taken: dict[str, list[float]] = {"copy in": [], "encoder": [], "copy out": []}
    try:
        ends = None
        for run in itertools.count():
            if run == _RECORDED:
                taken = {name: [] for name in taken}
                ends = time.perf_counter() + seconds
            elif ends is not None and time.perf_counter() >= ends:
                return taken
            for name, ms in _parts(clip, pixels, there).items():
                taken[name].append(ms)
    finally:
        there.close()
    raise AssertionError("never comes here")


def _parts(clip: Clip, pixels: NDArray[np.float32], there: Any) -> dict[str, float]:
    """One run of each kind, in ms."""
    marks = [time.perf_counter()]
    clip.encode_pixels(pixels)
    marks.append(time.perf_counter())
    answer: Any = clip.encode_pixels(there)
    answer.wait()
    marks.append(time.perf_counter())
    answer.numpy()
    marks.append(time.perf_counter())
    whole, encoder, back = (float(ms) for ms in np.diff(marks) * 1e3)
    return {"copy in": max(0.0, whole - encoder - back), "encoder": encoder, "copy out": back}


class OnGpu:
    """An array in the GPU's memory, shown as other libraries show theirs."""

    def __init__(self, cuda: Cuda, array: NDArray[np.float32]) -> None:
        self._cuda, self._shape, self._typestr = cuda, array.shape, array.dtype.str
        self._address = cuda.allocate(array.nbytes, "pixels to measure with", clear=False)
        stream = cuda.new_stream()
        try:
            cuda.upload(array.ctypes.data, self._address, array.nbytes, stream)
            cuda.wait(stream)
        finally:
            cuda.destroy_stream(stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3."""
        return {
            "shape": self._shape,
            "typestr": self._typestr,
            "data": (self._address, False),
            "strides": None,
            "version": 3,
        }

    def close(self) -> None:
        """Give the memory back."""
        self._cuda.free(self._address)
