"""What the README shows is what happens: its commands and its Python run, its output is real but for the numbers."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = [
    (command, shown.splitlines())
    for command, shown in re.findall(r"^\$ (clipdeploy .*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.MULTILINE)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_bundle: Path) -> Path:
    """A folder as a clone is after `make demo`: the package and `out/demo`."""
    from clipdeploy.demo import write_images

    folder = tmp_path_factory.mktemp("clone")
    (folder / "clipdeploy").symlink_to(ROOT / "clipdeploy")
    (folder / "out/demo").mkdir(parents=True)
    (folder / "out/demo/bundle").symlink_to(demo_bundle)
    write_images(folder / "out/demo/pictures", count=24, split="held-out", seed=0)
    return folder


def masked(line: str) -> str:
    """A line without what differs from run to run and machine to machine: numbers, bars, widths, the engine chosen."""
    line = re.sub(r"[█▉▊▋▌▍▎▏]+", "", line)
    line = re.sub(r"^(engine +)(onnxruntime|openvino)$", r"\1E", line)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.]*(e[-+]\d+)?", "#", line)).strip()


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether `printed` reads as `shown`, in which a line of `...` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(masked(line)) + r"\n" for line in shown)
    return re.fullmatch(pattern, "".join(masked(line) + "\n" for line in printed)) is not None


def test_there_is_a_tour() -> None:
    verbs = {shlex.split(command)[1] for command, _ in COMMANDS}
    assert {"export", "verify", "classify"} <= verbs


def test_the_tour(place: Path) -> None:
    """All in one test, since each command builds on the one before."""
    for command, shown in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=place, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed = [line for line in done.stdout.splitlines() if line.strip()]
        assert matches([line for line in shown if line.strip()], printed), f"{command} prints\n{done.stdout}"


def test_the_python(place: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("red circle 0.")


def test_the_scores_are_the_models_own() -> None:
    from clipdeploy.demo import MODELS, model_path

    for key, name in MODELS.items():
        score = json.loads((model_path(key) / "score.json").read_text(encoding="utf-8"))
        (row,) = re.findall(rf"^\| `{name}`.*$", README, re.MULTILINE)
        assert row.endswith(f"| {score['held_out']['top1']:.1%} | {score['seen']['top1']:.1%} |")


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_matching_can_fail() -> None:
    assert matches(["a 1.5 ms", "...", "z"], ["a 27 ms", "b", "c", "z"])
    assert not matches(["a 1.5 ms"], ["b 1.5 ms"])
    assert not matches(["a", "z"], ["a", "b", "z"])
