"""The command itself: help, version, startup, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import clipdeploy
from clipdeploy.cli import docs
from clipdeploy.cli.exit_codes import MEANING, ExitCode
from clipdeploy.cli.root import SECTIONS, root
from clipdeploy.cli.verb import Verb
from clipdeploy.errors import OutputError
from tests.cli.conftest import Run, failure

VERBS = [name for verbs in SECTIONS.values() for name in verbs]
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "open_clip", "transformers")


def start(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    head = [sys.executable, "-c", code] if code else [sys.executable, "-m", "clipdeploy"]
    return subprocess.run([*head, *arguments], capture_output=True, text=True, check=False, timeout=60)


def verb(name: str) -> Verb:
    command = root.get_command(click.Context(root), name)
    assert isinstance(command, Verb)
    return command


def test_help_names_every_verb_in_the_order_of_the_way(run: Run) -> None:
    text = run("--help").stdout
    places = [re.search(rf"^  {name} ", text, re.MULTILINE) for name in VERBS]
    assert all(places)
    assert [p.start() for p in places if p] == sorted(p.start() for p in places if p)
    for code, meaning in MEANING.items():
        assert re.search(rf"{int(code)}\s+{re.escape(meaning)}", text)


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_explains_itself(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"clipdeploy {name} " in result.stdout
    assert result.stdout.index("Examples:") > result.stdout.index("Options:")
    for option in ("--json", "--quiet", "--debug"):
        assert option in result.stdout
    short = (verb(name).help or "").splitlines()[0]
    assert [verbs[name] for verbs in SECTIONS.values() if name in verbs] == [short]


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_can_be_parsed(name: str) -> None:
    import shlex

    for example in verb(name).examples:
        program, given, *arguments = shlex.split(example)
        assert (program, given) == ("clipdeploy", name)
        verb(name).make_context(name, arguments)


def test_help_starts_quickly_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom clipdeploy.cli.root import root\n"
        "root(['--help'], standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = start(code=code)
    assert done.stdout.startswith("Usage: clipdeploy") or done.stdout.startswith("Usage: ")
    assert done.stderr.strip() == "[]"


def test_help_takes_little_more_than_importing_the_package() -> None:
    """Processor time, which a busy machine does not stretch as it stretches the clock."""

    def cpu_ms(code: str) -> float:
        timed = f"import resource\n{code}\nu = resource.getrusage(resource.RUSAGE_SELF)\nprint(u.ru_utime + u.ru_stime)"
        return float(start(code=timed).stdout.splitlines()[-1]) * 1e3

    help_ = "from clipdeploy.cli.root import root\nroot(['--help'], standalone_mode=False)"
    assert min(cpu_ms(help_) for _ in range(3)) - min(cpu_ms("import clipdeploy") for _ in range(3)) < 100


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"clipdeploy {clipdeploy.__version__}\n"


@pytest.mark.parametrize(
    ("given", "hint"), [("clasify", "Did you mean 'classify'?"), ("xyz", "Verbs: demo, doctor, export")]
)
def test_an_unknown_verb(run: Run, given: str, hint: str) -> None:
    result = run(given)
    assert result.exit_code == 2
    assert hint in result.stderr


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("clipdeploy.inspect.inspect_path", fail)


def test_an_error_and_its_fix(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, OutputError("disk full", fix="free space"))
    assert failure(run("inspect", "x.onnx")) == "error: disk full\n  fix: free space\n"


def test_a_defect_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, KeyError("oops"))
    said = failure(run("inspect", "x.onnx"))
    assert said.startswith("error: unexpected KeyError: 'oops'\n")
    assert "--debug" in said


def test_no_memory_and_no_permission(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, MemoryError())
    assert "out of memory" in failure(run("inspect", "x.onnx"))
    fails_with(monkeypatch, PermissionError(13, "Permission denied", "x"))
    assert "Permission denied: 'x'" in failure(run("inspect", "x.onnx"))


@pytest.mark.parametrize("arguments", [("--debug", "inspect", "gone.onnx"), ("inspect", "gone.onnx", "--debug")])
def test_debug_shows_where_an_error_comes_from(arguments: tuple[str, ...]) -> None:
    done = start(*arguments)
    assert done.returncode == ExitCode.FAILED
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: gone.onnx does not exist")


def test_what_a_library_prints_does_not_spoil_the_json(run: Run, monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    from clipdeploy import inspect

    genuine = inspect.inspect_path

    def chatty(*args: object, **kwargs: object) -> object:
        sys.stdout.write("loading, please wait\n")
        return genuine(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("clipdeploy.inspect.inspect_path", chatty)
    result = run("inspect", bundle, "--json")
    assert json.loads(result.stdout)["kind"] == "bundle"
    assert "please wait" in result.stderr


SIGNALLED = """
import os, signal
import clipdeploy.inspect
from clipdeploy.cli import main
clipdeploy.inspect.inspect_path = lambda *a, **k: os.kill(os.getpid(), signal.{name})
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", ExitCode.INTERRUPTED), ("SIGTERM", ExitCode.TERMINATED)])
def test_signals_end_it_cleanly(name: str, code: ExitCode) -> None:
    done = start("inspect", "x.onnx", code=SIGNALLED.format(name=name))
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from clipdeploy.cli.console import colours

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colours(Terminal())
    assert not colours(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not colours(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours(Terminal())


def test_the_page_is_up_to_date() -> None:
    written = docs.TARGET.read_text(encoding="utf-8")
    assert written == docs.render(), "run: python -m clipdeploy.cli.docs"
