"""Frame graphs against Pillow: to the bit, whatever the frame, and for every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="frame graphs need: pip install 'clipdeploy[engine]'")

import onnx

from clipdeploy.frames.coefficients import blocks
from clipdeploy.runtime import resize
from clipdeploy.runtime.resize import COEFFICIENT_BITS, geometry
from clipdeploy.runtime.selftest.frames import pixel_drift
from clipdeploy.spec import FrameSpec, PixelSpec
from tests.bundles import pixel_spec
from tests.frames.frames import ENGINES, as_color, as_frame, expected, noise, opened, write_graph

CLIP = pixel_spec(224, 224)
SQUASH = pixel_spec(224, 224, resize="squash")

# Full HD and its kin, smaller than the model wants, portrait, odd, and as large as the model wants.
PACKED = [
    ("1920x1080:bgr", CLIP),
    ("1280x720:rgb", SQUASH),
    ("1280x720:bgr", pixel_spec(224, 224, interpolation="bilinear")),
    ("640x480:bgr", pixel_spec(336, 336)),
    ("640x480:rgb", pixel_spec(384, 384, resize="squash", interpolation="bilinear")),
    ("1080x1920:bgr", pixel_spec(224, 224, crop_rounding="floor")),
    ("333x777:rgb", CLIP),
    ("777x333:bgr", pixel_spec(224, 224, crop_rounding="floor")),
    ("481x641:rgb", pixel_spec(256, 128)),
    ("300x1280:bgr", SQUASH),
    ("224x224:rgb", CLIP),
    ("224x300:rgb", CLIP),
    ("448x448:bgr", pixel_spec(224, 224, interpolation="bilinear")),
    ("17x13:rgb", pixel_spec(32, 32)),
    ("1x1:bgr", pixel_spec(32, 32)),
]
NV12 = [
    ("1280x720:nv12", CLIP),
    ("640x480:nv12", pixel_spec(336, 336, interpolation="bilinear")),
    ("300x1280:nv12", SQUASH),
    ("2x2:nv12", pixel_spec(32, 32)),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("what", "pixels"), PACKED, ids=lambda value: str(value)[:14])
def test_noise_is_pillows_to_the_bit(what: str, pixels: PixelSpec, engine: str, tmp_path: Path) -> None:
    frame = FrameSpec.parse(what)
    frames = noise(frame)
    session = opened(write_graph(frame, pixels, tmp_path / "frame.onnx"), engine)
    drift = pixel_drift(session.run(frames), expected(frames, frame, pixels), pixels)
    assert drift.share == 0
    assert drift.levels < 1e-4  # what an engine makes of the divisions


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("what", "pixels"), NV12, ids=lambda value: str(value)[:14])
def test_nv12(what: str, pixels: PixelSpec, engine: str, tmp_path: Path) -> None:
    frame = FrameSpec.parse(what)
    frames = noise(frame)
    session = opened(write_graph(frame, pixels, tmp_path / "frame.onnx"), engine)
    drift = pixel_drift(session.run(frames), expected(frames, frame, pixels), pixels)
    assert drift.levels < 1.01
    assert drift.share < 1e-4


def test_normalised_as_the_runtime_does(tmp_path: Path) -> None:
    frame, frames = FrameSpec(640, 480, "bgr"), noise(FrameSpec(640, 480, "bgr"))
    session = opened(write_graph(frame, CLIP, tmp_path / "frame.onnx"), "onnxruntime")
    np.testing.assert_array_equal(session.run(frames), expected(frames, frame, CLIP))


def test_any_batch(tmp_path: Path) -> None:
    frame = FrameSpec(320, 240, "rgb")
    session = opened(write_graph(frame, CLIP, tmp_path / "frame.onnx"), "onnxruntime")
    frames = noise(frame, 3)
    together = session.run(frames)
    np.testing.assert_array_equal(together, np.concatenate([session.run(each[None]) for each in frames]))
    np.testing.assert_array_equal(together, expected(frames, frame, CLIP))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_edges_in_the_middle_of_a_pixel(interpolation: str, tmp_path: Path) -> None:
    """An edge halfway makes 127.5 of black and white, or nearly: the last digit of a coefficient decides, which a sum
    in float32 does not hold."""
    pixels = pixel_spec(224, 224, resize="squash", interpolation=interpolation)
    frame = FrameSpec(224 * 6, 224 * 6)
    stripes = (np.arange(frame.width) // 3 % 5 * 51).astype(np.uint8)  # 0, 51, 102, 153, 204: sums are odd
    frames = np.broadcast_to(stripes[None, None, :, None], (1, *frame.shape)).copy()
    frames[:, :, :, 1] = stripes[None, :, None]
    session = opened(write_graph(frame, pixels, tmp_path / "frame.onnx"), "onnxruntime")
    np.testing.assert_array_equal(session.run(frames), expected(frames, frame, pixels))


@pytest.mark.parametrize("height_first", [False, True])
@pytest.mark.parametrize("color", ["bgr", "nv12"])
def test_either_order_of_the_axes(
    height_first: bool, color: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which axis Pillow resizes first depends on its version; each order is a graph of its own."""
    monkeypatch.setattr("clipdeploy.frames.graph.height_first", lambda source, resized: height_first)
    frame = FrameSpec.parse(f"460x342:{color}")
    frames = noise(frame)
    session = opened(write_graph(frame, SQUASH, tmp_path / "frame.onnx"), "onnxruntime")
    ready = expected(frames, frame, pixel_spec(frame.height, frame.width))  # as it comes, normalised
    std, mean = (np.array(values)[:, None, None] for values in (SQUASH.std, SQUASH.mean))
    rgb = Image.fromarray(((ready[0] * std + mean) * 255).round().astype(np.uint8).transpose(1, 2, 0))
    between = (frame.width, 224) if height_first else (224, frame.height)
    passes = rgb.resize(between, Image.Resampling.BICUBIC).resize((224, 224), Image.Resampling.BICUBIC)
    wanted = ((np.asarray(passes).transpose(2, 0, 1) / 255 - mean) / std)[None].astype(np.float32)
    drift = pixel_drift(session.run(frames), wanted, SQUASH)
    assert drift.share <= (1e-4 if color == "nv12" else 0)


def test_the_orders_differ() -> None:
    """So that the test above can fail."""
    rgb = Image.fromarray(noise(FrameSpec(460, 342))[0])
    first = [rgb.resize(size, Image.Resampling.BICUBIC) for size in ((460, 224), (224, 342))]
    one, other = (np.asarray(each.resize((224, 224), Image.Resampling.BICUBIC)) for each in first)
    assert (one != other).mean() > 1e-2
    assert resize.height_first((460, 342), (224, 224)) in (True, False)


def test_what_tensorrt_takes(tmp_path: Path) -> None:
    """Operators that TensorRT 10.3 has, float32 after a Cast, a free batch, names that no tower has, and few bytes."""
    known = {"Add", "Cast", "Clip", "Concat", "Div", "Floor", "Gather", "MatMul", "Max", "Mul"}
    known |= {"Reshape", "Slice", "Sub", "Transpose"}
    for what in ("1920x1080:bgr", "1920x1080:nv12"):
        path = write_graph(FrameSpec.parse(what), CLIP, tmp_path / "frame.onnx")
        model = onnx.load(path)
        assert {node.op_type for node in model.graph.node} <= known
        assert all(name.startswith("frame_") for node in model.graph.node for name in node.output[:-1])
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert model.graph.input[0].name == "frame" and model.graph.output[0].name == "pixel_values"
        assert len(model.graph.node) < 140
        assert path.stat().st_size < 300_000


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize(("source", "resized"), [(1920, 398), (480, 336), (17, 224), (4096, 224), (224, 224)])
def test_coefficients_are_pillows(source: int, resized: int, resample: Image.Resampling) -> None:
    """One row of pixels through the blocks, in integers, is what Pillow makes of it; each factor has 11 digits."""
    axis = blocks(source, resized, 0, resized, resample)
    row = np.random.default_rng(0).integers(0, 256, source)
    parts = axis.weights.astype(np.float64) * (1 << COEFFICIENT_BITS)
    for part in (parts[:, : axis.size], parts[:, axis.size :]):
        whole_numbers = part[part != 0].astype(np.int64)
        np.testing.assert_array_equal(whole_numbers, part[part != 0])
        odd = np.abs(whole_numbers) // (whole_numbers & -whole_numbers)  # without the zeros at its end
        assert (odd < 1 << 11).all()
    whole = parts[:, : axis.size] + parts[:, axis.size :]
    windows = [row[axis.used[0] + at : axis.used[0] + at + axis.window] for at in axis.starts]
    sums = np.concatenate([one @ window for one, window in zip(whole, windows, strict=True)])[:resized]
    ours = np.clip((sums.astype(np.int64) + (1 << (COEFFICIENT_BITS - 1))) >> COEFFICIENT_BITS, 0, 255)
    picture = Image.fromarray(row[None].astype(np.uint8))
    np.testing.assert_array_equal(ours, np.asarray(picture.resize((resized, 1), resample))[0])


def test_sums_are_exact_in_float32() -> None:
    """The largest that a window of full HD can give, coarse and fine, fit into the 24 digits of float32."""
    place = geometry((1920, 1080), CLIP)
    for source, resized in zip((1920, 1080), place.size, strict=True):
        axis = blocks(source, resized, 0, resized, Image.Resampling.BICUBIC)
        sums = np.abs(axis.weights).sum(axis=2) * 255 * (1 << COEFFICIENT_BITS)
        assert sums[:, : axis.size].max() / (1 << 11) < 1 << 24
        assert sums[:, axis.size :].max() < 1 << 24


# What cameras give, and what they are scaled to.
PHOTOGRAPHED = [
    ("1920x1080:bgr", CLIP),
    ("1280x720:rgb", pixel_spec(224, 224, interpolation="bilinear", crop_rounding="floor")),
    ("640x480:bgr", pixel_spec(336, 336)),
    ("1080x1920:rgb", SQUASH),
    ("641x359:bgr", pixel_spec(224, 224, resize="squash", interpolation="bilinear")),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("what", "pixels"), PHOTOGRAPHED, ids=lambda value: str(value)[:14])
def test_photographs(what: str, pixels: PixelSpec, engine: str, photos: list[Path], tmp_path: Path) -> None:
    frame = FrameSpec.parse(what)
    session = opened(write_graph(frame, pixels, tmp_path / "frame.onnx"), engine)
    for photo in photos[:: max(1, len(photos) // 4)][:4]:
        frames = as_frame(photo, frame)[None]
        drift = pixel_drift(session.run(frames), expected(frames, frame, pixels), pixels)
        assert drift.share == 0, (photo, drift.told)


def test_photographs_in_nv12(photos: list[Path], tmp_path: Path) -> None:
    frame = FrameSpec(1920, 1080, "nv12")
    session = opened(write_graph(frame, CLIP, tmp_path / "frame.onnx"), "onnxruntime")
    for photo in photos[:: max(1, len(photos) // 4)][:4]:
        frames = as_frame(photo, frame)[None]
        drift = pixel_drift(session.run(frames), expected(frames, frame, CLIP), CLIP)
        assert drift.levels < 1.01 and drift.share < 1e-4, (photo, drift.told)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (34, 18), (2, 2)])
def test_nv12_is_converted_as_opencv_does(width: int, height: int) -> None:
    cv2 = pytest.importorskip("cv2")
    from clipdeploy.runtime.nv12 import nv12_to_rgb

    frame = noise(FrameSpec(width, height, "nv12"))[0]
    np.testing.assert_array_equal(nv12_to_rgb(frame), cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12))


def test_a_picture_through_nv12_stays_itself() -> None:
    """The test's own way to nv12, and back: plain colours keep within the roundings of the way."""
    from clipdeploy.runtime.nv12 import nv12_to_rgb

    frame = FrameSpec(16, 8, "nv12")
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)):
        rgb = np.full((frame.height, frame.width, 3), color, np.uint8)
        assert np.abs(nv12_to_rgb(as_color(rgb, frame)).astype(int) - rgb).max() <= 3
