"""What names a source, how it is shown, and when it is opened again."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import InputError, MissingExtraError, SourceError
from clipdeploy.runtime.stream.sources import Backoff, Source, open_source
from clipdeploy.runtime.stream.sources.names import without_secrets
from clipdeploy.runtime.stream.sources.source import Thinning

GRAY = np.full((4, 6, 3), 127, np.uint8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://bob:secret@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://bob:se@cret@cam/live", "rtsp://cam/live"),
        ("rtsp://bob:sec/ret@cam/live", "rtsp://cam/live"),
        ("rtsp://bob@cam/live", "rtsp://cam/live"),
        ("rtsp://[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
        ("http://cam/img@2x.mjpg", "http://cam/img@2x.mjpg"),
        ("http://cam/v.cgi?user=bob&pwd=secret&res=hd", "http://cam/v.cgi?user=***&pwd=***&res=hd"),
        ("http://cam/v?access_token=secret", "http://cam/v?access_token=***"),
        ("rtspsrc location=rtsp://bob:secret@cam/a user-pw=secret ! decodebin", None),
        ('rtspsrc location="rtsp://cam/a" user-id=bob user-pw="my secret" ! decodebin', None),
        ("cannot open 'rtsp://bob:secret@cam/a': timed out", "cannot open 'rtsp://cam/a': timed out"),
    ],
)
def test_no_password_is_shown(text: str, shown: str | None) -> None:
    assert "secret" not in without_secrets(text)
    assert "ret@" not in without_secrets(text)
    if shown is not None:
        assert without_secrets(text) == shown
    else:
        assert without_secrets(text).endswith("! decodebin")


def test_a_camera_is_called_by_its_address_without_the_password() -> None:
    pytest.importorskip("av")
    source = open_source("rtsp://bob:secret@cam/live")
    assert source.name == "rtsp://cam/live"
    assert source.live
    assert open_source("rtsp://bob:secret@cam/live", name="door").name == "door"


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("nowhere.mp4", SourceError, "nowhere.mp4 does not exist"),
        ("", InputError, "empty name"),
        ("nowhere/*.jpg", SourceError, "holds no picture"),
        ("ftp://bob:secret@host/a.mp4", InputError, "known: rtsp://"),
        ("/dev/video77", SourceError, "no camera /dev/video77"),
        (77, SourceError, "no camera /dev/video77"),
        ("v4l2:77", SourceError, "no camera /dev/video77"),
        ("gst:", InputError, "pipeline is empty"),
        ('videotestsrc ! "', InputError, "close its quotes"),
        (True, InputError, "a bool is no source"),
        (3.5, InputError, "a float is no source"),
        (None, InputError, "a NoneType is no source"),
        ({"a": 1}, InputError, "a dict is no source"),
        (b"a.mp4", InputError, "a bytes is no source"),
    ],
)
def test_what_is_no_source_is_refused(what: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")) as caught:
        open_source(what)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"color": "yuv"},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"timeout_s": -1.0},
        {"loop": True},
        {"follow": True},
        {"realtime": True},  # a list, and no fps
    ],
)
def test_options_that_do_not_go_with_it_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        open_source([GRAY], **options)  # type: ignore[arg-type]


def test_an_unknown_transport_is_refused() -> None:
    pytest.importorskip("av")
    with pytest.raises(InputError, match="tcp or udp"):
        open_source("rtsp://cam/live", transport="smoke")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    for what in (tmp_path / "a.mp4", "rtsp://bob:secret@cam/live"):
        with pytest.raises(MissingExtraError, match=r"clipdeploy\[video\]") as caught:
            open_source(what)
        assert "secret" not in str(caught.value)


def test_pictures_need_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    assert len(list(open_source(tmp_path).frames(Event()))) == 1


def test_a_source_is_its_own() -> None:
    source = open_source([GRAY], name="own")
    assert isinstance(source, Source)
    assert open_source(source) is source


def test_waits_grow_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, factor=2, longest_s=3, jitter=0)
    assert [backoff.delay_s(attempt) for attempt in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.delay_s(10**9) == 3.0
    assert Backoff(first_s=1, factor=1, longest_s=30, jitter=0).delay_s(10**9) == 1.0


def test_waits_differ_by_chance_and_never_pass_the_longest() -> None:
    backoff = Backoff(first_s=1, factor=2, longest_s=8, jitter=0.25)
    waits = [backoff.delay_s(0) for _ in range(200)]
    assert len(set(waits)) > 100
    assert all(wait is not None and 0.75 <= wait <= 1.25 for wait in waits)
    assert all((backoff.delay_s(9) or 0) <= 8 for _ in range(100))


def test_it_gives_up_after_the_attempts_it_has() -> None:
    backoff = Backoff(attempts=2)
    assert backoff.delay_s(1) is not None
    assert backoff.delay_s(2) is None
    assert Backoff(attempts=0).delay_s(0) is None


@pytest.mark.parametrize(
    "wrong",
    [{"first_s": 0}, {"first_s": 40}, {"factor": 0.5}, {"jitter": 1.0}, {"attempts": -1}, {"longest_s": np.inf}],
)
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_thinning_keeps_the_rate() -> None:
    for fps, wanted in ((10, 100), (7, 70), (30, 300), (60, 300)):
        thinning = Thinning(fps)
        assert abs(sum(thinning.takes(index / 30) for index in range(300)) - wanted) <= 1
    trembling = Thinning(15)
    times = np.arange(300) / 30 + np.random.default_rng(0).uniform(-0.003, 0.003, 300)
    assert abs(sum(trembling.takes(float(time)) for time in times) - 150) <= 2
