"""The stage: sources to views, with a bundle of the shipped CLIP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import InputError, OutputError, SourceError, TextError
from clipdeploy.runtime.stream.records import NONE_OF_THESE, Event
from clipdeploy.watch import WatchOutcome, WatchRequest, watch
from clipdeploy.watch.board import Board

LABELS = ("red heart", "blue star", "green circle")


class Notebook:
    """A view that keeps all it is told."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.ticks, self.closed = 0, False

    def event(self, event: Event) -> None:
        self.events.append(event)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames: nothing, a red heart, nothing."""
    from clipdeploy.demo.video import video

    folder = tmp_path_factory.mktemp("shots")
    for picture, truth in video(seconds=4, fps=10, size=(160, 120), seed=9, pairs=(("red", "heart"), ("blue", "star"))):
        picture.save(folder / f"{truth.index:03d}.png")
    return folder


def seen(request: WatchRequest) -> tuple[WatchOutcome, Notebook]:
    books: list[Notebook] = []

    def view(board: Board) -> Notebook:
        books.append(Notebook(board))
        return books[0]

    return watch(request, view), books[0]


@pytest.fixture
def request_(demo_bundle: Path, shots: Path) -> WatchRequest:
    return WatchRequest(demo_bundle, (str(shots),), labels=LABELS, backend="onnxruntime", fps=10, threads=1)


def test_every_frame_is_answered_and_events_are_told(request_: WatchRequest, tmp_path: Path) -> None:
    pytest.importorskip("av")
    events = tmp_path / "events.jsonl"
    outcome, book = seen(replace(request_, events=str(events), video=tmp_path / "seen.mp4"))
    (camera,) = outcome.stats.cameras
    assert (outcome.ended, camera.captured, camera.dropped, camera.failed) == ("sources ended", 40, 0, 0)
    assert camera.answered + camera.repeated == 40
    assert [event.kind for event in book.events].count("appeared") >= 1
    assert {event.label for event in book.events} <= set(LABELS)
    assert len(events.read_text().splitlines()) == len(book.events) == outcome.stats.events
    assert (outcome.videos[0].frames, outcome.videos[0].error) == (40, None)
    assert (book.closed, book.board.closed, book.warnings) == (True, True, [])


def test_two_cameras_have_their_names_and_a_video_each(request_: WatchRequest, shots: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    sources = (f"door={shots}", f"yard={shots}")
    outcome, _ = seen(replace(request_, sources=sources, video=tmp_path / "seen.mp4", gate=False))
    assert [camera.camera for camera in outcome.stats.cameras] == ["door", "yard"]
    assert [camera.answered for camera in outcome.stats.cameras] == [40, 40]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seen-door.mp4", "seen-yard.mp4"]


def test_a_full_disk_ends_the_video_and_not_the_stream(request_: WatchRequest, tmp_path: Path) -> None:
    pytest.importorskip("av")
    full = tmp_path / "seen.mp4"
    full.symlink_to("/dev/full")
    outcome, book = seen(replace(request_, video=full))
    assert (outcome.ended, outcome.videos[0].error) == ("sources ended", "the disk is full")
    assert outcome.stats.cameras[0].captured == 40
    assert len(book.warnings) == 1


def test_time_is_up(request_: WatchRequest) -> None:
    started = time.monotonic()
    outcome, book = seen(replace(request_, loop=True, realtime=True, seconds=1.0))
    assert outcome.ended == "time is up"
    assert 1.0 <= outcome.stats.seconds < 4
    assert time.monotonic() - started < 20
    assert book.ticks >= 3


def test_thresholds_from_negatives_make_none_of_these_an_answer(request_: WatchRequest, tmp_path: Path) -> None:
    folder = tmp_path / "negatives"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(100):
        colour = rng.integers(0, 256, 3)
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / f"{number:03d}.png")
    plain = replace(request_, sources=(str(folder),), labels=("red heart",))
    always, _ = seen(plain)
    outcome, book = seen(replace(plain, negatives=folder))
    assert always.stats.events == 2  # of one label alone the chance is always 1: it appears, and leaves at the end
    assert outcome.stats.events == 0
    newest = book.board.newest(str(folder))
    assert newest is not None
    assert newest.result.decision.label == NONE_OF_THESE
    with pytest.raises(InputError, match="file or found"):
        seen(replace(plain, negatives=folder, thresholds=tmp_path / "thresholds.json"))


def test_a_baked_bundle_has_its_labels(request_: WatchRequest, demo_bundle: Path, tmp_path: Path) -> None:
    from clipdeploy.baking import BakeRequest, bake_bundle

    baked = tmp_path / "baked"
    bake_bundle(BakeRequest(demo_bundle, baked, labels=LABELS))
    outcome, book = seen(replace(request_, bundle=baked, labels=None))
    assert outcome.labels == LABELS
    assert book.events
    with pytest.raises(InputError, match="baked into it"):
        seen(replace(request_, bundle=baked))
    with pytest.raises(InputError, match="no labels of its own"):
        seen(replace(request_, labels=None))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sources": ("gone.mp4",)}, SourceError, "gone.mp4"),
        ({"labels": ("a", "a")}, TextError, "a"),
        ({"seconds": 0.0}, InputError, "no time"),
        ({"token": "correct-horse"}, InputError, "add --web"),
        ({"web": "film.mp4"}, InputError, "no address"),
        ({"web": "127.0.0.1:0", "token": "short"}, InputError, "token"),
        ({"video": Path("seen.gif")}, InputError, "no name for a video"),
        ({"video": Path("/gone/seen.mp4")}, OutputError, "does not exist"),
        ({"events": "/gone/events.jsonl"}, OutputError, "/gone/events.jsonl"),
        ({"mqtt": "http://broker"}, InputError, "MQTT"),
        ({"thresholds": Path("gone.json")}, InputError, "gone.json"),
        ({"smooth_s": -1.0}, InputError, ""),
    ],
)
def test_what_cannot_be(
    request_: WatchRequest, change: dict[str, object], error: type[Exception], message: str
) -> None:
    before = threading.active_count()
    with pytest.raises(error) as caught:
        seen(replace(request_, **change))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert threading.active_count() <= before + 1


def test_two_sources_of_one_name(request_: WatchRequest, shots: Path) -> None:
    with pytest.raises(InputError, match="two sources"):
        seen(replace(request_, sources=(str(shots), str(shots))))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(demo_bundle: Path, shots: Path, tmp_path: Path, number: int, code: int) -> None:
    """The counts are told, the video is whole."""
    av = pytest.importorskip("av")
    words = ["watch", demo_bundle, shots, "--labels", ",".join(LABELS), "--backend", "onnxruntime", "--fps", "10"]
    words += ["--loop", "--realtime", "--json", "--video", tmp_path / "seen.mp4", "--web", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clipdeploy", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["event"] == "appeared"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    *events, last = map(json.loads, out.splitlines())
    assert last["ended"] == ("interrupted" if number == signal.SIGINT else "terminated")
    assert len(events) + 1 == last["stats"]["events"]
    (camera,) = last["stats"]["cameras"]
    counted = camera["answered"] + camera["repeated"] + camera["dropped"] + camera["failed"] + camera["waiting"]
    assert camera["captured"] == counted
    assert "Traceback" not in err
    with av.open(str(tmp_path / "seen.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == last["videos"][0]["frames"] > 0


def test_others_are_never_told(request_: WatchRequest) -> None:
    told, before = seen(replace(request_, labels=LABELS))
    assert LABELS[0] in {event.label for event in before.events}
    outcome, book = seen(replace(request_, labels=LABELS[1:], others=LABELS[:1]))
    assert told.labels == LABELS and outcome.labels == LABELS[1:]
    assert LABELS[0] not in {event.label for event in book.events}
    with pytest.raises(TextError, match="red heart"):
        seen(replace(request_, labels=LABELS, others=LABELS[:1]))
