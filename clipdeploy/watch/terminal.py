"""What a person reads in the terminal: a block a camera that is drawn over in place, plain lines, or JSON lines."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from typing import TextIO

from clipdeploy.runtime.stream.records import NONE_OF_THESE, CameraStats, Event
from clipdeploy.runtime.stream.sinks import event_as_dict
from clipdeploy.text import bar, encodable, one_line, pad, width
from clipdeploy.watch.board import Board
from clipdeploy.watch.shown import Bar, bars, clock_time, counts, event_words, percent, present

MOST_BARS = 8
_EVENTS = 4
_NAME, _BAR = 28, 24  # columns
_UP, _ERASE_DOWN = "\x1b[{}A", "\x1b[J"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_COLOURS = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}


class PlainView:
    """A line an event on `out`, and a line on `err` when a source's state changes: for pipes and logs.

    Args:
        out: for events; None leaves them out, where a file or another program has them.
        err: for all else.
        board: what was seen last.
        quiet: no notes.
    """

    def __init__(self, out: TextIO | None, err: TextIO, board: Board, *, quiet: bool = False) -> None:
        self._out, self._err, self._board, self._quiet = out, err, board, quiet
        self._states: dict[str, tuple[str, str | None]] = {}
        self._lock = threading.Lock()

    def event(self, event: Event) -> None:
        """Print it."""
        if self._out is not None:
            self._line(self._out, event_line(event))

    def note(self, text: str) -> None:
        """Print it, unless quiet."""
        if not self._quiet:
            self._line(self._err, text)

    def warn(self, text: str) -> None:
        """Print it."""
        self._line(self._err, f"warning: {text}")

    def tick(self) -> None:
        """Tell what became of the sources."""
        for text in state_changes(self._board, self._states):
            self.warn(text)

    def close(self) -> None:
        """Tell the last changes."""
        self.tick()

    def _line(self, stream: TextIO, text: str) -> None:
        with self._lock:
            stream.write(fitting(text, stream) + "\n")
            stream.flush()


class JsonView(PlainView):
    """A JSON object a line on `out` for each event."""

    def event(self, event: Event) -> None:
        """Print it."""
        if self._out is not None:
            self._line(self._out, json_line(event_as_dict(event), self._out))


class LiveView:
    """A block a camera, drawn over in place a few times a second; as many bars as the window has room for.

    Args:
        out: a terminal.
        board: what was seen last.
        colours: whether to colour.
        quiet: no notes.
        window: (columns, rows) of the terminal, for tests.
    """

    def __init__(
        self,
        out: TextIO,
        board: Board,
        *,
        colours: bool = True,
        quiet: bool = False,
        window: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._out, self._board, self._colours, self._quiet = out, board, colours, quiet
        self._window = window or _window
        self._states: dict[str, tuple[str, str | None]] = {}
        self._drawn, self._closed = 0, False
        self._unicode = encodable("█▏─·▸", out)
        self._lock = threading.Lock()

    def event(self, event: Event) -> None:
        """Nothing: the block shows the newest ones."""

    def note(self, text: str) -> None:
        """Print it above the block, unless quiet."""
        if not self._quiet:
            self._above(text)

    def warn(self, text: str) -> None:
        """Print it above the block."""
        self._above(f"{self._paint('warning:', 'yellow')} {one_line(text)}")

    def tick(self) -> None:
        """Draw the block anew."""
        for text in state_changes(self._board, self._states):
            self.warn(text)
        with self._lock:
            if not self._closed:
                self._draw()

    def close(self) -> None:
        """Draw for the last time, and leave the block where it stands."""
        self.tick()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._out.write(_SHOW)
                self._out.flush()

    def _above(self, text: str) -> None:
        with self._lock:
            self._erase()
            self._out.write(fitting(text, self._out) + "\n")
            if not self._closed:
                self._draw()
            self._out.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._out.write("\r" + _UP.format(self._drawn) + _ERASE_DOWN)
            self._drawn = 0

    def _draw(self) -> None:
        columns, rows = self._window()
        lines = self._lines(max(columns - 1, 20), max(rows - 1, 3))
        self._erase()
        self._out.write(_HIDE + "".join(f"{fitting(line, self._out)}\n" for line in lines))
        self._drawn = len(lines)
        self._out.flush()

    def _lines(self, columns: int, rows: int) -> list[str]:
        """The block, no longer than `rows`: bars give way first, then events, then cameras."""
        stats = self._board.stats()
        cameras = stats.cameras
        events = [told.event for told in self._board.events()][-_EVENTS:]
        room = rows - 1 - len(cameras) - (len(events) + 1 if events else 0)
        if room < len(cameras) and events:
            room, events = room + len(events) + 1, []
        each = max(min(room // max(len(cameras), 1), MOST_BARS + 1), 0)
        lines = []
        for camera in cameras:
            lines.append(self._head(camera, columns))
            lines += self._bars(camera, max(each - 1, 0), columns)
            if each:
                lines.append("")
        p50, p95, _ = stats.latency_ms
        dot = " · " if self._unicode else ", "
        parts = [f"latency {p50:.0f} / {p95:.0f} ms (p50 / p95)", f"{stats.events} events", f"{stats.seconds:.0f} s"]
        if stats.events_lost:
            parts.insert(2, f"{stats.events_lost} of them lost")
        lines.append(self._paint(_cut(dot.join(parts), columns), "dim"))
        if events:
            lines.append("")
            lines += [self._paint(_cut(event_line(e), columns), "" if e.kind == "appeared" else "dim") for e in events]
        return lines[-rows:]

    def _head(self, camera: CameraStats, columns: int) -> str:
        """The camera's name, and how its source does: size, frames a second, latency (p50), what was lost."""
        seen = self._board.newest(camera.camera)
        dot = " · " if self._unicode else ", "
        how: list[str] = [camera.state] if camera.state != "running" else []
        how += [f"{camera.fps:.1f} fps"]
        how += [f"{camera.latency_ms[0]:.0f} ms"] if any(camera.latency_ms) else []
        if seen is not None:
            how.insert(0, f"{seen.result.frame.width}x{seen.result.frame.height}")
        how += [f"{camera.dropped} dropped"] if camera.dropped else []
        how += [f"{camera.failed} failed"] if camera.failed else []
        text = dot.join(how)
        name = _cut(one_line(camera.camera), max(columns - width(text) - 2, 8))
        colour = {"running": "dim", "ended": "dim", "failed": "red"}.get(camera.state, "yellow")
        return f"{self._paint(name, 'bold')}  {self._paint(text, colour)}"

    def _bars(self, camera: CameraStats, most: int, columns: int) -> list[str]:
        seen = self._board.newest(camera.camera)
        if seen is None or not most:
            return []
        here = present(seen.result.decision, camera)
        shown = bars(seen.result.decision, most, here)
        name = min(max((width(one_line(one.label)) for one in shown), default=0), _NAME, columns // 3)
        lines = [self._bar(camera.camera, one, name, columns) for one in shown]
        if not here and len(lines) < most:
            lines.append(self._paint(f"  {NONE_OF_THESE}", "dim"))
        return lines

    def _bar(self, camera: str, one: Bar, name: int, columns: int) -> str:
        cells = max(min(_BAR, columns - name - 24), 4)
        filled = bar(one.probability, cells, unicode=self._unicode)
        label = pad(_cut(one_line(one.label), name), name)
        since = self._board.in_view_s(camera, one.label) if one.present else None
        tail = "" if since is None else f"  {since:.0f} s"
        mark = ("▸ " if self._unicode else "> ") if one.present else "  "
        if one.present:
            label = self._paint(label, "green", "bold")
        return f"{mark}{label}  {self._paint(filled, 'green' if one.present else 'cyan')}  " + (
            f"{percent(one.probability)}{tail}"
        )

    def _paint(self, text: str, *styles: str) -> str:
        codes = ";".join(_COLOURS[style] for style in styles if style)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes and self._colours and text else text


def event_line(event: Event) -> str:
    """Such as `14:03:59  front  a red circle appeared`."""
    return f"{clock_time(event.wall)}  {one_line(event.camera)}  {one_line(event.label)} {event_words(event)}"


def json_line(document: dict[str, object], out: TextIO) -> str:
    """One line of JSON that `out` can carry."""
    text = json.dumps(document, ensure_ascii=False, default=str)
    return text if encodable(text, out) else json.dumps(document, default=str)


def state_changes(board: Board, known: dict[str, tuple[str, str | None]]) -> list[str]:
    """What is new of the sources since `known`, which is brought up to date, as sentences."""
    told = []
    for camera in board.stats().cameras:
        state = (camera.state, camera.error)
        before = known.get(camera.camera)
        known[camera.camera] = state
        if before is not None and before[0] == camera.state:
            continue
        if camera.state in ("waiting to reconnect", "failed"):
            told.append(f"{one_line(camera.camera)}: {camera.state}: {one_line(camera.error or 'it gave no reason')}")
        elif camera.state == "running" and before is not None and before[0] == "waiting to reconnect":
            told.append(f"{one_line(camera.camera)}: running again")
    return told


def summary(board: Board) -> list[str]:
    """The counts at the end, in a few lines."""
    stats = board.stats(fresh=True)
    lines = [f"{one_line(camera.camera)}: {counts(camera)}{_latency(camera)}" for camera in stats.cameras]
    p50, p95, p99 = stats.latency_ms
    lines.append(f"latency {p50:.1f} / {p95:.1f} / {p99:.1f} ms (p50 / p95 / p99), {stats.batch:.1f} frames a run")
    lost = f", {stats.events_lost} lost" if stats.events_lost else ""
    lines.append(f"{stats.events} events{lost} in {stats.seconds:.1f} s")
    return lines


def _latency(camera: CameraStats) -> str:
    """Of a camera that was answered."""
    return f", {camera.latency_ms[0]:.0f} / {camera.latency_ms[1]:.0f} ms (p50 / p95)" if any(camera.latency_ms) else ""


def fitting(text: str, stream: TextIO) -> str:
    """`text` as `stream` can carry it."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _cut(text: str, columns: int) -> str:
    """As much as fits into `columns` cells."""
    while width(text) > columns:
        text = text[:-1]
    return text


def _window() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines
