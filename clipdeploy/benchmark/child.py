"""A process that is measured: asked in lines of JSON, one answer each. `serving.py` is its other end.

Each candidate of a benchmark has a process of its own, so that its cold start, its memory and its crash are its own;
it stays alive between its turns, so that candidates can take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

from clipdeploy.errors import BackendError

_TOLD_LINES = 5
_ENDS_WITHIN_S = 10.0


class Child:
    """A process that answers questions, one at a time.

    Args:
        name: what it is called in errors.
        command: what starts it; it serves on stdin and stdout.
        environment: variables besides this process's own.
        folder: its working directory.

    Attributes:
        started: `time.perf_counter()` when it was started.

    Raises:
        BackendError: it cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._answers: SimpleQueue[str] = SimpleQueue()
        self.started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._complaints.close()
            raise BackendError(f"no process can be started for {name}: {error}") from error
        Thread(target=self._listen, name=f"answers of {name}", daemon=True).start()

    def ask(self, do: str, *, timeout_s: float = 600.0, **with_: Any) -> Any:
        """What it answers.

        Args:
            do: the handler that answers, by name.
            timeout_s: how long to wait; after that the process is ended.
            with_: what the handler is given; what JSON can hold.

        Raises:
            BackendError: it failed, took longer, or ended; says why, as far as it told.
        """
        with suppress(OSError):  # it ended: the missing answer tells, with its last words
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, "with": with_}) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=timeout_s)
        except Empty:
            self._process.kill()
            raise BackendError(f"{self.name} gave no answer to {do} within {timeout_s:.0f} s and was ended") from None
        if not line:
            raise BackendError(f"{self.name} ended{self._how()} at {do}: {self._last_words() or 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            told = answer["error"]
            raise BackendError(f"{self.name}: {told['message']}", fix=told["fix"])
        return answer["answer"]

    def kill(self) -> None:
        """End it at once, whatever it does; `close` comes after."""
        self._process.kill()

    def close(self) -> None:
        """End it; waits a little, and then does not ask any more."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")  # the end

    def _how(self) -> str:
        try:
            code = self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            return ""
        return f" by signal {-code}" if code < 0 else f" with exit code {code}"

    def _last_words(self) -> str:
        """The last lines that it wrote to stderr."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-_TOLD_LINES:])
