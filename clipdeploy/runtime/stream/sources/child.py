"""A program that runs beside us, writes to a pipe, and never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from types import TracebackType

_LINES = 30
_LONGEST = 400

# Asks Linux to kill the program when the thread that started it ends, killed or not, and becomes the program.
_BECOME = """
import ctypes, os, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit(1)
os.execvp(command[0], command)
"""


class Child:
    """A running program whose output is read from `pipe`.

    To be made and left by one thread: the program is killed when that thread ends.

    Args:
        command: program and arguments; `{fd}` in them becomes the number of the pipe's other end.
        listen_for: words whose coming up in what it says is noted.
        pipe_bytes: how much the pipe should hold, as far as the system allows.

    Attributes:
        pipe: file descriptor to read from; its end is the program's.
        heard: whether it said the words.
    """

    def __init__(self, command: Sequence[str], *, listen_for: str | None = None, pipe_bytes: int = 1 << 20) -> None:
        self.heard = False
        self._words = listen_for
        self.pipe, theirs = os.pipe()
        try:
            _widen(self.pipe, pipe_bytes)
            arguments = [part.replace("{fd}", str(theirs)) for part in command]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                env=os.environ | {"LC_ALL": "C.UTF-8", "LANGUAGE": "C"},  # its complaints are read
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            os.close(theirs)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._listener = Thread(target=self._listen, name="clipdeploy-child-says", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once; reading then comes to the pipe's end."""
        self._process.kill()

    def ended(self) -> int | None:
        """Wait until it has ended, for a second at most: its exit status, negative for a signal; None where it runs."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return None
        self._listener.join(1.0)
        return status

    def last_lines(self) -> tuple[str, ...]:
        """What it said last, on standard output or error."""
        return tuple(self._lines)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._process.wait()
        self._listener.join(1.0)
        os.close(self.pipe)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                text = line.decode("utf-8", "replace").strip()[:_LONGEST]
                if self._words is not None and self._words in text:
                    self.heard = True
                if text:
                    self._lines.append(text)


def _widen(pipe: int, size: int) -> None:
    import fcntl

    with suppress(OSError, AttributeError):  # a smaller pipe is slower, no more
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def signal_name(status: int) -> str:
    """Of a negative exit status."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
