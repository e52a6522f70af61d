"""Video files, pictures and iterables as sources."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources import open_source
from tests.stream.films import demo_frames, patches, turn_film, write_film

pytest.importorskip("av")
FPS = 15


def read(what: object, **options: object) -> list[Frame]:
    return list(open_source(what, **options).frames(Event()))  # type: ignore[arg-type]


def rgb(frame: Frame) -> np.ndarray:
    """As signed numbers, for differences."""
    pixels = frame.pixels
    if frame.color == "nv12":
        pixels = nv12_to_rgb(pixels)
    return (pixels[..., ::-1] if frame.color == "bgr" else pixels).astype(int)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the demo world, H.264."""
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", demo_frames(), container={"movflags": "faststart"})


def test_every_frame_of_a_film_in_its_place(film: Path) -> None:
    frames, truth = read(film), demo_frames()
    assert [frame.index for frame in frames] == list(range(len(truth)))
    assert [frame.position for frame in frames] == pytest.approx([n / FPS for n in range(len(truth))], abs=1e-3)
    assert {(frame.camera, frame.color, frame.width, frame.height) for frame in frames} == {
        ("film.mp4", "rgb", 160, 120)
    }
    # what H.264 loses of noise, and half of the colour's resolution
    assert max(np.abs(rgb(f) - t).mean() for f, t in zip(frames, truth, strict=True)) < 5
    assert abs(frames[0].wall - time.time()) < 60
    assert frames[0].captured <= frames[-1].captured <= time.monotonic()


@pytest.mark.parametrize("color", ["rgb", "bgr", "nv12"])
@pytest.mark.parametrize("matrix", [None, "bt601", "bt709"])
def test_colours_are_those_that_were_filmed(tmp_path: Path, matrix: str | None, color: str) -> None:
    """nv12 too, read by BT.601, which is not what a BT.709 film holds."""
    film = write_film(tmp_path / "film.mp4", [patches()] * 3, matrix=matrix)
    frame = read(film, color=color)[0]
    assert frame.pixels.flags.c_contiguous
    assert frame.pixels.shape == ((180, 160) if color == "nv12" else (120, 160, 3))
    assert np.abs(rgb(frame) - patches())[20::40, 20::40].max() <= 4


def test_a_large_film_that_says_nothing_of_its_colours_has_those_of_hd(tmp_path: Path) -> None:
    truth = patches((1280, 720))
    film = write_film(tmp_path / "film.mp4", [truth], encoded_as="bt709")
    assert np.abs(rgb(read(film)[0]) - truth)[120::240, 160::320].max() <= 4


def test_full_range_becomes_what_it_should(tmp_path: Path) -> None:
    options = {"qmin": "1", "qmax": "1"}
    film = write_film(tmp_path / "film.avi", [patches()], codec="mjpeg", pixels="yuvj420p", options=options)
    for color in ("rgb", "nv12"):
        assert np.abs(rgb(read(film, color=color)[0]) - patches())[20::40, 20::40].max() <= 5


@pytest.mark.parametrize("color", ["rgb", "nv12"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_film_of_a_phone_stands_upright(tmp_path: Path, degrees: int, color: str) -> None:
    film = write_film(tmp_path / "film.mp4", [patches()] * 2)
    turn_film(film, degrees)
    upright = np.rot90(patches(), -degrees // 90)
    frame = read(film, color=color)[0]
    assert rgb(frame).shape == upright.shape
    assert np.abs(rgb(frame) - upright)[20::40, 20::40].max() <= 4


def test_a_row_of_a_width_that_fits_nothing_has_no_padding(tmp_path: Path) -> None:
    truth = np.ascontiguousarray(patches((320, 240))[:, :202])
    frame = read(write_film(tmp_path / "film.mp4", [truth]))[0]
    assert frame.pixels.flags.c_contiguous
    assert np.abs(rgb(frame) - truth)[40::80, 40::80].max() <= 4


def test_odd_sides_are_no_nv12(tmp_path: Path) -> None:
    odd = np.zeros((75, 101, 3), np.uint8)
    film = write_film(tmp_path / "odd.mkv", [odd], codec="ffv1", pixels="yuv444p", options={})
    assert read(film)[0].pixels.shape == odd.shape
    with pytest.raises(SourceError, match="101x75 px, and nv12 has even sides"):
        read(film, color="nv12")


def test_positions_are_the_films_own_where_its_rate_varies(tmp_path: Path) -> None:
    times = [0, 1, 5, 6, 20, 21]
    film = write_film(tmp_path / "film.mp4", demo_frames(0.4), times=times)
    assert [frame.position for frame in read(film)] == pytest.approx([n / FPS for n in times], abs=1e-3)


@pytest.mark.parametrize("name", ["film.mkv", "film.ts", "film.avi"])
def test_other_containers_hold_the_same(tmp_path: Path, name: str) -> None:
    frames = read(write_film(tmp_path / name, demo_frames(1)))
    assert [frame.position for frame in frames] == pytest.approx([n / FPS for n in range(FPS)], abs=2e-3)


def test_a_bare_stream_has_no_times_and_counts_25_a_second(tmp_path: Path) -> None:
    frames = read(write_film(tmp_path / "film.h264", demo_frames(1)))
    assert [frame.position for frame in frames] == pytest.approx([n / 25 for n in range(FPS)], abs=1e-3)


def test_b_frames_come_in_the_order_of_the_film(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", demo_frames(1), options={"bf": "3", "preset": "medium"})
    positions = [frame.position for frame in read(film)]
    assert positions == pytest.approx([n / FPS for n in range(FPS)], abs=1e-3)


def test_fewer_frames_a_second(film: Path) -> None:
    frames = read(film, fps=5)
    assert [frame.index for frame in frames] == list(range(0, 30, 3))


def test_a_loop_goes_on_counting(film: Path) -> None:
    stop = Event()
    with closing(open_source(film, loop=True).frames(stop)) as frames:  # type: ignore[type-var]
        first = [next(frames) for _ in range(70)]
    assert [frame.index for frame in first] == list(range(70))
    assert [frame.position for frame in first] == pytest.approx([n / FPS for n in range(70)], abs=2e-3)
    assert np.array_equal(first[0].pixels, first[30].pixels)


def test_a_film_in_real_time_keeps_to_the_clock(film: Path) -> None:
    source = open_source(film, realtime=True)
    assert source.live
    began = time.monotonic()
    frames = list(source.frames(Event()))
    assert 29 / FPS - 0.05 <= time.monotonic() - began <= 29 / FPS + 0.5
    for frame in frames:
        assert frame.position is not None
        assert frame.captured - began >= frame.position - 0.01


def test_a_slow_taker_of_a_film_in_real_time_loses_frames_not_time(film: Path) -> None:
    began = time.monotonic()
    frames = []
    for frame in open_source(film, realtime=True).frames(Event()):
        frames.append(frame)
        time.sleep(0.2)
    assert time.monotonic() - began < 29 / FPS + 1.0
    assert 5 <= len(frames) <= 14
    assert frames[-1].index >= 24


def test_a_film_stops_when_told(film: Path) -> None:
    stop = Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    began = time.monotonic()
    count = len(list(open_source(film, loop=True).frames(stop)))
    assert count
    assert time.monotonic() - began < 1.3
    timer.join()


def test_a_film_that_is_cut_off_gives_what_it_has_and_says_where(film: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    frames = []
    with pytest.raises(
        SourceError, match=r"cut.mp4 breaks off at \d\.\d\d s, after \d+ frames: it should hold 30"
    ) as told:
        for frame in open_source(cut).frames(Event()):
            frames.append(frame)
    assert 5 < len(frames) < 25
    assert "ffmpeg" in (told.value.fix or "")


def test_a_cut_film_without_an_index_is_noticed_too(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", demo_frames(3))
    assert len(read(film)) == 45
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"it should last 3\.\d\d s"):
        read(film)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"no video at all" * 1000, "is no video that can be read"), (None, "does not exist")],
)
def test_files_that_are_no_films(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read(path)


def test_a_film_without_its_end_where_the_index_is(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", demo_frames(1))
    film.write_bytes(film.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="is no video that can be read"):
        read(film)


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="has no video, only audio"):
        read(tmp_path / "a.mp4")


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", demo_frames(0.5))
    film.write_bytes(film.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(SourceError, match=r"no decoder|no video that can be read|breaks off at 0.00 s"):
        read(film)


def test_a_film_that_may_not_be_read(film: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.mp4"
    shutil.copy(film, locked)
    locked.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            tmp_path.chmod(0o755)
            for folder in tmp_path.parents[:2]:
                folder.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(SourceError, match="cannot be read: Permission denied"):
            open_source(locked)
    finally:
        if root:
            os.seteuid(0)


def test_a_name_with_a_colon_is_a_file(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(film, tmp_path / "rtsp:cam.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read("rtsp:cam.mp4")) == 30
    assert len(read((tmp_path / "rtsp:cam.mp4").as_uri().replace("%3A", ":"))) == 30


def save(folder: Path, name: str, level: int) -> None:
    Image.new("RGB", (8, 6), (level, 0, 255 - level)).save(folder / name)


def test_pictures_of_a_folder_as_people_count(tmp_path: Path) -> None:
    for name, level in (("shot10.png", 30), ("shot9.png", 20), ("shot1.png", 10)):
        save(tmp_path, name, level)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    frames = read(tmp_path, fps=2)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [10, 20, 30]
    assert [frame.position for frame in frames] == [0.0, 0.5, 1.0]
    assert [int(frame.pixels[0, 0, 2]) for frame in read(str(tmp_path / "*1*.png"), color="bgr")] == [10, 30]
    assert [frame.position for frame in read(tmp_path / "shot9.png")] == [None]


def test_a_broken_picture_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "a.png", 1)
    save(tmp_path, "c.png", 3)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    source = open_source(tmp_path)
    with caplog.at_level(logging.WARNING, "clipdeploy.stream"):
        frames = list(source.frames(Event()))
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 3]
    assert [path.name for path, _ in source.skipped] == ["b.png"]  # type: ignore[attr-defined]
    assert "b.png is left out" in caplog.text


def test_a_folder_of_broken_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"none of the pictures of .* can be read"):
        read(tmp_path)
    with pytest.raises(SourceError, match="holds no picture"):
        open_source(tmp_path / "*.jpg")


def test_a_folder_that_is_followed_gives_what_comes(tmp_path: Path) -> None:
    save(tmp_path, "a.png", 1)
    stop = Event()
    frames: Iterator[Frame] = open_source(tmp_path, follow=True).frames(stop)
    assert next(frames).pixels[0, 0, 0] == 1
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:40])  # half written
    threading.Timer(0.4, lambda: save(tmp_path, "b.png", 2)).start()
    frame = next(frames)
    assert (frame.pixels[0, 0, 0], frame.index, frame.position) == (2, 1, None)
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - began < 1.2


def test_pictures_are_no_nv12(tmp_path: Path) -> None:
    save(tmp_path, "a.png", 1)
    with pytest.raises(InputError, match="rgb or bgr"):
        open_source(tmp_path, color="nv12")


def test_arrays_pictures_and_frames() -> None:
    array = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    frame = Frame(array, "bgr", "elsewhere", 7, 1.0, 2.0, 3.0)
    given = read([array, Image.fromarray(array), frame], fps=10, name="mine")
    assert [(f.camera, f.index, f.color) for f in given] == [("mine", 0, "rgb"), ("mine", 1, "rgb"), ("mine", 2, "bgr")]
    assert [f.position for f in given] == [0.0, 0.1, 3.0]
    assert all(np.array_equal(f.pixels, array) for f in given)
    assert read(Image.fromarray(array), color="bgr")[0].pixels[0, 0].tolist() == [2, 1, 0]
    assert len(read(array)) == 1
    assert len(read(np.stack([array] * 5))) == 5
    assert len(read(np.zeros((5, 6, 8), np.uint8), color="nv12")) == 5


@pytest.mark.parametrize(
    ("thing", "color", "words"),
    [
        (np.zeros((4, 6, 3)), "rgb", "array of float64"),
        ("a.jpg", "rgb", "but str"),
        (np.zeros((4, 6), np.uint8), "rgb", r"shape \(4, 6\)"),
        (np.zeros((4, 6, 3), np.uint8), "nv12", r"shape \(4, 6, 3\)"),
        (np.zeros((4, 6), np.uint8), "nv12", r"height \* 3 / 2"),
        (np.zeros((0, 6, 3), np.uint8), "rgb", "shape"),
    ],
)
def test_things_that_are_no_frames(thing: object, color: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read([thing], color=color)


def test_nothing_is_read_ahead_of_a_generator() -> None:
    made: list[int] = []

    def generate() -> Iterator[np.ndarray]:
        for number in range(5):
            made.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    seen = []
    for frame in open_source(generate()).frames(Event()):
        time.sleep(0.02)
        assert made == list(range(frame.index + 1))
        seen.append(int(frame.pixels[0, 0, 0]))
    assert seen == [0, 1, 2, 3, 4]


def test_of_a_live_generator_the_newest_counts() -> None:
    def generate() -> Iterator[np.ndarray]:
        for number in range(50):
            time.sleep(0.01)
            yield np.full((2, 2, 3), number, np.uint8)

    source = open_source(generate(), realtime=True)
    indices = []
    for frame in source.frames(Event()):
        time.sleep(0.05)
        indices.append(frame.index)
    assert indices == sorted(indices)
    assert len(indices) < 20
    assert indices[-1] == 49


def test_a_generator_that_hangs_can_be_stopped() -> None:
    release = Event()

    def generate() -> Iterator[np.ndarray]:
        yield np.zeros((2, 2, 3), np.uint8)
        release.wait(20)

    stop = Event()
    frames = open_source(generate()).frames(stop)
    next(frames)
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - began < 1.2
    release.set()


def test_what_a_generator_raises_is_raised() -> None:
    def generate() -> Iterator[np.ndarray]:
        yield np.zeros((2, 2, 3), np.uint8)
        raise RuntimeError("the sensor fell off")

    frames = open_source(generate()).frames(Event())
    next(frames)
    with pytest.raises(RuntimeError, match="the sensor fell off"):
        next(frames)
