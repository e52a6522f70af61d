"""What docs/camera.md shows is what happens: its Python and its commands run, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/camera.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
FRAMES = 12
NEGATIVES = 19  # the fewest that tell a share of 0.05


def write_video(path: Path, pairs: list[tuple[str, str]]) -> None:
    """A second of 320 x 240 for each pair, alone, 12 frames a second."""
    import av

    from clipdeploy.demo import render, single_scene

    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=FRAMES)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for pair in pairs:
            picture = np.asarray(render(single_scene(0, pair, clear=True), (320, 240)))
            for _ in range(FRAMES):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


@pytest.fixture
def place(tmp_path: Path, demo_bundle: Path) -> Path:
    """A folder with the bundle `shapes`, two videos, a frame, labels, and pictures that show none of them."""
    pytest.importorskip("av", reason="needs the extra: pip install 'clipdeploy[video]'")
    from clipdeploy.demo import render, single_scene

    (tmp_path / "clipdeploy").symlink_to(ROOT / "clipdeploy")
    shutil.copytree(demo_bundle, tmp_path / "shapes")
    write_video(tmp_path / "door.avi", [("red", "circle"), ("blue", "star")])
    write_video(tmp_path / "yard.avi", [("blue", "star")])
    render(single_scene(0, ("blue", "star"), clear=True), (320, 240)).save(tmp_path / "frame.png")
    (tmp_path / "labels.txt").write_text("red circle\nblue star\n")
    (tmp_path / "empty").mkdir()
    for i in range(NEGATIVES):
        render(single_scene(i, ("green", "square"), clear=True), (320, 240)).save(tmp_path / f"empty/{i}.jpg")
    return tmp_path


def test_all_of_it_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, since later lines use what earlier ones made; commands are run where they stand."""
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(place / "cache"))
    lines = ["import subprocess, sys"]
    for language, code in BLOCKS:
        if language == "python":
            lines.append(code)
        else:
            commands = [[sys.executable, "-m", *shlex.split(line)] for line in code.splitlines()]
            lines += [f"subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)" for command in commands]
    script = place / "page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    for line in (
        "['320x240:bgr', '320x240:nv12']",
        "in the graph: blue star",
        "beside it: blue star",
        "baked: blue star 320x240:bgr ('red circle', 'blue star')",
        "door.avi red circle appeared",
        "door.avi ended True",
        "yard.avi ended True",
        "door.avi red circle appeared None",
    ):
        assert line in done.stdout.splitlines(), f"{line}\n{done.stdout}"
    assert "left" in (place / "events.jsonl").read_text()
    assert "left" in (place / "watched.jsonl").read_text()


def test_the_numbers_are_the_streams_own() -> None:
    """Those that the table tells are defaults in the code."""
    import inspect

    from clipdeploy.runtime.stream import Backoff, Gate, Outbox, Stream, calibrate_thresholds
    from clipdeploy.runtime.stream.answering import FAILURES_IN_A_ROW
    from clipdeploy.runtime.stream.decide import negatives_needed
    from clipdeploy.runtime.stream.lane import LOST_S

    def default(function: object, name: str) -> object:
        return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]

    assert (Backoff().first_s, Backoff().longest_s, Backoff().attempts) == (0.5, 30.0, None)
    assert (default(Stream, "keep_results"), default(Stream, "queue"), default(Outbox, "largest")) == (16, 1, 1000)
    assert (Gate().every_s, FAILURES_IN_A_ROW, LOST_S) == (1.0, 30, 5.0)
    assert (default(calibrate_thresholds, "false_alarms"), negatives_needed(0.01)) == (0.01, 99)
    assert default(Stream, "probability") == 0.5


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
