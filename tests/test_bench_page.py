"""What docs/bench.md shows is what happens: its Python and its commands run, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/bench.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs a Jetson -->\n)?```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
SHORT = ("--rounds", "1", "--seconds", "0.01", "--cold-starts", "1", "--threads", "1", "--images", "0.jpg")
SHORT += ("--backend", "onnxruntime", "--batch", "1,2")


@pytest.fixture
def place(tmp_path: Path, demo_bundle: Path) -> Path:
    """A folder with the bundle `shapes` and a small picture."""
    pytest.importorskip("onnxruntime")
    from clipdeploy.demo import render, single_scene

    render(single_scene(0, ("red", "circle"), clear=True), (320, 240)).save(tmp_path / "0.jpg")
    (tmp_path / "clipdeploy").symlink_to(ROOT / "clipdeploy")
    shutil.copytree(demo_bundle, tmp_path / "shapes")
    return tmp_path


def test_all_of_it_runs(place: Path) -> None:
    """In one process, since later lines use what earlier ones made; commands measure briefly, and one backend alone."""
    lines = ["import subprocess"]
    for needs_jetson, language, code in BLOCKS:
        if language == "python":
            lines.append(code)
        elif not needs_jetson:
            commands = [[sys.executable, "-m", *shlex.split(line), *SHORT] for line in code.splitlines()]
            lines += [f"subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)" for command in commands]
    script = place / "page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^onnxruntime fp32 1 [\d.]+ -> [\d.]+ ms [+-]\d+%, rounds moved \d+%: (level|slower|faster)$",
        done.stdout,
        re.M,
    )
    assert (place / "before.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_figures_are_those_of_the_report() -> None:
    from clipdeploy.benchmark.report import tables
    from tests.benchmark.figures import result
    from tests.benchmark.test_report import BOARD, LONG

    told = {name.strip() for row in re.findall(r"^\| ([a-z].*?) \|", PAGE, re.MULTILINE) for name in row.split(",")}
    heads = {title.partition(":")[0] for made in tables(result(LONG)) for title in made.head if title}
    aside = {"batch", "copy in", "copy out", "whole", "first ever", "2nd picture, ms", "GPU"}
    assert heads - aside <= told
    for title in aside | {"mJ"}:
        assert title.split(",")[0].removeprefix("2nd ").replace("mJ", "millijoules") in PAGE, title
    assert any(made.title.startswith("The board") for made in tables(result(board=BOARD)))


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
