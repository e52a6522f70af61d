"""What is read in a terminal, a pipe, a log."""

from __future__ import annotations

import io
import json
import re

from clipdeploy.text import width
from clipdeploy.watch.board import Board
from clipdeploy.watch.terminal import JsonView, LiveView, PlainView, summary
from tests.watch.fake import LABELS, event, frame, result, stats

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Out(io.StringIO):
    """A stream with an encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._charset = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._charset


def screen(text: str) -> list[str]:
    """What stands on a terminal after `text`: of the escapes only going up and erasing down move anything."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)", text):
        if part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif found := re.fullmatch(r"\x1b\[(\d+)A", part):
            row -= int(found[1])
            assert row >= 0
        elif part == "\x1b[J":
            lines = [*lines[:row], ""]
        elif part and part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return lines


def board(*cameras: str, **changes: object) -> Board:
    return Board(
        cameras or ("front",), lambda: stats(*(cameras or ("front",)), **changes), clock=iter(range(1000)).__next__
    )  # type: ignore[arg-type]


def test_a_block_a_camera_drawn_over_in_place() -> None:
    out, desk = Out(), board("front", "back")
    view = LiveView(out, desk, colours=False, window=lambda: (80, 30))
    for index in range(5):
        desk.take(result(frame(index)))
        view.tick()
    view.close()
    lines = screen(out.getvalue())
    assert lines[0].startswith("front  64x48 · 30.0 fps · 8 dropped")
    assert [line[2:14].strip() for line in lines[1:4]] == list(LABELS)
    assert lines[1].startswith("▸ a red circle  █")
    assert "90.0 %" in lines[1]
    assert lines[5].startswith("back")
    assert sum("latency 12 / 19 ms" in line for line in lines) == 1
    assert out.getvalue().endswith("\x1b[?25h")


def test_events_stand_below_and_words_above() -> None:
    out, desk = Out(), board()
    view = LiveView(out, desk, colours=False, window=lambda: (80, 30))
    desk.take(result(frame()))
    view.tick()
    for told in (event(), event("left")):
        desk.event(told)
        view.event(told)
    view.warn("the disk is full")
    view.note("the page is at http://127.0.0.1:8080/")
    view.close()
    lines = screen(out.getvalue())
    assert lines[:2] == ["warning: the disk is full", "the page is at http://127.0.0.1:8080/"]
    assert [line[10:] for line in lines if "front  a red" in line] == [
        "front  a red circle appeared",
        "front  a red circle left after 2.5 s",
    ]


def test_it_fits_the_window() -> None:
    for columns, rows in ((40, 8), (20, 4), (200, 60), (80, 24)):
        cameras = tuple(f"camera {i}" for i in range(5))
        out, desk = Out(), board(*cameras)
        view = LiveView(out, desk, colours=True, window=lambda c=columns, r=rows: (c, r))  # type: ignore[misc]
        for camera in cameras:
            desk.take(result(frame(camera=camera), labels=tuple(f"a very long label {i}" * 3 for i in range(3))))
            desk.event(event(camera=camera))
        view.tick()
        lines = screen(out.getvalue())[:-1]
        assert len(lines) <= rows - 1
        if columns >= 80:
            assert max(width(ESCAPES.sub("", line)) for line in lines) < columns


def test_many_labels_show_the_best() -> None:
    labels = tuple(f"label {i}" for i in range(40))
    out, desk = Out(), board()
    desk.take(result(frame(), [0.0] * 38 + [0.2, 0.8], labels=labels))
    LiveView(out, desk, colours=False, window=lambda: (80, 24)).tick()
    text = out.getvalue()
    assert text.index("label 39") < text.index("label 38")
    assert "label 20" not in text


def test_a_label_cannot_steer_the_terminal() -> None:
    out, desk = Out(), board("a\x1b[2Jb")
    desk.take(result(frame(camera="a\x1b[2Jb"), labels=("\x1b[31mred", "\nx", "ok")))
    view = LiveView(out, desk, colours=False, window=lambda: (80, 24))
    view.tick()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


def test_a_terminal_without_blocks_gets_ascii() -> None:
    out, desk = Out("ascii"), board()
    desk.take(result(frame(), labels=("größer", "b", "c")))
    view = LiveView(out, desk, colours=False, window=lambda: (80, 24))
    view.tick()
    view.close()
    out.getvalue().encode("ascii")
    assert "####" in out.getvalue()


def test_none_of_these_is_said() -> None:
    out, desk = Out(), board()
    desk.take(result(frame(), present=()))
    LiveView(out, desk, colours=False, window=lambda: (80, 24)).tick()
    assert "none of these" in out.getvalue()


def test_plain_lines() -> None:
    out, err = Out(), Out()
    view = PlainView(out, err, board())
    view.event(event())
    view.event(event("left"))
    view.note("so")
    view.tick()
    view.close()
    assert [line[8:] for line in out.getvalue().splitlines()] == [
        "  front  a red circle appeared",
        "  front  a red circle left after 2.5 s",
    ]
    assert err.getvalue() == "so\n"


def test_quiet_keeps_warnings() -> None:
    out, err = Out(), Out()
    view = PlainView(out, err, board(), quiet=True)
    view.note("so")
    view.warn("oh")
    assert err.getvalue() == "warning: oh\n"


def test_what_becomes_of_a_source_is_told_once() -> None:
    now = [stats(), stats(state="waiting to reconnect", error="no route"), stats(), stats(state="failed", error="gone")]
    at, err = [0], Out()
    desk = Board(("front",), lambda: now[at[0]], clock=iter(range(100)).__next__)
    view = PlainView(Out(), err, desk)
    for number in (0, 1, 1, 2, 3, 3):
        at[0] = number
        view.tick()
    assert err.getvalue().splitlines() == [
        "warning: front: waiting to reconnect: no route",
        "warning: front: running again",
        "warning: front: failed: gone",
    ]


def test_json_lines() -> None:
    out, err = Out("ascii"), Out()
    view = JsonView(out, err, board())
    view.event(event(label="größer"))
    view.event(event("left"))
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["event"], first["label"], first["camera"]) == ("appeared", "größer", "front")
    assert second["seconds"] == 2.5


def test_the_summary_accounts_for_every_frame() -> None:
    lines = summary(board())
    assert lines[0] == "front: 100 frames: 70 answered, 20 repeated, 8 dropped, 2 failed"
    assert lines[-1] == "4 events in 12.5 s"


def test_nothing_is_in_view_of_a_camera_that_has_gone() -> None:
    out, desk = Out(), board(state="waiting to reconnect", error="no route")
    desk.take(result(frame()))
    LiveView(out, desk, colours=False, window=lambda: (80, 24)).tick()
    assert "▸" not in out.getvalue()
    assert "none of these" in out.getvalue()
