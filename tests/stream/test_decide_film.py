"""The judge of `bench/stream_events.py`, and a short film of it: every segment right, no event too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import clipdeploy
from bench.stream_events import FPS, Film, Negatives, film, number, watch, write_h264
from bench.stream_judge import Seen, Segment, Told, interrupted, judge, segments
from clipdeploy.demo.world import SEEN
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.stream import Thresholds
from clipdeploy.runtime.stream.sources import open_source

WORLD = SEEN[::12]
CAT, NOTHING = frozenset({"cat"}), frozenset[str]()
PARTS = (Segment(0.0, 3.0, NOTHING), Segment(3.0, 6.0, CAT), Segment(6.0, 9.0, NOTHING))


def seen(*changes: tuple[float, frozenset[str]]) -> list[Seen]:
    """Ten answers a second for nine seconds."""
    found = []
    for tick in range(90):
        now = [present for since, present in changes if since <= tick / 10][-1]
        found.append(Seen(tick / 10, now))
    return found


def test_the_judge_knows_right_late_and_flicker() -> None:
    good = [Told(3.3, "appeared", "cat"), Told(6.4, "left", "cat")]
    verdict = judge(PARTS, seen((0, NOTHING), (3.3, CAT), (6.4, NOTHING)), good)
    assert (verdict.segments, verdict.right, verdict.due, verdict.on_time, verdict.extra) == (3, 3, 2, 2, 0)
    late = judge(PARTS, seen((0, NOTHING), (4.0, CAT), (6.4, NOTHING)), [Told(4.0, "appeared", "cat"), good[1]])
    assert (late.right, late.on_time, late.late, late.extra) == (2, 1, 1, 0)
    blink = [*good, Told(4.5, "left", "cat"), Told(4.7, "appeared", "cat")]
    flicker = judge(PARTS, seen((0, NOTHING), (3.3, CAT), (4.5, NOTHING), (4.7, CAT), (6.4, NOTHING)), blink)
    assert (flicker.right, flicker.on_time, flicker.extra) == (2, 2, 2)
    never = judge(PARTS, seen((0, NOTHING)), [])
    assert (never.right, never.due, never.on_time, never.late) == (2, 2, 0, 0)
    other = judge(
        PARTS, seen((0, NOTHING), (3.3, CAT | {"dog"}), (6.4, NOTHING)), [*good, Told(3.3, "appeared", "dog")]
    )
    assert (other.right, other.extra) == (2, 1)
    short = (Segment(0.0, 0.9, CAT), Segment(0.9, 9.0, NOTHING))
    assert judge(short, seen((0, CAT), (1.0, NOTHING)), []).unjudged == 1


def test_truth_becomes_segments_of_the_labels_asked_for() -> None:
    def line(time_s: float, *objects: tuple[str, float]) -> dict[str, object]:
        return {"time_s": time_s, "objects": [{"label": label, "share": share} for label, share in objects]}

    lines = [line(0.0), line(1.0, ("cat", 0.2)), line(2.0, ("cat", 0.9), ("dog", 1.0)), line(3.0, ("dog", 1.0))]
    assert segments(lines, ["cat"], ends_s=4.0) == (
        Segment(0.0, 2.0, NOTHING),
        Segment(2.0, 3.0, CAT),
        Segment(3.0, 4.0, NOTHING),
    )


def test_nothing_is_in_view_of_a_camera_that_is_away() -> None:
    answers = [one for one in seen((0, NOTHING)) if not 4.0 < one.time_s < 5.0]
    assert interrupted(PARTS, [s for s in answers if s.time_s > 0.95], longest_s=0.8) == (
        Segment(1.0, 3.0, NOTHING),
        Segment(3.0, 4.0, CAT),
        Segment(4.0, 5.0, NOTHING),
        Segment(5.0, 6.0, CAT),
        Segment(6.0, 8.9, NOTHING),
    )


@pytest.fixture(scope="module")
def shown() -> Film:
    """A film of eight classes, of which four are labels."""
    return film(1001, 20.0, world=WORLD, labels=4)


@pytest.fixture(scope="module")
def clip(demo_bundle: Path) -> Iterator[Clip]:
    with clipdeploy.load(demo_bundle, backend="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def levels(clip: Clip, shown: Film) -> Thresholds:
    """From frames of other films, smaller ones for speed, in which none of its labels is in view."""
    return Negatives(clip, 40, world=WORLD, size=(160, 120)).thresholds(shown.labels, 0.005)


def test_its_frames_are_numbered(shown: Film) -> None:
    assert [number(frame) for frame in shown.frames] == list(range(300))


@pytest.mark.parametrize("way", ["frames", "h264"])
def test_a_film_is_told_rightly(way: str, clip: Clip, shown: Film, levels: Thresholds, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    if way == "h264":
        pytest.importorskip("av", reason="needs the extra: pip install 'clipdeploy[video]'")
        write_h264(path, shown.frames)
    verdict = watch(
        clip, shown, open_source(shown.frames, fps=FPS) if way == "frames" else str(path), levels, world=WORLD
    )
    assert verdict.segments >= 4, verdict
    assert verdict.right >= 0.95 * verdict.segments, verdict
    assert verdict.extra == 0, verdict
