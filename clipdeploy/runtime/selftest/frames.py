"""Whether a frame graph, as it runs here, makes the pixels that the checkpoint's own preprocessing makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.runtime.fingerprint import fingerprint
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.remembered import Remembered
from clipdeploy.spec import FrameSpec, PixelSpec, to_dict

if TYPE_CHECKING:
    from clipdeploy.runtime.chosen import Chosen

KIND = "frame graph 1"
LARGEST_LEVELS, LARGEST_SHARE = 1.0, 1e-3
"""A frame graph computes in float32 what Pillow does in integers: one level of 255 apart, on fewer than one value in a
thousand."""
_A_LITTLE = 1e-2
"""Of a level: what float32 leaves of a normalised value. Below half a level they are the same."""
_SAMPLES = 2


@dataclass(frozen=True)
class PixelDrift:
    """Pixels of a frame graph against those of the runtime's own preprocessing.

    Attributes:
        levels: the largest difference, in levels of 255.
        share: of all values, those that differ.
        channel: where the largest is: red 0, green 1, blue 2.
        row: likewise, in px of the crop.
        column: likewise.
    """

    levels: float
    share: float
    channel: int
    row: int
    column: int

    @property
    def passed(self) -> bool:
        """Whether it is within one level on fewer than one value in a thousand."""
        return self.levels <= LARGEST_LEVELS and self.share < LARGEST_SHARE

    @property
    def told(self) -> str:
        """In words, for people."""
        where = f"{('red', 'green', 'blue')[self.channel]}, row {self.row}, column {self.column}"
        return (
            f"{self.levels:.2f} levels of 255 at most ({where}; at most {LARGEST_LEVELS:g}), on {self.share:.3%} of "
            f"the values (fewer than {LARGEST_SHARE:.1%})"
        )


def levels_apart(ours: NDArray[np.float32], expected: NDArray[np.float32], spec: PixelSpec) -> NDArray[np.float64]:
    """How far normalised pixels are apart, in levels of 255; what float32 itself rounds, some ten-thousandths, is 0."""
    level = 1 / (255 * np.asarray(spec.std, np.float64))[:, None, None]
    off: NDArray[np.float64] = np.abs(ours.astype(np.float64) - expected) / level
    off = np.where(np.abs(off - off.round()) < _A_LITTLE, off.round(), off)
    off[~np.isfinite(off)] = np.inf
    return off


def pixel_drift(ours: NDArray[np.float32], expected: NDArray[np.float32], spec: PixelSpec) -> PixelDrift:
    """Compare (N, 3, h, w) with (N, 3, h, w), both normalised; what is not a number is infinitely far."""
    off = levels_apart(ours, expected, spec)
    _, channel, row, column = np.unravel_index(int(off.argmax()), off.shape)
    return PixelDrift(float(off.max()), float((off > 0.5).mean()), int(channel), int(row), int(column))


def expected_pixels(frames: NDArray[np.uint8], frame: FrameSpec, spec: PixelSpec) -> NDArray[np.float32]:
    """What the runtime's own preprocessing makes of (N, ...) frames: (N, 3, h, w) float32."""
    processor = ImageProcessor(spec, workers=1)
    if frame.color == "nv12":
        from clipdeploy.runtime.nv12 import nv12_to_rgb

        return processor([nv12_to_rgb(each) for each in frames])
    return processor(list(frames), color=frame.color)


def synthetic_frames(frame: FrameSpec, count: int = _SAMPLES) -> NDArray[np.uint8]:
    """(count, ...) uint8: gradients, hard edges, fine noise, and values at both ends of the range; always the same."""
    noise = np.random.Generator(np.random.PCG64(20))
    frames = np.empty((count, *frame.shape), np.uint8)
    rows, columns = frame.shape[:2]
    for index, each in enumerate(frames):
        y = np.linspace(0, 5 + index, rows, dtype=np.float32)[:, None]
        x = np.linspace(0, 7 - index, columns, dtype=np.float32)[None]
        plane = np.sin(y * x + index) * 110 + 128  # 18..238, ever finer
        squares = ((np.arange(rows)[:, None] // 37 + np.arange(columns)[None] // 53 + index) % 4) == 0
        grain = noise.integers(-48, 49, each.shape, np.int16)
        for channel, values in enumerate(each.reshape(rows, columns, -1).transpose(2, 0, 1)):
            shifted = np.where(squares, 255 * ((channel + index) % 2), np.roll(plane, 31 * channel, axis=1))
            given = grain.reshape(rows, columns, -1)[..., channel]
            values[:] = np.clip(shifted + given, 0, 255).astype(np.uint8)
    return frames


def self_test_graph(
    chosen: Chosen,
    frame: FrameSpec,
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    name: str,
    store: Remembered,
) -> None:
    """Hold a frame graph, as it is loaded, against the runtime's own preprocessing, on synthetic frames.

    What is passed is remembered with all it depends on, and not run again until that changes.

    Args:
        chosen: what runs the bundle.
        frame: what the graph takes.
        run: the graph: (N, ...) uint8 -> (N, 3, h, w) float32.
        name: of engine and device.
        store: what is remembered.

    Raises:
        BackendError: its pixels are further off than a rounding; says by how much, and where.
    """
    spec, files = chosen.bundle.model.pixels, chosen.bundle.manifest.files
    key = {
        "here": fingerprint([chosen.backend.name]),
        "session": name,
        "graph": files[frame.graph_name].sha256,
        "pixels": to_dict(spec),
    }
    if store.get(KIND, key) is not None:
        return
    frames = synthetic_frames(frame)
    ours, expected = run(frames), expected_pixels(frames, frame, spec)
    if ours.shape != expected.shape:
        raise _refused(chosen, frame, name, f"gives pixels of shape {ours.shape}, expected {expected.shape}")
    drift = pixel_drift(ours, expected, spec)
    if not drift.passed:
        said = f"drifts from the checkpoint's preprocessing on synthetic frames: {drift.told}"
        raise _refused(chosen, frame, name, said)
    store.put(KIND, key, {"levels": drift.levels, "share": drift.share})


def _refused(chosen: Chosen, frame: FrameSpec, name: str, what: str) -> BackendError:
    command = f"clipdeploy verify {chosen.bundle.folder} --backend {chosen.backend.name}"
    return BackendError(
        f"the frame graph for {frame} on {name} does not pass its self-test: it {what}",
        fix=f"do not serve with it: load another backend, or use encode_image; {command} tells more, and "
        "self_test=False loads it all the same",
    )
