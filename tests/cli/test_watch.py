"""clipdeploy watch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, document, failure

LABELS = ("--labels", "a dog,a cat,a car", "--backend", "onnxruntime")


def test_a_line_an_event_and_the_counts_on_stderr(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("watch", bundle, photos_folder, "--label", "a dog", "--backend", "onnxruntime", "--fps", 2)
    assert result.exit_code == 0
    assert "a dog appeared" in result.stdout
    assert "3 frames: 3 answered" in result.stderr
    assert "\x1b" not in result.output


def test_json_lines(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("watch", bundle, photos_folder, *LABELS, "--label", "commas, and all", "--json")
    *events, last = map(json.loads, result.stdout.splitlines())
    assert all(event["event"] in ("appeared", "left") for event in events)
    assert last["labels"] == ["a dog", "a cat", "a car", "commas, and all"]
    assert last["ended"] == "sources ended"
    assert last["stats"]["cameras"][0]["captured"] == 3
    assert last["stats"]["events"] == len(events)


def test_events_to_stdout_and_to_a_file(run: Run, bundle: Path, photos_folder: Path, tmp_path: Path) -> None:
    one = ("--label", "a dog", "--backend", "onnxruntime", "--fps", 2)
    result = run("watch", bundle, photos_folder, *one, "--events", "-")
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()] == ["appeared", "left"]
    run("watch", bundle, photos_folder, *one, "--events", tmp_path / "events.jsonl", "--quiet")
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["appeared", "left"]


def test_quiet(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("watch", bundle, photos_folder, *LABELS, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_a_source_that_fails_beside_one_that_does_not(run: Run, bundle: Path, photos_folder: Path) -> None:
    broken = photos_folder.parent / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    result = run("watch", bundle, photos_folder, broken, *LABELS)
    assert result.exit_code == 3
    assert "broken.mp4: failed" in result.stderr


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("gone.mp4", LABELS, "gone.mp4"),
        ("a.png", (), "no labels of its own"),
        ("a.png", ("--labels", "dog,dog"), "dog"),
        ("a.png", (*LABELS, "--token", "correct-horse"), "--web"),
        ("a.png", (*LABELS, "--web", "a.png"), "no address"),
        ("a.png", (*LABELS, "--video", "a.png"), "no name for a video"),
        ("a.png", (*LABELS, "--precision", "int8"), "int8"),
    ],
)
def test_bad_input(
    run: Run, bundle: Path, photos_folder: Path, source: str, arguments: tuple[str, ...], message: str
) -> None:
    said = failure(run("watch", bundle, photos_folder / source, *arguments))
    assert message in said
    assert "fix: " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "SOURCES"), (("a.png", "--fps", "0"), "--fps"), (("a.png", "--seconds", "-1"), "--seconds")],
)
def test_a_senseless_command_line(run: Run, bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("watch", bundle, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_error_is_a_document_too(run: Run, bundle: Path) -> None:
    result = run("watch", bundle, "gone.mp4", *LABELS, "--json")
    assert result.exit_code == 1
    assert document(result)["error"]["kind"] == "SourceError"


def test_its_smoothing_is_the_streams() -> None:
    from clipdeploy.cli.watch import watch
    from clipdeploy.runtime.stream import Smoothing

    assert next(p.default for p in watch.params if p.name == "smooth") == Smoothing().seconds
