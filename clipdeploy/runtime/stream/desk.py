"""Where the threads of a stream meet: one lock, and who is told of what."""

from __future__ import annotations

from threading import Condition, Lock


class Desk:
    """The lock of all that the threads of a stream share, and what they wait for.

    No signal handler ever takes it: `Stream.stop` only leaves a wish, and a thread of the stream does the rest.

    Attributes:
        arrived: told when a frame came, a camera ended or a result was taken; the answering thread waits for it.
        room: told when frames were taken out of inboxes; sources that lose no frame wait for it.
        ready: told when a result is there, or all is over; the app waits for it.
        ended: told when all threads have ended.
        stopping: whether the stream was asked to stop, so that nobody waits any longer.
        over: whether all threads have ended.
        fault: what ended the stream, and is raised to the app.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.arrived = Condition(self.lock)
        self.room = Condition(self.lock)
        self.ready = Condition(self.lock)
        self.ended = Condition(self.lock)
        self.stopping = False
        self.over = False
        self.fault: Exception | None = None

    def stop(self) -> None:
        """Have everybody who waits go on, and end."""
        with self.lock:
            self.stopping = True
            self._wake()

    def finish(self) -> None:
        """Say that all threads have ended."""
        with self.lock:
            self.over = True
            self._wake()

    def wait_until_over(self) -> None:
        """Wait until all threads have ended."""
        with self.lock:
            while not self.over:
                self.ended.wait()

    def _wake(self) -> None:
        for condition in (self.arrived, self.room, self.ready, self.ended):
            condition.notify_all()
