"""Annotated videos, and what is drawn upon frames."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import InputError, OutputError
from clipdeploy.watch.draw import Caption, annotate, canvas_size, picture_of
from clipdeploy.watch.shown import bars
from clipdeploy.watch.video import Recorder, video_paths
from tests.watch.fake import LABELS, demo_results, event, frame, result

av = pytest.importorskip("av")


def decoded(path: Path) -> list[tuple[float, Image.Image]]:
    """Seconds and pictures of a video."""
    with av.open(str(path)) as container:
        return [(float(shot.time), shot.to_image()) for shot in container.decode(video=0)]


def silent(text: str) -> None:
    """A warning that a test does not expect to come."""
    raise AssertionError(text)


def test_every_frame_at_its_own_time(tmp_path: Path) -> None:
    told: list[str] = []
    recorder = Recorder(tmp_path / "seen.mp4", "front", lambda: [event(time_s=0.5)], told.append)
    results = list(demo_results(3.0, 10.0))
    for one in results:
        recorder.take(one, wait=True)
    outcome = recorder.close()
    assert (outcome.frames, outcome.left_out, outcome.error, told) == (30, 0, None, [])
    shots = decoded(outcome.path)
    assert [round(time, 3) for time, _ in shots] == [round(one.frame.time_s, 3) for one in results]
    assert shots[0][1].size == (480, 360)  # a small picture is enlarged, so that words can be read


def test_what_is_drawn_can_be_seen_and_the_picture_stays() -> None:
    shot = frame(0, size=(640, 480))
    answer = result(shot)
    plain = picture_of(shot)
    caption = Caption(answer.decision.present, bars(answer.decision, 6), (event(),), "front")
    drawn = annotate(plain, caption, canvas_size(640, 480))
    changed = np.abs(np.asarray(drawn).astype(int) - np.asarray(plain)).max(axis=2) > 8
    assert changed[:20].mean() > 0.95  # the band with the label
    assert changed[-60:, :200].mean() > 0.9  # the bars
    assert changed[-20:, -100:].mean() > 0.9  # the ticker
    assert not changed[120:300].any()
    assert np.asarray(picture_of(shot)).tolist() == np.asarray(plain).tolist()


def test_longer_bars_for_likelier_labels() -> None:
    def filled(probability: float) -> int:
        answer = result(frame(0, size=(640, 480)), (probability, 0.0, 0.0))
        caption = Caption(answer.decision.present, bars(answer.decision, 6))
        drawn = np.asarray(annotate(picture_of(answer.frame), caption, (640, 480))).astype(int)
        return int(((drawn[200:, :, 1] - drawn[200:, :, 0]) > 80).sum())

    assert 1.7 < filled(0.99) / filled(0.55) < 1.9


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1920, 1080), (1280, 720)), ((64, 48), (480, 360)), ((641, 481), (640, 480)), ((9, 1001), (12, 1280))],
)
def test_sides_are_even_and_of_a_size_to_read(size: tuple[int, int], expected: tuple[int, int]) -> None:
    found = canvas_size(*size)
    assert found[0] % 2 == found[1] % 2 == 0
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 4


@pytest.mark.parametrize("color", ["rgb", "bgr", "nv12"])
def test_frames_of_every_colour_order(color: str) -> None:
    assert picture_of(frame(0, size=(64, 48), color=color)).size == (64, 48)  # type: ignore[arg-type]
    assert picture_of(frame(0, size=(64, 48), color=color), 32).size == (32, 24)  # type: ignore[arg-type]


def test_odd_labels_and_sizes_can_be_drawn() -> None:
    shot = frame(0, size=(33, 2001))
    answer = result(shot, labels=("", "x" * 500, "日本\x1b語"))
    caption = Caption(answer.decision.present, bars(answer.decision, 6), (event(label="y" * 300),), "z" * 300)
    assert annotate(picture_of(shot), caption, canvas_size(33, 2001)).size == canvas_size(33, 2001)


def test_a_frame_of_another_size_and_a_file_that_begins_again(tmp_path: Path) -> None:
    told: list[str] = []
    recorder = Recorder(tmp_path / "seen.mp4", "front", list, told.append)
    for index, (size, position) in enumerate(
        [((640, 480), 0.0), ((640, 480), 1.0), ((480, 640), 0.0), ((640, 480), 900.0)]
    ):
        recorder.take(result(frame(index, size=size, position=position)), wait=True)
    outcome = recorder.close()
    assert (outcome.frames, told) == (4, [])
    times = [time for time, _ in decoded(outcome.path)]
    assert times == pytest.approx([0.0, 1.0, 1.04, 11.04])  # a long absence is cut short


def test_a_full_disk_is_told_once_and_nothing_waits() -> None:
    told: list[str] = []
    recorder = Recorder(Path("/dev/full"), "front", list, told.append)
    for one in demo_results(3.0, 10.0):
        recorder.take(one, wait=True)
    outcome = recorder.close()
    assert outcome.error == "the disk is full"
    assert len(told) == 1
    assert "the stream goes on" in told[0]


def test_what_a_kill_leaves_can_be_played(tmp_path: Path) -> None:
    """The file as it is on the disk while it is still written: all but the last two seconds."""
    recorder = Recorder(tmp_path / "seen.mp4", "front", list, silent)
    for one in demo_results(7.0, 5.0):
        recorder.take(one, wait=True)
    while not recorder._waiting.empty():
        threading.Event().wait(0.02)
    threading.Event().wait(0.2)
    left = tmp_path / "left.mp4"
    left.write_bytes((tmp_path / "seen.mp4").read_bytes()[:-100])  # in the midst of something
    recorder.close()
    shots = 0
    with av.open(str(left)) as container, contextlib.suppress(av.error.InvalidDataError):  # where it was cut off
        for _ in container.decode(video=0):
            shots += 1
    assert shots >= 5 * 4


def test_what_comes_too_fast_is_left_out_and_counted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "seen.mp4", "front", list, silent)
    for index in range(200):
        recorder.take(result(frame(index, size=(640, 480), position=index / 30)), wait=False)
    outcome = recorder.close()
    assert outcome.left_out > 0
    assert outcome.frames + outcome.left_out == 200


def test_names(tmp_path: Path) -> None:
    video = tmp_path / "seen.mp4"
    assert video_paths(video, ["rtsp://a/1"]) == {"rtsp://a/1": video}
    found = video_paths(video, ["rtsp://a/1", "rtsp:/a/1", "../x"])
    assert [path.name for path in found.values()] == ["seen-rtsp_a_1.mp4", "seen-rtsp_a_1-2.mp4", "seen-x.mp4"]
    video.write_bytes(b"kept")
    with pytest.raises(InputError, match="exists already"):
        video_paths(video, ["front"])
    with pytest.raises(InputError, match="no name for a video"):
        video_paths(tmp_path / "seen.avi", ["front"])
    with pytest.raises(OutputError, match="does not exist"):
        video_paths(tmp_path / "gone/seen.mp4", ["front"])
    assert video.read_bytes() == b"kept"


def test_bars_stand_still_where_they_fit() -> None:
    answer = result(frame(), (0.1, 0.7, 0.2))
    assert [bar.label for bar in bars(answer.decision, 3)] == list(LABELS)
    assert [bar.label for bar in bars(answer.decision, 2)] == [LABELS[1], LABELS[2]]
