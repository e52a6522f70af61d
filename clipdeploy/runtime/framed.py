"""Camera frames to embeddings: the graph that makes pixels of raw frames, and the image encoder behind it."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError, BundleCorruptError, ImageError, InputError
from clipdeploy.runtime.arrays import as_host, is_on_gpu
from clipdeploy.runtime.backends import open_session
from clipdeploy.runtime.remembered import this_machines
from clipdeploy.runtime.selftest import self_test_engine, self_test_graph
from clipdeploy.runtime.session import Session, check_batch
from clipdeploy.spec import FrameColor, FrameSpec, Precision, TensorSpec

if TYPE_CHECKING:
    from clipdeploy.runtime.chosen import Chosen
    from clipdeploy.runtime.tensorrt import Engines

# Frames that go through their graph at once: what it makes on the way is far larger than what comes out, and no
# faster for more.
_AT_ONCE_BYTES = 8_000_000


class FramedSession:
    """A frame graph and the image encoder, one behind the other; a `Session` from raw frames to embeddings.

    Args:
        front: the frame graph: (N, ...) uint8 -> (N, 3, h, w) float32. Closed with this.
        tower: the image encoder, which belongs to another.
    """

    def __init__(self, front: Session, tower: Session) -> None:
        self._front, self._tower = front, tower
        self._rows = frames_at_once(front)
        self.name = tower.name
        self.input, self.output = front.input, tower.output
        self.largest_batch = tower.largest_batch

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_batch(batch, self.input)
        return self._tower.run(self.pixels(batch))

    def pixels(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the image encoder is given: (N, 3, h, w) float32."""
        return frame_pixels(self._front, batch, self._rows)

    def close(self) -> None:
        """See `Session.close`; the image encoder stays open."""
        self._front.close()


def pixels_of(session: Session, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels that an opened session for frames gives to the encoder; raises BackendError where it is one engine."""
    if not isinstance(session, FramedSession):
        raise BackendError(
            f"{session.name} makes embeddings of frames in one engine, and gives no pixels",
            fix='load with backend="onnxruntime" or "openvino" to see them',
        )
    check_batch(batch, session.input)
    return session.pixels(batch)


def frames_at_once(front: Session) -> int:
    """Frames that a frame graph had better be given in one run."""
    size = int(np.prod([int(axis) for axis in front.input.shape[1:]]))
    return max(1, min(_AT_ONCE_BYTES // size, front.largest_batch or _AT_ONCE_BYTES))


def frame_pixels(front: Session, batch: NDArray[np.uint8], rows: int) -> NDArray[np.float32]:
    """(N, ...) uint8 frames through their graph, `rows` at a time: (N, 3, h, w) float32."""
    if len(batch) <= rows:
        return front.run(np.ascontiguousarray(batch))
    pixels = np.empty((len(batch), *(int(axis) for axis in front.output.shape[1:])), np.float32)
    for start in range(0, len(batch), rows):
        pixels[start : start + rows] = front.run(np.ascontiguousarray(batch[start : start + rows]))
    return pixels


def open_frames(
    chosen: Chosen,
    frame: FrameSpec,
    tower: Callable[[], Session],
    *,
    threads: int | None = None,
    usual_batch: int = 1,
    self_test: bool = True,
) -> Session:
    """Load what makes embeddings of these frames, and test it before it serves.

    A frame graph's pixels are held against those of the runtime's own preprocessing; an engine's embeddings against
    those that were recorded with the frame graph.

    Args:
        chosen: what runs the bundle.
        frame: one that the bundle holds a graph for.
        tower: gives the image encoder, opened.
        threads: of one run; None leaves it to the engine.
        usual_batch: frames that one run usually has.
        self_test: whether to test it.

    Raises:
        InputError: the bundle holds no graph for these frames.
        EngineError: it holds no built engine for them that runs here.
        BackendError: the engine cannot load it, or it does not pass its test.
        BundleCorruptError: it is not what the manifest describes.
    """
    if chosen.engines is not None:
        return _open_engine(chosen, chosen.engines, frame, usual_batch=usual_batch, self_test=self_test)
    encoder = tower()
    front = open_front(chosen, frame, threads=threads, usual_batch=usual_batch)
    try:
        if self_test:
            rows = frames_at_once(front)
            self_test_graph(chosen, frame, lambda batch: frame_pixels(front, batch, rows), front.name, this_machines())
        return FramedSession(front, encoder)
    except BaseException:
        front.close()
        raise


def _open_engine(chosen: Chosen, engines: Engines, frame: FrameSpec, *, usual_batch: int, self_test: bool) -> Session:
    session = engines.open_frames(frame)
    try:
        _check_ports(
            session,
            (frame.tensor, chosen.bundle.model.image.output),
            f"bundle {chosen.bundle.folder}: the engine for frames of {frame}",
            "build it again: clipdeploy build-engine --overwrite",
        )
        if self_test:
            path = engines.framed[frame].path
            self_test_engine(chosen, frame, session, path, this_machines(), usual_batch=usual_batch)
    except BaseException:
        session.close()
        raise
    return session


def open_front(chosen: Chosen, frame: FrameSpec, *, threads: int | None = None, usual_batch: int = 1) -> Session:
    """Load the graph that makes pixels of these frames, in float32 whatever the encoder computes in.

    Raises:
        InputError, BackendError, BundleCorruptError: as `open_frames`.
    """
    path = chosen.bundle.frame_graph(frame)
    most = max(1, _AT_ONCE_BYTES // int(np.prod(frame.shape)))
    front = open_session(
        path,
        backend=chosen.backend.name,
        precision=Precision.FP32,
        threads=threads,
        usual_batch=min(usual_batch, most),
    )
    try:
        _check_ports(
            front,
            (frame.tensor, chosen.bundle.model.image.input),
            f"bundle {chosen.bundle.folder}: {frame.graph_name}",
            f"make it again: clipdeploy frames {chosen.bundle.folder} --frame {frame} --overwrite",
        )
    except BaseException:
        front.close()
        raise
    return front


def _check_ports(session: Session, expected: tuple[TensorSpec, TensorSpec], what: str, fix: str) -> None:
    """Raise BundleCorruptError unless a session takes and gives what is expected."""
    for given, said in zip((session.input, session.output), expected, strict=True):
        if (given.name, given.dtype, given.shape[1:]) != (said.name, said.dtype, said.shape[1:]):
            raise BundleCorruptError(f"{what} has {given}, expected {said}", fix=fix)


def batch_of(frames: Any, color: str) -> tuple[FrameSpec, Any] | None:
    """Raw frames as a batch, and what they are; None where a list has none.

    Args:
        frames: one frame or many: an array, also on a GPU, or a list of arrays of one shape.
        color: `rgb` or `bgr`: (H, W, 3) or (N, H, W, 3) uint8; or `nv12`: (H * 3 / 2, W) or (N, H * 3 / 2, W) uint8.

    Raises:
        InputError: no such colour.
        ImageError: these are no frames of it; says what is expected.
    """
    _check_color(color)
    if isinstance(frames, (list, tuple)):
        if not frames:
            return None
        frames = _stacked(frames, color)
    elif not is_on_gpu(frames):
        frames = as_host(frames, "frames")
    if not hasattr(frames, "shape") or not hasattr(frames, "dtype"):
        raise ImageError(
            f"frames are arrays of {_expected(color)} uint8, got {type(frames).__name__}",
            fix="pass numpy.asarray(frame); files and PIL images go to encode_image",
        )
    shape = tuple(int(axis) for axis in frames.shape)
    axes = 2 if color == "nv12" else 3
    if len(shape) == axes:
        frames, shape = frames[None], (1, *shape)
    _check(shape, frames.dtype, color)
    height = shape[1] * 2 // 3 if color == "nv12" else shape[1]
    return FrameSpec(shape[2], height, cast(FrameColor, color)), frames


def _check_color(color: str) -> None:
    colors = typing.get_args(FrameColor)
    if color not in colors:
        raise InputError(f"unknown colour order {color!r} of frames; expected one of {', '.join(colors)}")


def _stacked(frames: Sequence[Any], color: str) -> NDArray[Any]:
    """A list of frames as one array; a list of one is not copied."""
    arrays = [as_host(frame, f"frame {index}") for index, frame in enumerate(frames)]
    for index, frame in enumerate(arrays):
        if not isinstance(frame, np.ndarray):
            raise ImageError(f"frame {index} is no array of {_expected(color)} uint8, got {type(frame).__name__}")
        if (frame.shape, frame.dtype) != (arrays[0].shape, arrays[0].dtype):
            raise ImageError(
                f"frames of one call have one shape: frame 0 is {arrays[0].dtype} {arrays[0].shape}, "
                f"frame {index} is {frame.dtype} {frame.shape}",
                fix="encode them apart",
            )
    one: NDArray[Any] = arrays[0]
    return one[None] if len(arrays) == 1 else np.stack(arrays)


def _check(shape: tuple[int, ...], dtype: Any, color: str) -> None:
    """Raise ImageError unless an array of (N, ...) holds frames of this colour."""
    nv12 = color == "nv12"
    fix = None
    if "uint8" not in str(dtype) or "16" in str(dtype):
        fix = "pass frames as the camera gives them, values 0..255 as uint8; pixels ready for the model: encode_pixels"
    elif len(shape) != (3 if nv12 else 4):
        fix = f"pass {_expected(color)}, or several of them" + ("" if nv12 else '; color="nv12" takes (H * 3 / 2, W)')
    elif 0 in shape[1:]:
        fix = "pass a frame that has pixels; was the camera read successful?"
    elif nv12 and shape[1] % 3:
        fix = "an nv12 frame has H rows of luma and H / 2 of chroma below, as the decoder gives it without padding"
    elif not nv12 and shape[3] != 3:
        fix = "pass three channels, last: frame[..., :3]" if shape[3] == 4 else "channels come last: (H, W, 3)"
    if fix is not None:
        raise ImageError(f"{dtype} {shape} are no {color} frames: expected uint8 {_expected(color)}", fix=fix)


def _expected(color: str) -> str:
    return "(H * 3 / 2, W) or (N, H * 3 / 2, W)" if color == "nv12" else "(H, W, 3) or (N, H, W, 3)"
