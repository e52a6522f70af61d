"""The golden pictures as camera frames, and what the float32 graph answered to them: what frame engines are held to."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError
from clipdeploy.runtime.resize import geometry
from clipdeploy.runtime.selftest.frames import expected_pixels
from clipdeploy.runtime.selftest.golden import array_sha256, read_samples
from clipdeploy.spec import FrameSpec, PixelSpec


def answers_name(frame: FrameSpec) -> str:
    """Name of the file with the answers, such as `golden/frames_1920x1080-bgr.npz`."""
    return f"golden/frames_{frame.width}x{frame.height}-{frame.color}.npz"


def has_answers(bundle: Bundle, frame: FrameSpec) -> bool:
    """Whether answers to these frames were recorded."""
    return answers_name(frame) in bundle.manifest.files


def golden_frames(crops: NDArray[np.uint8], frame: FrameSpec, spec: PixelSpec) -> NDArray[np.uint8]:
    """Frames (K, ...) uint8 whose crop shows golden pictures (K, h, w, 3), with their edges drawn out beyond it.

    By nearest neighbour in whole numbers, so that every machine makes the same frames.
    """
    place = geometry((frame.width, frame.height), spec)
    rows = _nearest(frame.height, place.size[1], place.crop[1], spec.height)
    columns = _nearest(frame.width, place.size[0], place.crop[0], spec.width)
    frames = np.empty((len(crops), *frame.shape), np.uint8)
    for each, crop in zip(frames, crops, strict=True):
        picture = crop[rows][:, columns]
        if frame.color == "nv12":
            _to_nv12(picture, each)
        else:
            each[:] = picture if frame.color == "rgb" else picture[:, :, ::-1]
    return frames


def make_answers(
    bundle: Bundle, frame: FrameSpec, encode: Callable[[NDArray[np.float32]], NDArray[np.float32]], target: Path
) -> None:
    """Write what the float32 graph answers to the golden pictures as these frames.

    Args:
        bundle: with golden samples.
        frame: which frames.
        encode: the bundle's image encoder in float32: (N, 3, h, w) -> (N, D).
        target: the file to write; its place in the bundle is `answers_name`, of kind `golden`.
    """
    frames = golden_frames(read_samples(bundle).crops, frame, bundle.model.pixels)
    embeds = [encode(expected_pixels(each[None], frame, bundle.model.pixels)) for each in frames]
    with target.open("wb") as file:
        np.savez(file, embeds=np.concatenate(embeds).astype(np.float32), frames_sha256=np.array(array_sha256(frames)))


def read_answers(bundle: Bundle, frame: FrameSpec, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `make_answers` wrote: (K, D) float32.

    Raises:
        BundleCorruptError: it cannot be read, or is of other frames.
    """
    name = answers_name(frame)
    again = f"make it again: clipdeploy frames {bundle.folder} --frame {frame} --overwrite"
    try:
        with bundle.path(name).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            embeds, sha256 = stored["embeds"], str(stored["frames_sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorruptError(f"bundle {bundle.folder}: {name} cannot be read: {error}", fix=again) from error
    if embeds.shape != (len(frames), bundle.model.embed_dim) or sha256 != array_sha256(frames):
        raise BundleCorruptError(f"bundle {bundle.folder}: {name} is of other frames", fix=again)
    answers: NDArray[np.float32] = embeds
    return answers


def _nearest(source: int, resized: int, start: int, count: int) -> NDArray[np.intp]:
    """For each of `source` pixels the one of a crop `start .. start + count` of `resized` that it shows."""
    place = (2 * np.arange(source, dtype=np.int64) + 1) * resized // (2 * source) - start
    return np.clip(place, 0, count - 1).astype(np.intp)


def _to_nv12(picture: NDArray[np.uint8], frame: NDArray[np.uint8]) -> None:
    """RGB to luma and chroma in whole numbers, within some levels: which colours these are matters to nobody."""
    red, green, blue = picture.astype(np.int32).transpose(2, 0, 1)
    height, width = red.shape
    frame[:height] = ((66 * red + 129 * green + 25 * blue + 128) >> 8) + 16
    red, green, blue = red[::2, ::2], green[::2, ::2], blue[::2, ::2]
    chroma = frame[height:].reshape(height // 2, width // 2, 2)
    chroma[..., 0] = ((-38 * red - 74 * green + 112 * blue + 128) >> 8) + 128
    chroma[..., 1] = ((112 * red - 94 * green - 18 * blue + 128) >> 8) + 128
