"""One process at a time, and a process that dies holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clipdeploy.errors import OutputError
from clipdeploy.locks import is_locked, locked, locked_if_free

HOLD = """
import sys, time
from pathlib import Path
from clipdeploy.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = """
import sys
from pathlib import Path
from clipdeploy.locks import locked
lock, count = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(25):
    with locked(lock):
        count.write_text(str(int(count.read_text()) + 1))
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def hold(lock: Path) -> subprocess.Popen[str]:
    process = start(HOLD, lock)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_file_is_gone_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock):
        assert is_locked(lock)
        with locked_if_free(lock) as free:
            assert not free
    assert not is_locked(lock)
    assert list(tmp_path.iterdir()) == []
    with locked_if_free(lock) as free:
        assert free
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_one_waits_for_another_process_until_it_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    process = hold(lock)
    told: list[str] = []

    def waiting(holder: str) -> None:
        told.append(holder)
        if len(told) == 3:
            process.send_signal(signal.SIGKILL)

    with process, locked(lock, waiting=waiting):
        assert process.wait() == -signal.SIGKILL
    assert set(told) == {f"process {process.pid}"}
    assert len(told) >= 3
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_is_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with hold(lock) as process:
        assert is_locked(lock)
        process.kill()
    assert lock.exists()
    assert not is_locked(lock)
    with locked(lock, waiting=lambda _: pytest.fail("nobody holds it")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_four_processes_never_meet(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    processes = [start(COUNT, tmp_path / "lock", count) for _ in range(4)]
    for process in processes:
        with process:
            assert process.wait() == 0
    assert count.read_text() == "100"


def test_threads_wait_for_each_other_too(tmp_path: Path) -> None:
    lock, order = tmp_path / "lock", []

    def other() -> None:
        with locked(lock):
            order.append("other")

    thread = threading.Thread(target=other)
    with locked(lock):
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"), locked(tmp_path / "nothing" / "lock"):
        pytest.fail("the block must not run")
    assert not is_locked(tmp_path / "nothing" / "lock")
