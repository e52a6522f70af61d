"""What docs/runtime.md shows is what happens: its Python and its commands run, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/runtime.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs a GPU -->\n)?```(python|sh)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, demo_bundle: Path) -> Path:
    """A folder with the bundle `shapes` and `pictures`, one of which is cut off."""
    from clipdeploy.demo import render, single_scene

    (tmp_path / "clipdeploy").symlink_to(ROOT / "clipdeploy")
    shutil.copytree(demo_bundle, tmp_path / "shapes")
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        scene = single_scene(i, ("red", "circle"), clear=True)
        render(scene, (320, 240)).save(tmp_path / f"pictures/{i}.jpg")
    whole = (tmp_path / "pictures/0.jpg").read_bytes()
    (tmp_path / "pictures/broken.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_all_of_it_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, since later lines use what earlier ones made; commands are run where they stand."""
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(place / "cache"))
    lines = ["import subprocess, sys"]
    for needs_gpu, language, code in BLOCKS:
        if needs_gpu:
            compile(code, "docs/runtime.md", "exec")
        elif language == "python":
            lines.append(code)
        else:
            commands = [[sys.executable, "-m", *shlex.split(line)] for line in code.splitlines()]
            lines += [f"subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)" for command in commands]
    script = place / "page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pictures/1.jpg red circle" in done.stdout
    assert "left out: pictures/broken.jpg" in done.stdout
    assert "clipdeploy bank" in done.stdout


def test_the_backends_are_those_that_there_are() -> None:
    from clipdeploy.runtime.backends import BACKENDS

    rows = re.findall(r"^\| `([a-z:-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(["auto", *rows]) == sorted(BACKENDS)


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
