"""What docs/evaluate.md shows is what happens: its commands and its Python run, from top to bottom."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from tests.cli.conftest import Run, run
from tests.evaluate.noise import CLASSES, noise_bundle, noise_data

__all__ = ["run"]  # the fixture

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/evaluate.md").read_text(encoding="utf-8")
COMMANDS = [line for code in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in code.splitlines()]
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle `b32`, pictures in classes, numbered folders with names, captions and groups."""
    folder = tmp_path_factory.mktemp("docs")
    noise_data(folder / "photos", noise_bundle(folder / "b32"), count=48)
    pictures = sorted(path.relative_to(folder / "photos") for path in (folder / "photos").rglob("*.png"))
    for number, name in enumerate(CLASSES):
        (folder / "numbered").mkdir(exist_ok=True)
        (folder / "numbered" / str(number)).symlink_to(folder / "photos" / name)
    (folder / "names.json").write_text(json.dumps({str(n): name for n, name in enumerate(CLASSES)}))
    captions = [f"{(Path('photos') / path).as_posix()},a picture of a {path.parent}" for path in pictures[:12]]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *captions]) + "\n")
    groups = [f"{path.as_posix()},camera {number % 2}" for number, path in enumerate(pictures)]
    (folder / "groups.csv").write_text("\n".join(["picture,group", *groups]) + "\n")
    return folder


def test_the_commands(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for command in COMMANDS:
        program, *given = shlex.split(command)
        assert program == "clipdeploy"
        result = run(*given)
        assert result.exit_code == 0, f"{command}\n{result.stderr}"
        assert "onnxruntime fp32" in result.stdout
    assert (place / "evaluate.html").is_file()
    assert len(list((place / "results").iterdir())) == len(json.loads((place / "all.json").read_text(encoding="utf-8")))


def test_the_python(place: Path) -> None:
    (place / "clipdeploy").symlink_to(ROOT / "clipdeploy")
    done = subprocess.run([sys.executable, "-c", PYTHON], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("onnxruntime fp32 1.0 None\n")


def test_it_shows_the_page() -> None:
    assert (ROOT / "docs/images/evaluate.png").is_file()
