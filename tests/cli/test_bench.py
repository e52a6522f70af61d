"""`clipdeploy bench`: what it prints, writes, refuses, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="needs an engine: pip install 'clipdeploy[cpu]'")

from clipdeploy.benchmark.records import BenchResult
from clipdeploy.spec import from_dict
from tests.cli.conftest import Run, document, failure

QUICK = ("--backend", "onnxruntime", "--batch", "1,2", "--rounds", 2, "--seconds", 0.005, "--cold-starts", 1)


def test_one_document_two_files_and_the_table(run: Run, bundle: Path, photos_folder: Path, tmp_path: Path) -> None:
    output, html = tmp_path / "bench.json", tmp_path / "bench.html"
    done = run("bench", bundle, *QUICK, "--images", photos_folder, "--output", output, "--html", html, "--json")
    assert done.exit_code == 0, done.stderr
    told = document(done)
    assert told == json.loads(output.read_text(encoding="utf-8"))
    result = from_dict(BenchResult, told)
    assert [one.name for one in result.candidates] == ["onnxruntime fp32"]
    assert [figures.batch for figures in result.candidates[0].images] == [1, 2]
    assert result.conditions["pictures"] == "3 given files, 60x40"
    page = html.read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "onnxruntime fp32" in page
    assert "<script" not in page


def test_the_table(run: Run, bundle: Path, photos_folder: Path) -> None:
    done = run("bench", bundle, *QUICK, "--images", photos_folder, "--no-texts")
    assert done.exit_code == 0, done.stderr
    assert "onnxruntime fp32" in done.stdout
    assert "p50" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "onnxrt"), "unknown backend"),
        (("--backend", "onnxruntime", "--precision", "int8"), "int8"),
        (("--backend", "onnxruntime", "--precision", "bf16"), "bf16"),
        (("--images", "nowhere/"), "nowhere/ does not exist"),
        (("--output", "no/such/folder/bench.json"), "does not exist"),
    ],
)
def test_errors_come_before_anything_is_measured(
    run: Run, bundle: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipdeploy.benchmark.job.COMMAND", ("/never/started",))
    told = failure(run("bench", bundle, *arguments))
    assert said in told
    assert "fix:" in told


@pytest.mark.parametrize(
    "arguments", [("--batch", "1,x"), ("--batch", "0"), ("--precision", "int7"), ("--rounds", "0")]
)
def test_usage(run: Run, bundle: Path, arguments: tuple[str, ...]) -> None:
    assert run("bench", bundle, *arguments).exit_code == 2


def test_what_was_named_and_is_left_out_is_warned_of(
    run: Run, bundle: Path, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipdeploy.benchmark.plan import Absent, Plan
    from clipdeploy.benchmark.plan import plan as genuine

    def without(*given: object) -> Plan:
        planned = genuine(*given)  # type: ignore[arg-type]
        return Plan(planned.candidates, (Absent("openvino", "fp32", "it broke down"),))

    monkeypatch.setattr("clipdeploy.benchmark.job.plan", without)
    done = run("bench", bundle, *QUICK, "--images", photos_folder, "--precision", "fp32", "--json")
    assert done.exit_code == 0
    assert "warning: openvino fp32 is left out: it broke down" in done.stderr
    assert document(done)["absent"] == [{"backend": "openvino", "precision": "fp32", "why": "it broke down"}]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_leaves_no_process_and_no_file(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "clipdeploy", "bench", str(bundle), "--backend", "onnxruntime", "--seconds", "5"]
    bench = subprocess.Popen(
        [*command, "--output", str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ends = time.monotonic() + 30
    children: list[str] = []
    while not children and time.monotonic() < ends:
        time.sleep(0.1)
        tasks = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        if not tasks.exists():
            bench.kill()
            pytest.skip("the system does not tell a process's children")
        children = tasks.read_text().split()
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert out == ""
    assert re.search(r"^interrupted", err, re.MULTILINE)
    assert "Traceback" not in err
    assert children
    assert not output.exists()
    ends = time.monotonic() + 10  # one that was just being started ends when it finds nobody to answer
    while any(map(lives, children)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(lives, children))


def lives(child: str) -> bool:
    """Whether a process does anything still."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
