"""Smoothing by time, presence without flicker, events, labels that change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clipdeploy.errors import InputError
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.stream.decide import Decider, Smoothing, Thresholds
from clipdeploy.runtime.stream.records import NONE_OF_THESE, Decision, Event, Frame, Scores

LABELS = ("cat", "dog")
PIXELS = np.zeros((2, 2, 3), np.uint8)
AT_TEN = Thresholds(LABELS, (10.0, 10.0), (1.0, 1.0))


def frame(time_s: float, index: int = 0, *, live: bool = False) -> Frame:
    return Frame(PIXELS, "rgb", "door", index, time_s, 1000.0 + time_s, None if live else time_s)


def scores(*logits: float, labels: tuple[str, ...] = LABELS, kind: str = "softmax") -> Scores:
    rows = np.array([logits])
    return Scores(labels, rows, probabilities(rows, kind))  # type: ignore[arg-type]


def play(
    decider: Decider, values: Sequence[tuple[float, ...]], *, fps: float = 20.0, starts_s: float = 0.0
) -> tuple[list[Decision], list[Event]]:
    made = [decider.update(frame(starts_s + i / fps, i), scores(*value), 0) for i, value in enumerate(values)]
    return made, [event for decision in made for event in decision.events]


@pytest.mark.parametrize("fps", [5.0, 12.0, 60.0])
def test_smoothing_goes_by_time_and_not_by_frames(fps: float) -> None:
    decider = Decider(smoothing=Smoothing(0.5))
    decider.update(frame(0.0), scores(0.0, 0.0), 0)
    count = round(1.0 * fps)
    for i in range(1, count + 1):
        made = decider.update(frame(i / fps), scores(8.0, 0.0), 0)
    assert made.logits[0] == pytest.approx(8.0 * (1 - np.exp(-1.0 / 0.5)), rel=1e-9)
    assert made.probabilities.sum() == pytest.approx(1.0)


def test_without_smoothing_every_frame_counts_as_it_is() -> None:
    decider = Decider(smoothing=Smoothing(0))
    decider.update(frame(0.0), scores(0.0, 0.0), 0)
    assert decider.update(frame(0.01), scores(7.0, -1.0), 0).logits.tolist() == [7.0, -1.0]


def test_an_answer_of_many_frames_is_read_in_its_row() -> None:
    many = Scores(LABELS, np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.3, 0.7], [0.4, 0.6]]))
    assert Decider().update(frame(0.0), many, 1).logits.tolist() == [3.0, 4.0]


def test_a_label_appears_and_leaves_once_each_however_noisy_the_answers_are() -> None:
    rng = np.random.default_rng(0)
    visit = [(4.0, 4.0)] * 20 + [(15.0, 4.0)] * 40 + [(4.0, 4.0)] * 40
    noisy = [(cat + rng.normal(0, 4.0), dog + rng.normal(0, 4.0)) for cat, dog in visit]
    made, events = play(Decider(thresholds=AT_TEN), noisy)
    assert [(e.kind, e.label) for e in events] == [("appeared", "cat"), ("left", "cat")]
    came, went = events
    assert 1.0 <= came.time_s <= 1.5
    assert 3.0 <= went.time_s <= 3.6
    assert (came.camera, came.wall, came.seconds) == ("door", 1000.0 + came.time_s, None)
    assert went.seconds == pytest.approx(went.time_s - came.time_s)
    assert made[came.frame].present == ("cat",)
    assert made[came.frame - 1].present == () == made[-1].present
    assert made[0].label == NONE_OF_THESE
    assert made[40].label == "cat"
    # the same answers, each for itself, flicker
    _, raw = play(Decider(thresholds=AT_TEN, smoothing=Smoothing(0), enter_s=0, leave_s=0), noisy)
    assert len(raw) > 4


def test_between_the_two_levels_what_is_so_stays_so() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0), enter_s=0, leave_s=0)
    _, events = play(decider, [(9.5, 0.0)] * 5 + [(10.5, 0.0)] + [(9.5, 0.0)] * 5 + [(8.9, 0.0)] + [(9.5, 0.0)] * 5)
    assert [(e.kind, e.frame) for e in events] == [("appeared", 5), ("left", 11)]


def test_a_label_must_hold_its_time_without_a_break() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0), enter_s=0.2, leave_s=0.3)
    high, low = (12.0, 0.0), (5.0, 0.0)
    _, events = play(decider, [high] * 2 + [low] + [high] * 3 + [low, low], fps=10.0)
    assert [(e.kind, e.frame) for e in events] == [("appeared", 5)]
    _, events = play(decider, [low] + [high] + [low] * 4, fps=10.0, starts_s=0.8)
    assert [(e.kind, e.frame) for e in events] == [("left", 5)]


def test_several_labels_are_in_view_at_once_and_the_best_is_first() -> None:
    decider = Decider(thresholds=Thresholds(LABELS, (10.0, 20.0)), smoothing=Smoothing(0), enter_s=0)
    assert decider.update(frame(0.0), scores(14.0, 21.0), 0).present == ("cat", "dog")  # 4 above, 1 above
    assert decider.update(frame(0.1), scores(10.5, 23.0), 0).present == ("dog", "cat")


def test_a_rival_far_behind_the_best_is_kept_out_and_sent_out() -> None:
    far, near = (18.0, 11.0), (13.0, 12.0)
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0), enter_s=0.1, leave_s=0.1, rivals=3.0)
    made, events = play(decider, [far] * 4 + [near] * 4 + [far] * 4)
    assert [(e.kind, e.label) for e in events] == [("appeared", "cat"), ("appeared", "dog"), ("left", "dog")]
    assert made[-1].present == ("cat",)


def test_without_thresholds_probability_decides() -> None:
    decider = Decider(smoothing=Smoothing(0), enter_s=0, leave_s=0, probability=0.6)
    assert decider.update(frame(0.0), scores(0.0, 0.1), 0).present == ()
    assert decider.update(frame(0.1), scores(0.0, 2.0), 0).present == ("dog",)
    assert decider.update(frame(0.2), scores(0.0, 0.1), 0).present == ("dog",)  # 0.52: not far enough below 0.6
    assert decider.update(frame(0.3), scores(0.3, 0.0), 0).present == ()  # 0.43
    both = Decider(smoothing=Smoothing(0), enter_s=0)
    assert both.update(frame(0.0), scores(3.0, 2.0, kind="sigmoid"), 0).present == ("cat", "dog")


@pytest.mark.parametrize("thresholds", [AT_TEN, None], ids=["thresholds", "probability"])
def test_others_are_compared_with_and_never_told(thresholds: Thresholds | None) -> None:
    decider = Decider(smoothing=Smoothing(0), thresholds=thresholds, others=["dog"])
    made, events = play(decider, [(15.0, 12.0)] * 10 + [(15.0, 18.0)] * 10 + [(20.0, 18.0)] * 10)
    assert made[9].present == ("cat",)
    assert made[19].present == () and made[19].label == NONE_OF_THESE
    assert made[29].present == ("cat",)
    assert [(e.kind, e.label) for e in events] == [("appeared", "cat"), ("left", "cat"), ("appeared", "cat")]


def test_an_unchanged_frame_repeats_the_answer_while_time_goes_on() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0.2), enter_s=0.1, leave_s=0.1)
    decider.update(frame(0.0), scores(0.0, 0.0), 0)
    decider.update(frame(0.1), scores(20.0, 0.0), 0)
    events = [event for i in range(2, 12) for event in decider.repeat(frame(i / 10, i)).events]
    assert [(e.kind, e.label) for e in events] == [("appeared", "cat")]
    assert decider.repeat(frame(3.0)).logits[0] == pytest.approx(20.0, abs=1e-3)


def test_nothing_to_repeat_is_an_error() -> None:
    with pytest.raises(InputError, match="answered"):
        Decider().repeat(frame(0.0))


def test_when_the_camera_is_lost_what_is_in_view_leaves_and_all_begins_anew() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(5.0), enter_s=0)
    assert decider.end() == ()
    play(decider, [(15.0, 0.0)] * 11, fps=10.0)
    (event,) = decider.end()
    assert (event.kind, event.label, event.time_s, event.seconds) == ("left", "cat", 1.0, pytest.approx(1.0))
    assert decider.end() == ()
    made = decider.update(frame(9.0), scores(0.0, 0.0), 0)
    assert made.logits[0] == 0.0  # nothing of the smoothed 15 is left
    assert made.events == ()


def test_a_file_that_starts_over_goes_on_in_time() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0.1), enter_s=0.1, leave_s=0.1)
    _, first = play(decider, [(15.0, 0.0)] * 20)
    _, again = play(decider, [(15.0, 0.0)] * 20)
    assert [e.kind for e in first] == ["appeared"]
    assert again == []
    _, gone = play(decider, [(0.0, 0.0)] * 20)
    assert [e.kind for e in gone] == ["left"]
    assert 1.8 < (gone[0].seconds or 0) < 2.6


def test_labels_that_go_leave_and_those_that_stay_keep_their_state() -> None:
    decider = Decider(thresholds=AT_TEN, smoothing=Smoothing(0.2), enter_s=0.1, leave_s=0.1)
    play(decider, [(15.0, 15.0)] * 20)
    made = decider.update(frame(1.0, 20), scores(15.0, 30.0, labels=("dog", "bird")), 0)
    assert [(e.kind, e.label) for e in made.events] == [("left", "cat")]
    assert made.present == ("dog",)
    later = [decider.update(frame(1.0 + i / 20, 20 + i), scores(15.0, 30.0, labels=("dog", "bird")), 0) for i in (1, 2)]
    # `bird` was never measured: its threshold is the median of those known
    assert [(e.kind, e.label) for d in later for e in d.events] == [("appeared", "bird")]


@pytest.mark.parametrize(
    "wrong", [{"enter_s": -1.0}, {"leave_s": float("nan")}, {"probability": 1.0}, {"rivals": -0.5}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Decider(**wrong)  # type: ignore[arg-type]


def test_a_wrong_smoothing_is_refused() -> None:
    for seconds in (-0.1, float("inf"), float("nan")):
        with pytest.raises(InputError, match="smoothing"):
            Smoothing(seconds)
