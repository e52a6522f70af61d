"""Events as JSON lines: rotation, a full disk, a line never torn, streams."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipdeploy.errors import OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks import JsonLines, Outbox, Sink, event_as_dict


def event(frame: int = 7, label: str = "red circle", seconds: float | None = None) -> Event:
    kind = "appeared" if seconds is None else "left"
    return Event(kind, label, "door", 1_700_000_000.25, 3.5, frame, 0.987654, seconds)  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_says_what_happened_in_utc() -> None:
    assert event_as_dict(event(seconds=1.25)) == {
        "event": "left",
        "label": "red circle",
        "camera": "door",
        "time": "2023-11-14T22:13:20.250+00:00",
        "time_s": 3.5,
        "frame": 7,
        "probability": 0.9877,
        "seconds": 1.25,
    }
    assert "seconds" not in event_as_dict(event())


def test_appends_a_line_an_event_and_each_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "from before"}\n')
    sink: Sink = JsonLines(path)
    sink.write(event(1, "Straße"))
    assert [line["event"] for line in lines(path)] == ["from before", "appeared"]
    assert "Straße" in path.read_text(encoding="utf-8")
    sink.write(event(2))
    assert lines(path)[-1]["frame"] == 2
    sink.close()


@pytest.mark.parametrize("how", ["moved", "deleted", "truncated"])
def test_survives_log_rotation(tmp_path: Path, how: str) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLines(path)
    sink.write(event(1))
    if how == "moved":
        path.rename(tmp_path / "events.jsonl.1")
    elif how == "deleted":
        path.unlink()
    else:
        os.truncate(path, 0)
    sink.write(event(2))
    sink.close()
    assert [line["frame"] for line in lines(path)] == [2]
    if how == "moved":
        assert [line["frame"] for line in lines(tmp_path / "events.jsonl.1")] == [1]


def test_a_folder_that_goes_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "usb"
    folder.mkdir()
    outbox = Outbox([JsonLines(folder / "events.jsonl")])
    (folder / "events.jsonl").unlink()
    folder.rmdir()
    outbox.put(event(1))
    wait_until(lambda: outbox.stats()[0].error is not None)
    assert "events.jsonl" in str(outbox.stats()[0].error)
    folder.mkdir()
    wait_until(lambda: outbox.stats()[0].delivered == 1)
    outbox.close()
    assert [line["frame"] for line in lines(folder / "events.jsonl")] == [1]
    assert outbox.stats()[0].error is None


def test_no_such_folder_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        JsonLines(tmp_path / "nowhere" / "events.jsonl")


def test_writes_to_a_stream_and_leaves_it_open() -> None:
    stream = io.StringIO()
    sink = JsonLines(stream)
    sink.write(event(3))
    sink.close()
    assert json.loads(stream.getvalue())["frame"] == 3
    stream.close()
    with pytest.raises(OutputError, match="closed"):
        sink.write(event(4))


def test_a_lone_surrogate_is_still_json(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLines(path)
    sink.write(event(label="odd \udc80 name"))
    sink.close()
    assert lines(path)[0]["label"] == "odd \udc80 name"


def test_a_device_that_is_always_full_costs_events_and_nothing_else() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    outbox = Outbox([JsonLines(full)], largest=3)
    for frame in range(10):
        outbox.put(event(frame))
    wait_until(lambda: outbox.stats()[0].error is not None)
    assert "No space left" in str(outbox.stats()[0].error)
    outbox.close(timeout=0.2)
    stats = outbox.stats()[0]
    assert (stats.delivered, stats.lost, stats.waiting) == (0, 10, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_tears_no_line_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path, filler = small_disk / "events.jsonl", small_disk / "filler"
    outbox = Outbox([JsonLines(path)])
    filler.write_bytes(b"x" * (60 * 1024))
    for frame in range(200):  # some 30 KiB
        outbox.put(event(frame))
    wait_until(lambda: outbox.stats()[0].error is not None)
    assert "No space left" in str(outbox.stats()[0].error)
    assert 0 < outbox.stats()[0].delivered < 200
    filler.unlink()
    outbox.close(timeout=10)
    assert [line["frame"] for line in lines(path)] == list(range(200))
    assert outbox.lost == 0


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    from time import monotonic, sleep

    ends = monotonic() + seconds
    while not true():
        assert monotonic() < ends, "waited in vain"
        sleep(0.01)
