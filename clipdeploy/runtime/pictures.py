"""Pictures to embeddings: the checkpoint's own preprocessing and the image encoder, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.ahead import CropsAhead
from clipdeploy.runtime.arrays import as_host, is_on_gpu
from clipdeploy.runtime.batches import BATCH_SIZE, check_batch_size
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.framed import batch_of, pixels_of
from clipdeploy.runtime.image import ImageLike, ImageProcessor
from clipdeploy.runtime.many import EmbeddedBatch, Encode, Errors, check_errors, embed_all, embed_batches
from clipdeploy.runtime.session import DeviceArray, DeviceSession, Embeddings
from clipdeploy.spec import Tower

Frames = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""One camera frame or many, in the memory of the host; see `FrameSpec`."""


class Pictures:
    """The image side of a bundle. Safe to share between threads.

    Args:
        bundle: opened.
        encoders: which run its image encoder.
        workers: threads that open and crop pictures; None takes one a core.
    """

    def __init__(self, bundle: Bundle, encoders: Encoders, *, workers: int | None = None) -> None:
        self._encoders, self._columns = encoders, bundle.model.embed_dim
        self.processor = ImageProcessor(bundle.model.pixels, workers=workers)

    def encode(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings:
        """One picture or many -> (N, D) float32; see `Clip.encode_image`."""
        self._encoders.check_open()
        return embed_all(self._encode(batch_size), self.processor, images, color=color, batch_size=batch_size)

    def batches(
        self,
        images: Iterable[ImageLike],
        *,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        errors: Errors = "raise",
    ) -> Generator[EmbeddedBatch, None, None]:
        """Any number of pictures to batches of embeddings; see `Clip.encode_many`."""
        self._encoders.check_open()
        encode = self._encode(batch_size)
        return embed_batches(encode, self.processor, images, color=color, batch_size=batch_size, errors=errors)

    def ahead(self, *, color: str, batch_size: int, errors: Errors) -> tuple[CropsAhead, Encode]:
        """What `batches` is made of, for a source that is not iterable; the encoder is run by the caller."""
        self._encoders.check_open()
        check_errors(errors)
        return CropsAhead(self.processor, color=color, batch_size=batch_size), self._encode(batch_size)

    def encode_pixels(self, pixels: Any, batch_size: int = BATCH_SIZE) -> Embeddings | DeviceArray:
        """Pixels that are ready -> (N, D) float32, where they lie; see `Clip.encode_pixels`."""
        if is_on_gpu(pixels):
            check_batch_size(batch_size)
            return self._encoders.run_with(Tower.IMAGE, partial(_run_on_device, batch=pixels))
        name = self._encoders.chosen.bundle.model.image.input.name
        return self._encoders.run(Tower.IMAGE, as_host(pixels, name), batch_size)

    def encode_frames(
        self, frames: Any, *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings | DeviceArray:
        """Raw camera frames -> (N, D) float32, where they lie; see `Clip.encode_frames`."""
        check_batch_size(batch_size)
        self._encoders.check_open()
        given = batch_of(frames, color)
        if given is None:
            return np.empty((0, self._columns), np.float32)
        frame, batch = given
        if is_on_gpu(batch):
            return self._encoders.run_with(frame, partial(_run_on_device, batch=batch))
        return self._encoders.run(frame, batch, batch_size)

    def frame_pixels(self, frames: Frames, *, color: str = "rgb") -> NDArray[np.float32]:
        """Raw camera frames -> (N, 3, h, w) float32; see `Clip.frame_pixels`."""
        self._encoders.check_open()
        given = batch_of(frames, color)
        if given is None:
            raise ImageError("no frames given", fix="pass one or more")
        return self._encoders.run_with(given[0], partial(pixels_of, batch=given[1]))

    def close(self) -> None:
        """Give the threads back."""
        self.processor.close()

    def _encode(self, batch_size: int) -> partial[Embeddings]:
        return partial(self._encoders.run, Tower.IMAGE, batch_size=batch_size)


def _run_on_device(session: Any, batch: Any) -> DeviceArray:
    if not hasattr(session, "run_on_device"):
        raise InputError(
            f"{session.name} takes arrays in the memory of the host, got a {type(batch).__module__}."
            f"{type(batch).__qualname__} on a GPU",
            fix='copy it to the host, as array.cpu() of PyTorch does; or load with backend="tensorrt" or '
            '"tensorrt-rtx", which take arrays on their GPU',
        )
    return cast(DeviceSession, session).run_on_device(batch)
