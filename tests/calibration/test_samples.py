"""Calibration data: what is accepted, which pictures are chosen, and what is refused."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.calibration.duplicates import Seen
from clipdeploy.calibration.samples import MINIMUM, Samples, open_samples
from clipdeploy.calibration.sources import shares, spread
from clipdeploy.errors import CalibrationError, InputError, MissingExtraError, OutputError
from clipdeploy.runtime.image import ImageProcessor
from tests.calibration.pictures import pixel_spec, scene, turn_video, write_pictures, write_video

PROCESSOR = ImageProcessor(pixel_spec())


def opened(*data: str | Path, limit: int = 64, **options: int) -> Samples:
    return open_samples(data, PROCESSOR, limit=limit, **options)


def all_pixels(samples: Samples) -> np.ndarray:
    return np.concatenate(list(samples.batches()))


def test_pictures_go_through_the_runtimes_preprocessing_twice_alike(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 20)
    samples = opened(tmp_path, batch=8)
    assert [len(batch) for batch in samples.batches()] == [8, 8, 4]
    np.testing.assert_array_equal(all_pixels(samples), PROCESSOR(paths))
    np.testing.assert_array_equal(all_pixels(samples), all_pixels(samples))
    feeds = samples.feeds()
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([feed["pixel_values"] for feed in feeds]), all_pixels(samples))


def test_the_choice_is_even_seeded_and_of_any_order(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 90)
    some = opened(*paths, limit=30)
    random.Random(0).shuffle(paths)
    assert opened(*paths, limit=30).sha256 == some.sha256
    assert opened(tmp_path, limit=30).sha256 == some.sha256
    assert opened(f"{tmp_path}/*.png", limit=30).sha256 == some.sha256
    assert opened(tmp_path, limit=30, seed=1).sha256 != some.sha256
    assert some.count == 30


def test_a_choice_takes_one_of_every_part() -> None:
    rng = np.random.default_rng(0)
    rows = spread(100, 10, rng, even=False)
    assert (rows // 10).tolist() == list(range(10))
    assert set(np.diff(spread(100, 10, rng, even=True)).tolist()) == {10}
    assert spread(7, 7, rng, even=False).tolist() == list(range(7))
    assert spread(5, 0, rng, even=False).tolist() == []


def test_sources_share_alike_and_the_rest_goes_to_those_that_have_more() -> None:
    assert shares([1000, 10, 1000], 110) == [50, 10, 50]
    assert shares([3, 4], 100) == [3, 4]


def test_folders_inside_are_taken_and_repeats_are_not(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 10)
    write_pictures(tmp_path / "b/c", 10, first=10)
    assert opened(tmp_path, tmp_path / "a").count == 20


def test_near_duplicates_are_left_out_and_others_drawn_in_their_place(tmp_path: Path) -> None:
    for seed in range(40):
        for quality in (95, 80, 60):
            Image.fromarray(scene(seed, (128, 96))).save(tmp_path / f"{seed:02d}_{quality}.jpg", quality=quality)
    samples = opened(tmp_path, limit=60)
    assert (samples.count, samples.duplicates, samples.coverage["tried"]) == (40, 80, 120)


def test_pictures_that_differ_in_colour_or_light_alone_are_kept() -> None:
    seen, one = Seen(302), scene(0)
    assert seen.add(one)
    assert not seen.add(one)
    assert seen.add(one[:, :, ::-1].copy())
    assert seen.add((one * 0.6).astype(np.uint8))
    assert all(seen.add(scene(seed)) for seed in range(1, 300))


def test_broken_files_are_named_and_passed_over(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20)
    (tmp_path / "00003.png").write_bytes(b"no picture")
    (tmp_path / "00007.png").write_bytes(b"")
    samples = opened(tmp_path)
    assert samples.count == 18
    assert [Path(name).name for name, _ in samples.skipped] == ["00003.png", "00007.png"]
    assert "is empty" in samples.skipped[1][1]


def test_texts_instead_of_pictures_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.txt" for i in range(20)]
    for path in paths:
        path.write_text("a photo of a dog")
    with pytest.raises(CalibrationError, match=r"20 of 20 pictures .*/0\.txt is not an image"):
        opened(*paths)


def test_mostly_broken_files_are_refused(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, 40)
    for path in paths[:21]:
        path.write_bytes(b"no picture")
    with pytest.raises(CalibrationError, match="21 of 40"):
        opened(tmp_path)


@pytest.mark.parametrize("data", [(), ("missing",), ("empty",), ("*.jpg",), ("missing.mp4",), ("missing.npz",)])
def test_no_data_is_refused(data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(InputError):
        opened(*data)


def test_a_folder_of_videos_names_one(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"name the video itself: .*clip.mp4"):
        opened(tmp_path)


def test_too_few_are_refused_and_few_are_noted(tmp_path: Path) -> None:
    write_pictures(tmp_path, MINIMUM - 1)
    with pytest.raises(CalibrationError, match=f"{MINIMUM - 1} distinct pictures .* at least {MINIMUM}"):
        opened(tmp_path)
    write_pictures(tmp_path, MINIMUM)
    assert "fewer than 500" in opened(tmp_path).notes[0]


def test_black_pictures_are_one_picture(tmp_path: Path) -> None:
    for i in range(30):
        Image.new("RGB", (40 + i, 40)).save(tmp_path / f"{i}.png")
    with pytest.raises(CalibrationError, match=r"1 distinct pictures .* 29 near-duplicates"):
        opened(tmp_path)


@pytest.mark.parametrize("limit", [0, MINIMUM - 1])
def test_an_impossible_limit_is_refused(limit: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--samples"):
        opened(tmp_path, limit=limit)


def test_coverage_tells_what_the_pictures_look_like(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20)
    crops = np.stack([PROCESSOR.crop(path) for path in sorted(tmp_path.iterdir())]).astype(np.float64)
    coverage = json.loads(json.dumps(opened(tmp_path).coverage))
    assert coverage["count"] == coverage["tried"] == coverage["sources"]["pictures"] == 20
    brightness = crops.mean(axis=(1, 2, 3))
    assert coverage["brightness"]["mean"] == pytest.approx(brightness.mean(), abs=0.01)
    assert coverage["brightness"]["std"] == pytest.approx(brightness.std(), abs=0.01)
    assert coverage["contrast"]["max"] == pytest.approx(crops.mean(axis=3).std(axis=(1, 2)).max(), abs=0.01)
    assert coverage["colour"]["min"] == pytest.approx(np.ptp(crops, axis=3).mean(axis=(1, 2)).min(), abs=0.01)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_arrays_of_pictures(save: object, tmp_path: Path) -> None:
    pictures = np.stack([scene(seed) for seed in range(20)])
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, pictures)  # type: ignore[operator]
    samples = opened(path)
    np.testing.assert_array_equal(all_pixels(samples), PROCESSOR(list(pictures)))
    assert samples.coverage["sources"] == {"array": 20}


def test_arrays_of_pixel_values_pass_as_they_are(tmp_path: Path) -> None:
    pictures = [scene(seed) for seed in range(20)]
    pixels = PROCESSOR(pictures)
    np.savez(tmp_path / "a.npz", pixels)
    samples = opened(tmp_path / "a.npz")
    np.testing.assert_array_equal(all_pixels(samples), pixels)
    np.save(tmp_path / "b.npy", np.stack(pictures))
    assert samples.coverage["brightness"] == opened(tmp_path / "b.npy").coverage["brightness"]


PIXELS = np.zeros((20, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((20, 3, 32, 32), np.uint8), "neither pictures nor pixel_values"),
        (np.zeros((20, 32, 32, 3), np.float32), "neither pictures nor pixel_values"),
        (np.zeros((32, 32, 3), np.uint8), "neither pictures nor pixel_values"),
        (np.zeros((0, 32, 32, 3), np.uint8), "neither pictures nor pixel_values"),
        (np.array(["a photo of a dog"] * 20), "neither pictures nor pixel_values"),
        (np.array([{}] * 20, dtype=object), "neither pictures nor pixel_values"),
        (np.asfortranarray(np.zeros((20, 32, 32, 3), np.uint8)), "column by column"),
        (np.zeros((20, 3, 48, 48), np.float32), "the model takes"),
        (PIXELS + 255, "not normalised"),
        (PIXELS + np.nan, "not normalised"),
        (np.random.default_rng(0).random(PIXELS.shape, np.float32), "not normalised"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, reason: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(CalibrationError, match=reason):
        opened(tmp_path / "a.npy")


def test_broken_array_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.stack([scene(seed) for seed in range(20)]))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CalibrationError, match="truncated"):
        opened(path)
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    with pytest.raises(CalibrationError, match="must hold one array, it holds: a, b"):
        opened(tmp_path / "two.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(CalibrationError, match=r"is no .npz file"):
        opened(tmp_path / "text.npz")
    np.savez_compressed(tmp_path / "bad.npz", np.stack([scene(seed) for seed in range(20)]))
    data = bytearray((tmp_path / "bad.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(CalibrationError, match=r"bad.npz is damaged|cannot be read"):
        opened(tmp_path / "bad.npz")


@pytest.fixture(params=["av", "cv2"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("av", reason="the test writes its videos with PyAV")
    pytest.importorskip(request.param)
    monkeypatch.setattr("clipdeploy.calibration.video.decoder", lambda: request.param)
    return str(request.param)


def test_frames_of_a_video_are_distinct_and_spread(decoder: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(30), repeat=4)
    samples = opened(path, limit=30)
    assert samples.count == 30
    whole = opened(path, limit=200)
    assert (whole.count, whole.duplicates, whole.coverage["tried"]) == (30, 90, 120)
    assert whole.notes == ("30 distinct pictures: fewer than 500 may miss rare values",)
    shown = PROCESSOR([scene(seed) for seed in range(30)])
    # The codec's own loss, in standard deviations; another scene is some 1.5 away.
    assert np.abs(all_pixels(whole) - shown).mean(axis=(1, 2, 3)).max() < 0.35


def test_a_video_that_ends_early_is_used_and_noted_or_refused(decoder: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(40), repeat=2)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    samples = opened(path)
    assert MINIMUM <= samples.count < 40
    assert "ends early" in samples.notes[0] and "of 80 frames" in samples.notes[0]
    path.write_bytes(data[: int(len(data) * 0.3)])
    with pytest.raises(CalibrationError, match=r"distinct pictures .* ends early"):
        opened(path)


def test_a_video_without_frames_or_of_another_kind_is_refused(decoder: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(4))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CalibrationError, match="is no video that can be read"):
        opened(path)
    path.write_text("a photo of a dog")
    with pytest.raises(CalibrationError, match="is no video that can be read"):
        opened(path)


def test_a_video_filmed_on_its_side_is_turned(decoder: str, tmp_path: Path) -> None:
    from clipdeploy.calibration.video import VideoFile

    square = ImageProcessor(pixel_spec(resize="squash"))
    path = write_video(tmp_path / "a.mp4", range(2))
    (upright,) = VideoFile(path).read([0], ImageProcessor(pixel_spec(resize="squash")))
    (turned,) = VideoFile(turn_video(path)).read([0], square)
    assert upright.pixels is not None and turned.pixels is not None
    clockwise = np.rot90(upright.pixels, -1).astype(int)
    assert np.abs(turned.pixels.astype(int) - clockwise).mean() < 3 < np.abs(turned.pixels - clockwise[::-1]).mean()


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.calibration.video.find_spec", lambda name: None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"clipdeploy\[video\]"):
        opened(tmp_path / "a.mp4")


def test_kinds_mix(tmp_path: Path) -> None:
    write_pictures(tmp_path / "folder", 30)
    np.save(tmp_path / "a.npy", np.stack([scene(seed) for seed in range(100, 130)]))
    samples = opened(tmp_path / "folder", tmp_path / "a.npy", limit=40)
    assert samples.coverage["sources"] == {"pictures": 20, "array": 20}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, 20)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    with pytest.raises(OutputError, match="No space left"):
        opened(tmp_path)


def test_the_crops_leave_no_file_and_no_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "data", 20)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    samples = opened(tmp_path / "data")
    assert not list((tmp_path / "scratch").iterdir())
    del samples
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_many_pictures_need_the_memory_of_few(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (1500, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "many.npy", blocks.repeat(4, axis=1).repeat(4, axis=2))
    np.save(tmp_path / "few.npy", blocks[:64].repeat(4, axis=1).repeat(4, axis=2))
    peaks = {}
    for name, count in (("few.npy", 64), ("many.npy", 1500)):
        tracemalloc.start()
        samples = open_samples([tmp_path / name], PROCESSOR, limit=1500)
        assert samples.count == count
        for _ in samples.batches():
            pass
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Where a crop lies on disk is remembered, and nothing of its 3 kB, or its 12 kB as the model takes it.
    assert peaks["many.npy"] - peaks["few.npy"] < (1500 - 64) * 400
