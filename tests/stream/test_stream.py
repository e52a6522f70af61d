"""A stream as an app meets it: every frame accounted for, nobody starved, nothing left behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import BackendError, InputError, SourceError
from clipdeploy.runtime.stream import Backoff, Event, Gate, Result, Smoothing, Stream, StreamStats, open_source
from tests.stream.fakes import BRIGHT, DARK, FakeAnswerer, FakeSource, until

QUICK = Backoff(first_s=0.01, longest_s=0.02)


def stream(model: Any, sources: Any, **options: Any) -> Stream:
    """One that asks about every frame and takes each answer as it is, unless told otherwise."""
    plain = {"gate": None, "smoothing": None, "enter_s": 0.0, "leave_s": 0.0, "reconnect": QUICK}
    return Stream(model, sources, **{**plain, **options})


def check_accounts(stats: StreamStats) -> None:
    for one in stats.cameras:
        assert one.captured == one.answered + one.repeated + one.dropped + one.failed + one.waiting, one


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [one for one in threading.enumerate() if one not in before and one.name.startswith("clipdeploy")]
    for one in left:
        one.join(2.0)
    assert not [one.name for one in left if one.is_alive()]


def test_a_file_loses_no_frame_and_keeps_their_order() -> None:
    source = FakeSource(live=False, count=50)
    with stream(FakeAnswerer(), source, keep_results=2) as running:
        results = list(running)
        stats = running.stats()
    assert [one.frame.index for one in results] == list(range(50))
    assert stats.cameras[0].answered == stats.cameras[0].captured == 50
    assert stats.cameras[0].state == "ended"
    assert (stats.cameras[0].undelivered, stats.cameras[0].waiting) == (0, 0)
    assert source.closed == 1


def test_a_slow_app_holds_a_file_back() -> None:
    source = FakeSource(live=False, count=200)
    with stream(FakeAnswerer(), source, keep_results=3, queue=2, max_batch=2) as running:
        results = iter(running)
        next(results)
        time.sleep(0.1)
        assert source.given <= 1 + 3 + 2 + 2 + 1  # taken, waiting for the app, waiting for the model, at the door
        assert [one.frame.index for one in results] == list(range(1, 200))


def test_a_live_camera_drops_the_oldest_and_counts_them() -> None:
    model = FakeAnswerer()
    model.go.clear()
    source = FakeSource(count=20, gap_s=0.005, waits=True)
    with stream(model, source) as running:
        until(lambda: source.given == 20)
        time.sleep(0.02)
        assert model.busy.is_set()
        check_accounts(running.stats())
        model.go.set()
        results = iter(running)
        first, second = next(results), next(results)
        until(lambda: running.stats().cameras[0].answered == 2)
        stats = running.stats()
    assert (first.frame.index < 5, second.frame.index) == (True, 19)  # the newest was kept
    assert stats.cameras[0].dropped == 18
    check_accounts(stats)


def test_a_slow_app_loses_old_results_of_a_live_camera_only() -> None:
    source = FakeSource(count=30, gap_s=0.002)
    with stream(FakeAnswerer(), source, queue=100, keep_results=4) as running:
        until(lambda: running.stats().cameras[0].state == "ended")
        until(lambda: running.stats().cameras[0].answered == 30)
        results = list(running)
        stats = running.stats()
    assert [one.frame.index for one in results] == [26, 27, 28, 29]
    assert stats.cameras[0].undelivered == 26


def test_cameras_share_one_run_of_the_model() -> None:
    model = FakeAnswerer()
    sources = [FakeSource(f"cam{i}", count=20, gap_s=0.02) for i in range(4)]
    with stream(model, sources, deadline_ms=15.0) as running:
        results = list(running)
        stats = running.stats()
    assert stats.batch > 2.0
    assert all(len(run) <= 4 and len({camera for camera, _ in run}) == len(run) for run in model.runs)
    for source in sources:
        mine = [one.frame.index for one in results if one.frame.camera == source.name]
        assert mine == sorted(mine)
    assert max(one.batch for one in results) == 4


def test_a_deadline_of_nothing_waits_for_nobody() -> None:
    model = FakeAnswerer()
    sources = [FakeSource("a", count=15, gap_s=0.01), FakeSource("b", count=15, gap_s=0.01)]
    with stream(model, sources, deadline_ms=0.0) as running:
        results = list(running)
    assert max(one.waited_s for one in results) < 0.4
    assert len(results) == 30


def test_a_lone_camera_waits_for_nobody() -> None:
    with stream(FakeAnswerer(), FakeSource(count=10, gap_s=0.01), deadline_ms=500.0) as running:
        results = list(running)
    assert max(one.latency_s for one in results) < 0.4


def test_a_fast_camera_never_starves_a_slow_one() -> None:
    fast, slow = FakeSource("fast", count=None, gap_s=0.0005), FakeSource("slow", count=10, gap_s=0.03)
    done: list[Result] = []
    model = FakeAnswerer(seconds=0.004)
    with stream(model, [fast, slow], max_batch=1, deadline_ms=0.0, queue=10) as running:  # room for all of the slow one
        for one in running:
            done.append(one)
            if one.frame.camera == "slow" and one.frame.index == 9:
                running.stop()
        stats = running.stats()
    assert stats.cameras[1].answered == 10
    assert max(one.latency_s for one in done if one.frame.camera == "slow") < 0.5
    assert stats.cameras[0].dropped > 0
    check_accounts(stats)


def test_files_of_two_cameras_take_turns() -> None:
    model = FakeAnswerer(seconds=0.002)
    sources = [FakeSource(name, live=False, count=40) for name in ("a", "b")]
    with stream(model, sources, max_batch=4) as running:
        list(running)
    halfway = [camera for run in model.runs for camera, _ in run][:40]
    assert min(Counter(halfway).values()) >= 12


def test_the_gate_repeats_the_last_answer_at_once() -> None:
    model = FakeAnswerer()
    source = FakeSource(live=False, count=40, value=lambda index: 20 if index < 20 else 220)
    with stream(model, source, gate=Gate(every_s=0.39)) as running:
        results = list(running)
        stats = running.stats()
    asked = [one.frame.index for one in results if not one.repeated]
    assert asked == [0, 10, 20, 30]  # each 0.4 s of the file, and where it changed
    assert [one.frame.index for one in results] == list(range(40))
    assert {one.decision.label for one in results[:20]} == {DARK}
    assert {one.decision.label for one in results[20:]} == {BRIGHT}
    assert all(one.scores.logits.shape == (1, 2) for one in results)
    assert (stats.cameras[0].answered, stats.cameras[0].repeated) == (4, 36)


def test_smoothing_goes_on_over_repeated_frames() -> None:
    source = FakeSource(live=False, count=40, value=lambda index: 20 if index < 10 else 220)
    with stream(FakeAnswerer(), source, gate=Gate(every_s=10.0), smoothing=Smoothing(0.2)) as running:
        results = list(running)
    assert [one.repeated for one in results].count(False) == 2
    assert results[10].decision.label == DARK  # not settled yet
    assert results[-1].decision.label == BRIGHT


def test_events_reach_on_event_in_order_and_the_last_view_is_left() -> None:
    source = FakeSource(live=False, count=30, value=lambda index: 20 if index < 15 else 220)
    told: list[Event] = []
    with stream(FakeAnswerer(), source, on_event=told.append) as running:
        running.run()
        stats = running.stats()
    assert [(one.kind, one.label) for one in told] == [
        ("appeared", DARK), ("left", DARK), ("appeared", BRIGHT), ("left", BRIGHT),
    ]  # fmt: skip
    assert (stats.events, stats.events_lost) == (4, 0)


def test_on_event_that_raises_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(event: Event) -> None:
        raise RuntimeError("no")

    source = FakeSource(live=False, count=30, value=lambda index: 220 * (index % 2))
    with stream(FakeAnswerer(), source, on_event=refuse) as running:
        assert len(list(running)) == 30
        stats = running.stats()
    assert stats.events == stats.events_lost > 10
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert len(caplog.records) == 1


def test_a_frame_that_the_model_fails_on_takes_no_other_with_it() -> None:
    def fails(frames: Any) -> Exception | None:
        return ValueError("broken") if any(frame.camera == "bad" for frame in frames) else None

    sources = [FakeSource("good", live=False, count=60), FakeSource("bad", live=False, count=25)]
    with stream(FakeAnswerer(fails=fails), sources) as running:
        results = list(running)
        stats = running.stats()
    assert {one.frame.camera for one in results} == {"good"}
    assert [(one.answered, one.failed) for one in stats.cameras] == [(60, 0), (0, 25)]  # fewer than end a stream
    assert stats.error == "ValueError: broken"
    check_accounts(stats)


def test_a_model_that_fails_for_a_while_is_asked_again() -> None:
    broken = iter([True] * 6)
    model = FakeAnswerer(fails=lambda frames: BackendError("busy") if next(broken, False) else None)
    source = FakeSource(live=False, count=40, value=lambda index: 20)
    with stream(model, source, gate=Gate(every_s=100.0), max_batch=2) as running:
        results = list(running)
        stats = running.stats()
    assert stats.cameras[0].failed > 0
    assert [one.repeated for one in results].count(False) == 1
    assert len(results) == 40 - stats.cameras[0].failed
    assert [one.frame.index for one in results] == sorted(one.frame.index for one in results)


def test_a_model_that_always_fails_ends_the_stream_with_its_error() -> None:
    model = FakeAnswerer(fails=lambda frames: BackendError("the device is gone"))
    sources = [FakeSource("file", live=False, count=None), FakeSource("live", count=None, gap_s=0.001)]
    with stream(model, sources) as running:
        with pytest.raises(BackendError, match="the device is gone"):
            running.run()
        with pytest.raises(BackendError, match="the device is gone"):
            next(iter(running))
        check_accounts(running.stats())
    assert [one.closed for one in sources] == [1, 1]


def test_a_source_that_breaks_is_opened_again_and_counts_on() -> None:
    source = FakeSource(count=30, gap_s=0.001, breaks=(7, 8, 20))
    with stream(FakeAnswerer(), source, queue=100) as running:
        results = list(running)
        stats = running.stats()
    assert [one.frame.index for one in results] == list(range(30))
    assert (stats.cameras[0].reconnects, stats.cameras[0].state) == (3, "ended")
    assert stats.cameras[0].error == "cam broke off before frame 20"


@pytest.mark.parametrize("loop", [False, True])
def test_a_damaged_film_that_plays_as_a_camera_is_not_opened_again(tmp_path: Path, loop: bool) -> None:
    """One that is to begin anew is, as long as any of it can be read."""
    pytest.importorskip("av")
    from tests.stream.films import demo_frames, write_film

    film = write_film(tmp_path / "film.mp4", demo_frames(seconds=1.0), container={"movflags": "faststart"})
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])
    source = open_source(film, realtime=True, loop=loop)
    assert source.live
    running = stream(FakeAnswerer(), source, queue=100)
    with running:
        if loop:
            until(lambda: running.stats().cameras[0].reconnects >= 2, 20)
            (tmp_path / "other").write_bytes(b"no film")
            (tmp_path / "other").replace(film)  # nobody finds it half written
        with pytest.raises(SourceError, match=r"breaks off at|no video that can be read"):
            running.run()
        stats = running.stats().cameras[0]
    assert stats.state == "failed" and stats.answered > 3
    assert stats.error is not None and str(film) in stats.error
    assert bool(stats.reconnects) is loop


def test_a_source_that_fails_for_ever_ends_only_its_camera() -> None:
    dead = FakeSource("dead", refuses=100)
    with stream(
        FakeAnswerer(), [dead, FakeSource("alive", count=5, gap_s=0.01)], reconnect=Backoff(0.01, attempts=2)
    ) as running:
        results = list(running)
        stats = running.stats()
    assert dead.opened == 3
    assert [one.frame.camera for one in results] == ["alive"] * 5
    assert [one.state for one in stats.cameras] == ["failed", "ended"]


def test_where_all_sources_fail_the_app_is_told() -> None:
    sources = [FakeSource("one", live=False, refuses=1), FakeSource("two", live=False, refuses=1)]
    with stream(FakeAnswerer(), sources) as running, pytest.raises(SourceError, match=r"one is not there.*two"):
        running.run()
    assert [one.opened for one in sources] == [1, 1]  # what is no camera is not tried again


def test_an_iterable_of_the_app_that_raises_fails_with_its_error() -> None:
    class Broken(FakeSource):
        def frames(self, stop: threading.Event) -> Any:
            yield from super().frames(stop)
            raise KeyError("mine")

    with stream(FakeAnswerer(), Broken(live=False, count=3)) as running:
        results = iter(running)
        assert [next(results).frame.index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SourceError, match="KeyError: 'mine'") as caught:
            next(results)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_camera_that_is_away_too_long_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.stream.lane.LOST_S", 0.1)
    told: list[Event] = []
    source = FakeSource(count=20, gap_s=0.005, breaks=(10,), value=lambda index: 20)
    with stream(FakeAnswerer(), source, on_event=told.append, reconnect=Backoff(0.5, longest_s=0.5)) as running:
        running.run()
    assert [(one.kind, one.frame) for one in told] == [("appeared", 0), ("left", 9), ("appeared", 10), ("left", 19)]


def test_a_short_cut_changes_nothing_in_view() -> None:
    told: list[Event] = []
    source = FakeSource(count=20, gap_s=0.005, breaks=(10,), value=lambda index: 20)
    with stream(FakeAnswerer(), source, on_event=told.append) as running:
        running.run()
    assert [(one.kind, one.frame) for one in told] == [("appeared", 0), ("left", 19)]


def test_labels_are_swapped_while_it_runs() -> None:
    told: list[Event] = []
    source = FakeSource(count=None, gap_s=0.005, value=lambda index: 20)
    with stream(FakeAnswerer(), source, gate=Gate(every_s=100.0), on_event=told.append) as running:
        results = iter(running)
        next(results)
        running.swap(["night", "day"])
        after = next(one for one in results if one.decision.labels == ("night", "day"))
        assert running.labels == ("night", "day")
        running.stop()
    assert not after.repeated
    assert [(one.kind, one.label) for one in told[:3]] == [("appeared", DARK), ("left", DARK), ("appeared", "night")]


def test_what_cannot_be_swapped_says_so() -> None:
    model: Any = type("Fixed", (), {"labels": ("a",), "answer": FakeAnswerer.answer})()
    with pytest.raises(InputError, match="cannot be swapped"):
        stream(model, FakeSource()).swap(["b"])


@pytest.mark.parametrize("where", ["app", "thread", "on_event"])
def test_stop_is_prompt_from_anywhere_and_any_number_of_times(where: str) -> None:
    source = FakeSource(count=None, gap_s=0.005, value=lambda index: 220 * (index % 2))
    sources = [source, FakeSource("file", live=False, count=None)]
    running = stream(
        FakeAnswerer(seconds=0.005), sources, on_event=lambda event: running.stop() if where == "on_event" else None
    )
    with running:
        results = iter(running)
        next(results, None)  # none, where the first event has stopped it already
        began = time.monotonic()
        for _ in range(3):
            if where == "app":
                running.stop()
            elif where == "thread":
                threading.Thread(target=running.stop).start()
        for _ in results:
            pass
        assert time.monotonic() - began < 1.0
        stats = running.stats()
    running.close()
    check_accounts(stats)
    assert [one.waiting for one in stats.cameras] == [0, 0]
    assert [one.state for one in stats.cameras] == ["ended", "ended"]


def test_a_stream_that_never_ran_closes_its_sinks() -> None:
    class Closing:
        name, closed = "mine", 0

        def write(self, event: Event) -> None:
            raise AssertionError(event)

        def close(self) -> None:
            self.closed += 1

    sink = Closing()
    running = stream(FakeAnswerer(), FakeSource(), sinks=[sink])
    running.close()
    running.close()
    assert sink.closed == 1
    assert list(running) == []


def test_a_loop_without_with_ends_the_stream_when_it_is_left() -> None:
    source = FakeSource(count=None, gap_s=0.001)
    for one in stream(FakeAnswerer(), source):
        assert one.frame.index >= 0
        break
    gc.collect()
    until(lambda: source.closed == 1)


def test_a_stream_that_is_forgotten_ends() -> None:
    source = FakeSource(count=None, gap_s=0.001)
    running = stream(FakeAnswerer(), source)
    running.__enter__()
    until(lambda: source.given > 3)
    del running
    gc.collect()
    until(lambda: source.closed == 1)


def test_stats_can_be_asked_at_any_time() -> None:
    running = stream(FakeAnswerer(), [FakeSource("a"), FakeSource("b")])
    before = running.stats()
    assert (before.seconds, before.latency_ms, before.batch, before.events) == (0.0, (0.0, 0.0, 0.0), 0.0, 0)
    assert [one.state for one in before.cameras] == ["opening", "opening"]
    with running:
        running.run()
        after = running.stats()
    assert after.latency_ms[0] <= after.latency_ms[1] <= after.latency_ms[2]
    assert after.answer_ms[0] > 0.0
    assert before.cameras[0].latency_ms == (0.0, 0.0, 0.0)
    for camera in after.cameras:
        assert 0.0 < camera.latency_ms[0] <= camera.latency_ms[2] <= max(one.latency_ms[2] for one in after.cameras)
    assert after.seconds > 0.0


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two sources are called 'cam'"):
        stream(FakeAnswerer(), [FakeSource(), FakeSource()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch must be a whole number above 0, got 0"),
        ({"queue": 1.5}, "queue must be a whole number above 0, got 1.5"),
        ({"keep_results": True}, "keep_results must be a whole number above 0, got True"),
        ({"deadline_ms": -1.0}, "deadline_ms must not be negative"),
        ({"labels": ["a"]}, "a FakeAnswerer has its own labels"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream(FakeAnswerer(), FakeSource(), **options)


def test_no_source_and_no_model_are_refused() -> None:
    with pytest.raises(InputError, match="no source"):
        stream(FakeAnswerer(), [])
    with pytest.raises(InputError, match="expected a Clip, a Baked or an Answerer, got str"):
        stream("bundle/", FakeSource())


def test_every_frame_is_accounted_for_whatever_happens() -> None:
    rng = np.random.default_rng(0)
    ends = time.monotonic() + 4.0
    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        seed = int(rng.integers(1 << 30))
        _stress(np.random.default_rng(seed), seed)
    assert rounds > 5


def _steps(every: int, index: int) -> int:
    return 40 * ((index // every) % 6)


def _stress(rng: np.random.Generator, seed: int) -> None:
    """Sources of all kinds that break and end, a model that fails, an app that is slow, a swap, perhaps a stop."""
    chance, lock = np.random.default_rng(seed), threading.Lock()

    def fails(frames: Any) -> Exception | None:
        with lock:
            return BackendError(f"no {len(frames)}") if chance.random() < 0.15 else None

    sources = [
        FakeSource(
            f"cam{i}",
            live=bool(live := rng.random() < 0.6),
            count=int(rng.integers(0, 60)),
            gap_s=float(rng.choice([0.0, 0.001, 0.005])),
            value=partial(_steps, int(rng.integers(1, 9))),
            breaks=tuple(rng.integers(0, 60, 3).tolist()) if live else (),
            refuses=int(rng.integers(0, 3)) if live else 0,
        )
        for i in range(int(rng.integers(1, 6)))
    ]
    slow, stop_at = bool(rng.random() < 0.3), int(rng.integers(1, 80)) if rng.random() < 0.3 else None
    running = stream(
        FakeAnswerer(seconds=float(rng.choice([0.0, 0.002])), fails=fails),
        sources,
        gate=Gate(every_s=0.1) if rng.random() < 0.5 else None,
        max_batch=int(rng.integers(1, 6)),
        queue=int(rng.integers(1, 4)),
        deadline_ms=float(rng.choice([0.0, 3.0])),
        keep_results=int(rng.integers(1, 9)),
    )
    got: Counter[str] = Counter()
    last: dict[str, int] = {}
    with running:
        for number, one in enumerate(running):
            camera = one.frame.camera
            got[camera] += 1
            assert one.frame.index > last.get(camera, -1), seed
            last[camera] = one.frame.index
            if number % 7 == 0:
                check_accounts(running.stats())
            if slow and number % 10 == 0:
                time.sleep(0.005)
            if number == 20:
                running.swap(["night", "day"])
            if number == stop_at:
                running.stop()
        stats = running.stats()
    check_accounts(stats)
    for source, one in zip(sources, stats.cameras, strict=True):
        assert one.waiting == 0, (seed, one)
        assert one.captured == source.given, (seed, one)
        assert got[source.name] + one.undelivered == one.answered + one.repeated, (seed, one)
        if not source.live and stop_at is None:
            assert (one.dropped, one.undelivered) == (0, 0), (seed, one)
            assert one.captured == source.count
        assert source.closed == source.opened - min(source.opened, source.refuses), (seed, one)


def test_importing_the_runtime_does_not_import_the_stream() -> None:
    code = (
        "import sys, clipdeploy.runtime as r; assert 'clipdeploy.runtime.stream' not in sys.modules; "
        "assert r.Stream.__name__ == 'Stream'; "
        "assert not {'av', 'cv2', 'paho', 'http.server'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
