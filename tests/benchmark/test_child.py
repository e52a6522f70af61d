"""A measured process: asked, answering, failing, dying."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from clipdeploy.benchmark.child import Child
from clipdeploy.benchmark.serving import memory, timed
from clipdeploy.errors import BackendError

SERVES = """
import os, signal, time
from clipdeploy.benchmark.serving import memory, serve
from clipdeploy.errors import InputError

def refuse():
    raise InputError("no such thing", fix="ask for another")

def die():
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def chatter():
    print("a library that prints")
    return "heard"

serve({
    "echo": lambda **given: given,
    "refuse": refuse,
    "die": die,
    "chatter": chatter,
    "sleep": lambda seconds: time.sleep(seconds),
    "exit": lambda: os._exit(7),
    "variable": lambda name: os.environ.get(name),
    "memory": memory,
})
"""


@pytest.fixture
def child() -> Iterator[Child]:
    with Child("the child", (sys.executable, "-c", SERVES), environment={"OF_THE_CHILD": "yes"}) as child:
        yield child


def test_it_answers_what_it_is_asked(child: Child) -> None:
    assert child.ask("echo", number=1.5, text="ä\n", many=[1, None]) == {
        "number": 1.5,
        "text": "ä\n",
        "many": [1, None],
    }
    assert child.ask("chatter") == "heard"
    assert child.ask("variable", name="OF_THE_CHILD") == "yes"
    assert 0 < child.ask("memory")["resident"] <= child.ask("memory")["peak"]


def test_an_error_comes_with_its_fix_and_it_goes_on(child: Child) -> None:
    with pytest.raises(BackendError, match="the child: no such thing") as caught:
        child.ask("refuse")
    assert caught.value.fix == "ask for another"
    with pytest.raises(BackendError, match="unheard"):
        child.ask("unheard of")
    assert child.ask("echo", a=1) == {"a": 1}


def test_one_that_is_killed_says_how_and_what_it_said_last(child: Child) -> None:
    with pytest.raises(BackendError, match="the child ended by signal 9 at die: last words"):
        child.ask("die")


def test_one_that_exits_says_so(child: Child) -> None:
    with pytest.raises(BackendError, match="ended with exit code 7 at exit: it said nothing"):
        child.ask("exit")


def test_one_that_takes_too_long_is_ended(child: Child) -> None:
    began = time.perf_counter()
    with pytest.raises(BackendError, match="gave no answer to sleep within 0 s and was ended"):
        child.ask("sleep", seconds=60, timeout_s=0.2)
    child.close()
    assert time.perf_counter() - began < 10


def test_kill_does_not_wait() -> None:
    child = Child("busy", (sys.executable, "-c", "import time; time.sleep(60)"))
    began = time.perf_counter()
    child.kill()
    child.close()
    assert time.perf_counter() - began < 5


def test_timed_warms_up_and_keeps_to_its_limits() -> None:
    calls: list[int] = []
    taken = timed(lambda: calls.append(1), warm_up_s=0, seconds=0, fewest=3, most=10)
    assert len(taken) == 3
    assert len(calls) == 4
    assert len(timed(lambda: None, warm_up_s=0, seconds=10, fewest=1, most=5)) == 5
    assert min(timed(lambda: time.sleep(0.002), warm_up_s=0, seconds=0, fewest=2, most=2)) >= 2


def test_memory_of_this_process_is_told() -> None:
    told = memory()
    assert told["peak"] >= told["resident"] > 1_000_000
