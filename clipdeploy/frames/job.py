"""The stage: graphs for a camera's frames, checked and taken into a bundle, all or none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import __version__ as pillow_version

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import InputError, MissingExtraError, ParityError
from clipdeploy.frames.answers import answers_to
from clipdeploy.frames.records import FrameOutcome, FramesOutcome, FramesRequest
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.backends import ONNXRUNTIME, OPENVINO, choose_backend, open_session
from clipdeploy.runtime.resize import geometry
from clipdeploy.runtime.selftest.frames import PixelDrift, expected_pixels, pixel_drift, synthetic_frames
from clipdeploy.spec import FrameSpec, Precision, Tower

OLDEST_OPSET = 13
_OPSET = 19
# Pillow resizes slivers in ways of its own, and a crop of one shows nothing.
_LONGEST = 100


def add_frames(request: FramesRequest, *, progress: Progress = silent) -> FramesOutcome:
    """Add a graph for each kind of frames to a bundle; those that are there already stay.

    Each is held against the runtime's own preprocessing, on drawn frames, before any is taken in.

    Raises:
        InputError: no frames, or no such frames; the bundle is baked, or has no image encoder.
        MissingExtraError: onnx, or an engine to check with, is not installed.
        ParityError: a graph does not make the pixels that the runtime makes.
        BundleError: the bundle cannot be opened.
        OutputError: it cannot be written to.
    """
    started = time.perf_counter()
    frames = parse_frames(request.frames)
    bundle = Bundle.open(request.bundle, check_hashes=False)  # of what it holds, nothing is read but the manifest
    outcomes = add_to(bundle, frames, overwrite=request.overwrite, progress=progress)
    return FramesOutcome(request.bundle, outcomes, time.perf_counter() - started)


def add_to(
    bundle: Bundle, frames: Sequence[FrameSpec], *, overwrite: bool = False, progress: Progress = silent
) -> tuple[FrameOutcome, ...]:
    """`add_frames` for a bundle that is open, also one that is being made."""
    opset = opset_of(bundle)
    present = set() if overwrite else set(bundle.frames())
    missing = [frame for frame in frames if frame not in present]
    made: dict[FrameSpec, PixelDrift] = {}
    if missing:
        backend = checking_backend()
        with TemporaryDirectory() as scratch:
            files = []
            for index, frame in enumerate(missing):
                progress("frame graphs", index, len(missing))
                path = Path(scratch) / Path(frame.graph_name).name
                made[frame] = make_graph(bundle, frame, path, opset, backend)
                origin = f"frames, as Pillow {pillow_version} resizes"
                files.append(NewFile(frame.graph_name, path, "frame", origin, opset=opset, frame=frame))
            files += answers_to(bundle, missing, Path(scratch), backend)
            bundle.add_all(files, progress=progress)
            progress("frame graphs", len(missing), len(missing))
    return tuple(_outcome(bundle, frame, made.get(frame)) for frame in frames)


def parse_frames(frames: Sequence[FrameSpec | str]) -> tuple[FrameSpec, ...]:
    """Each kind of frames once; raises InputError where there are none, or one is no such thing."""
    if not frames:
        raise InputError("no frames given", fix="say which the camera gives: --frame 1920x1080:bgr")
    return tuple(dict.fromkeys(FrameSpec.parse(frame) for frame in frames))


def opset_of(bundle: Bundle) -> int:
    """The operator set of the image encoder, so that the two can be joined; raises InputError where there is none."""
    if bundle.manifest.baked is not None:
        raise InputError(
            f"bundle {bundle.folder} is baked: its image graph takes {bundle.model.image.input.name} "
            f"{bundle.model.image.input.shape} and nothing goes before it any more",
            fix="bake the bundle that it was made from again: clipdeploy bake BUNDLE --frame WIDTHxHEIGHT ...",
        )
    precisions = bundle.precisions(Tower.IMAGE)
    if not precisions:
        raise InputError(
            f"bundle {bundle.folder} has no image encoder, which frames go to",
            fix="use the bundle that this one was packed from",
        )
    precision = Precision.FP32 if Precision.FP32 in precisions else precisions[0]
    entries = bundle.manifest.files.values()
    known = [e.opset for e in entries if e.kind == "graph" and e.tower is Tower.IMAGE and e.precision is precision]
    return max(known[0] or _OPSET, OLDEST_OPSET)


def checking_backend() -> str:
    """What the new graphs are run with."""
    try:
        return choose_backend(ONNXRUNTIME).name
    except MissingExtraError as error:
        try:
            return choose_backend(OPENVINO).name
        except MissingExtraError:
            raise error from None


def make_graph(bundle: Bundle, frame: FrameSpec, path: Path, opset: int, backend: str) -> PixelDrift:
    """Write the graph of these frames, and hold it against the runtime's own preprocessing.

    Args:
        bundle: whose image encoder takes the pixels.
        frame: what the graph takes.
        path: of the file to write.
        opset: see `opset_of`.
        backend: what it is run with; see `checking_backend`.

    Raises:
        InputError: the frames are far longer and thinner than the model's pictures.
        ParityError: the graph does not make the pixels that the runtime makes.
        MissingExtraError: onnx is not installed.
    """
    spec = bundle.model
    _check_shape(frame, spec.pixels.height, spec.pixels.width)
    try:
        from onnx.helper import find_min_ir_version_for, make_opsetid

        from clipdeploy.frames.graph import frame_graph
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingExtraError("onnx", extra="frames", needed_for="writing a graph for frames") from error
    ir_version = find_min_ir_version_for([make_opsetid("", opset)])
    model = frame_graph(frame, spec.pixels, spec.image.input, opset=opset, ir_version=ir_version)
    path.write_bytes(model.SerializeToString(deterministic=True))
    session = open_session(path, backend=backend)
    try:
        drawn = synthetic_frames(frame)
        drift = pixel_drift(session.run(drawn), expected_pixels(drawn, frame, spec.pixels), spec.pixels)
    finally:
        session.close()
    if not drift.passed:
        raise ParityError(
            f"the graph for frames of {frame} does not make the pixels that the checkpoint wants, on {backend} with "
            f"Pillow {pillow_version}: {drift.told}; nothing was added",
            fix="encode these frames with encode_image; and report this, with both versions: it is a defect",
        )
    return drift


def _check_shape(frame: FrameSpec, height: int, width: int) -> None:
    """Raise InputError for frames far longer and thinner than the model's pictures."""
    stretch = frame.width / frame.height * height / width
    if max(stretch, 1 / stretch) > _LONGEST:
        raise InputError(
            f"frames of {frame} are too long and thin for the model's {width}x{height} px",
            fix="cut them first, and name the size of what is left",
        )


def _outcome(bundle: Bundle, frame: FrameSpec, drift: PixelDrift | None) -> FrameOutcome:
    place = geometry((frame.width, frame.height), bundle.model.pixels)
    return FrameOutcome(
        frame=frame,
        graph=frame.graph_name,
        built=drift is not None,
        size_bytes=bundle.manifest.files[frame.graph_name].size_bytes,
        resized=place.size,
        crop=place.crop,
        largest_levels=None if drift is None else drift.levels,
        share=None if drift is None else drift.share,
    )
