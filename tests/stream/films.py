"""Video files for tests, written by PyAV: pictures of the demo world, or patches of known colours."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.demo.video import video

MATRICES = {"bt709": (1, "ITU709"), "bt601": (6, "ITU601"), None: (2, "ITU601")}
"""What a stream says of its colours, by number, and the name that PyAV has for it."""
CAMERA = {"crf": "20", "preset": "veryfast", "tune": "zerolatency", "g": "10", "keyint_min": "10"}
"""As cameras encode: no B-frames, key frames often."""


def demo_frames(seconds: float = 2.0, fps: float = 15.0, size: tuple[int, int] = (160, 120)) -> list[NDArray[np.uint8]]:
    """Pictures of the demo world, (height, width, 3) RGB."""
    return [np.asarray(image) for image, _ in video(seconds=seconds, fps=fps, size=size, seed=3)]


def patches(size: tuple[int, int] = (160, 120), columns: int = 4, rows: int = 3) -> NDArray[np.uint8]:
    """Large patches of strong colours, whose middle no encoder blurs."""
    colours = np.random.default_rng(7).integers(0, 256, (rows, columns, 3), np.uint8)
    return np.repeat(np.repeat(colours, size[1] // rows, 0), size[0] // columns, 1)


def write_film(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: int = 15,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    matrix: str | None = None,
    encoded_as: str | None = None,
    times: list[int] | None = None,
) -> Path:
    """Encode RGB frames. `times` count in frames; `matrix` is what the stream says, and what is used where not told."""
    import av

    said, used = MATRICES[matrix][0], MATRICES[encoded_as or matrix][1]
    with av.open(str(path), "w", options=container or {}) as film:
        chosen = {"crf": "10", "preset": "ultrafast"} if options is None else options
        stream: Any = film.add_stream(codec, rate=fps, options=chosen)
        for number, array in enumerate(frames):
            if not number:
                stream.height, stream.width = array.shape[:2]
                stream.pix_fmt = pixels
                stream.codec_context.colorspace = said
            picture = av.VideoFrame.from_ndarray(array, format="rgb24")
            picture = picture.reformat(format=pixels, src_colorspace=used, dst_colorspace=used)
            picture.colorspace = said
            picture.pts = number if times is None else times[number]
            picture.time_base = Fraction(1, fps)
            film.mux(stream.encode(picture))
        film.mux(stream.encode())
    return path


def turn_film(path: Path, degrees: int) -> None:
    """Have an MP4 file say that it is to be shown turned clockwise by 90, 180 or 270 degrees."""
    one = 1 << 16
    turned = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, place)[0] == one
    a, b, c, d = turned
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
