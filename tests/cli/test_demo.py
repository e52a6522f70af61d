"""clipdeploy demo: what it passes on and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipdeploy.demo import run as demo
from clipdeploy.demo.outcome import DemoAnswer, DemoOutcome, DemoSearch
from clipdeploy.errors import OutputError
from clipdeploy.pipeline import ExportOutcome
from tests.cli.conftest import Run, document, failure


class Recorder:
    """Stands for the demo: keeps what it was asked, gives an outcome of two pictures."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.error: Exception | None = None

    def __call__(self, folder: Path, *, progress: Any, **options: Any) -> DemoOutcome:
        self.asked = {"folder": folder, **options}
        progress("drawing pictures", 0, 0)
        if self.error:
            raise self.error
        right = DemoAnswer(folder / "a.jpg", "red circle", "red circle", 0.971)
        wrong = DemoAnswer(folder / "b.jpg", "blue star", "blue ring", 0.5)
        return DemoOutcome(
            export=ExportOutcome(folder / "bundle", (), None, seconds=9.0, size_bytes=12_000_000),
            answers=(right, wrong),
            searches=(DemoSearch("something blue", (folder / "b.jpg",), (0.31,)),),
            labels=64,
            page=folder / "index.html",
            classify_ms=1.25,
            seconds=20.0,
        )


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(demo, "run_demo", recorder)
    return recorder


def test_it_shows_what_it_found(run: Run, recorder: Recorder, tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path, "--pictures", 2, "--seed", 7)
    assert result.exit_code == 0
    assert recorder.asked == {"folder": tmp_path, "model": None, "pictures": 2, "seed": 7}
    assert f"{tmp_path / 'a.jpg'}  red circle  red circle   97.1 %\n" in result.stdout
    assert f"{tmp_path / 'b.jpg'}  blue star   blue ring    50.0 %  wrong\n" in result.stdout
    assert "1 of 2 pictures right, of 64 labels; 1.2 ms a picture" in result.stdout
    assert f"something blue  {tmp_path.name}/b.jpg" in result.stdout
    assert f"open {tmp_path / 'index.html'}" in result.stderr
    assert f"clipdeploy classify -r {tmp_path / 'bundle'} {tmp_path / 'pictures'}" in result.stderr  # in folders


def test_json(run: Run, recorder: Recorder, tmp_path: Path) -> None:
    answer = document(run("demo", "-o", tmp_path, "--json"))
    assert answer["right"] == 1
    assert answer["export"]["bundle"] == str(tmp_path / "bundle")
    assert answer["answers"][0]["label"] == "red circle"


def test_a_failure(run: Run, recorder: Recorder, tmp_path: Path) -> None:
    recorder.error = OutputError("disk full", fix="free space")
    assert "disk full" in failure(run("demo", "-o", tmp_path))
