"""`clipdeploy watch --web` as a user starts it: a process of its own, and where its page is."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_URL = re.compile(r"http://\S+")


@dataclass
class Served:
    """A running one.

    Attributes:
        process: that serves.
        url: of its page.
        said: what it has said on stderr.
    """

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)


@contextmanager
def served(bundle: Path, sources: Sequence[str], labels: Sequence[str], *options: str) -> Iterator[Served]:
    """The page of these sources, played over and over, on a free port."""
    words = ["watch", str(bundle), *sources, "--backend", "onnxruntime", "--loop", "--web", "127.0.0.1:0"]
    words += [word for label in labels for word in ("--label", label)]
    process = subprocess.Popen(
        [sys.executable, "-m", "clipdeploy", *words, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    page, found = Served(process), threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            page.said.append(line)
            if "the page is" in line and (match := _URL.search(line)):
                page.url = match[0]
                found.set()
        found.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert found.wait(60) and page.url, "".join(page.said)
        yield page
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()
            reader.join(5)
            assert process.stderr is not None
            process.stderr.close()
