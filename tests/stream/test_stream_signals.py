"""A stream under signals, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from clipdeploy.errors import InputError
from clipdeploy.runtime.stream import Stream
from tests.stream.fakes import FakeAnswerer, FakeSource

APP = """
import signal, sys, threading
from clipdeploy.runtime.stream import Callback, Stream
from tests.stream.fakes import FakeAnswerer, FakeSource

source = FakeSource(count=None, gap_s=0.002, value=lambda index: 20)
told, said = [], []
with Stream(FakeAnswerer(), source, on_event=told.append) as stream, stream.serve_signals():
    before = threading.active_count()
    stream.run(lambda result: told and not said and (said.append(1), print("running", flush=True)))
counts = stream.stats().cameras[0]
assert counts.captured == counts.answered + counts.repeated + counts.dropped, counts
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
assert threading.active_count() == 1 and source.closed == 1
print([event.kind for event in told], counts.state)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", APP], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"running\n"
        sent = time.monotonic()
        app.send_signal(number)
        out, err = app.communicate(timeout=10)
        assert time.monotonic() - sent < 3.0
    assert (app.returncode, err) == (0, b"")
    assert out == b"['appeared', 'left'] ended\n"


def test_many_signals_while_the_app_holds_locks() -> None:
    """The handler comes at any point of the app's own calls, `stats` among them, and never waits for a lock."""
    source = FakeSource(count=None, gap_s=0.0005)
    hits = 0

    def hit(number: int, frame: object) -> None:
        nonlocal hits
        hits += 1
        if hits == 300:
            running.stop()

    before = signal.signal(signal.SIGALRM, hit)
    try:
        with Stream(FakeAnswerer(), source, gate=None) as running:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for _ in running:
                running.stats()
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert hits >= 300
    assert source.closed == 1


def test_handlers_are_put_back_and_other_threads_are_refused() -> None:
    running = Stream(FakeAnswerer(), FakeSource())
    before = signal.getsignal(signal.SIGINT)
    with running.serve_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    raised: list[Exception] = []

    def elsewhere() -> None:
        try:
            with running.serve_signals():
                pass
        except InputError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1
