"""clipdeploy classify."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdeploy.runtime.clip import load
from tests.cli.conftest import Run, document, failure

LABELS = ("--labels", "a dog,a cat,a car")


def test_a_block_of_bars_for_a_picture(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("classify", bundle, photos_folder / "a.png", *LABELS)
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head == str(photos_folder / "a.png")
    assert {line.split("  ")[-1].strip() for line in lines} == {"a dog", "a cat", "a car"}
    assert sum(float(line.split("%")[0]) for line in lines) == pytest.approx(100, abs=0.2)
    assert "\x1b" not in result.output


def test_a_line_for_each_of_many(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("classify", bundle, photos_folder, *LABELS, "--recursive")
    lines = result.stdout.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["a.png", "b.jpg", "c.png", "d.png", "e.jpg"]


def test_json_is_what_the_runtime_says(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("classify", bundle, photos_folder, "--label", "a, b", "--label", "c", "--top", 1, "--json")
    answer = document(result)
    assert answer["labels"] == ["a, b", "c"]
    assert [Path(item["path"]).name for item in answer["results"]] == ["a.png", "b.jpg", "c.png"]
    with load(bundle) as clip:
        for item in answer["results"]:
            (expected,) = clip.classify([item["path"]], ["a, b", "c"])
            assert item["label"] == expected.label
            assert item["probability"] == pytest.approx(expected.probability, abs=1e-5)
            assert len(item["scores"]) == 1
    assert answer["skipped"] == []


def test_labels_of_a_file(run: Run, bundle: Path, photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ein Hund\n\nKatze, größer\n", encoding="utf-8")
    result = run("classify", bundle, photos_folder / "a.png", "--labels-file", tmp_path / "labels.txt", "--json")
    assert document(result)["labels"] == ["ein Hund", "Katze, größer"]


@pytest.mark.parametrize("templates", [["openai"], ["a {}.", "the {}."], ["default"]])
def test_templates(run: Run, bundle: Path, photos_folder: Path, templates: list[str]) -> None:
    options = [part for template in templates for part in ("--template", template)]
    result = run("classify", bundle, photos_folder / "a.png", *LABELS, *options, "--json")
    assert len(document(result)["templates"]) == {"openai": 80, "default": 1}.get(templates[0], 2)


def test_a_terminal_without_blocks_gets_ascii(run: Run, bundle: Path, photos_folder: Path) -> None:
    result = run("classify", bundle, photos_folder / "a.png", "--labels", "dog,größer", charset="latin-1")
    assert result.exit_code == 0
    assert "#" in result.stdout
    assert "größer" in result.stdout
    result = run("classify", bundle, photos_folder / "a.png", "--labels", "dog,größer", charset="ascii")
    assert "gr\\xf6\\xdfer" in result.stdout
    result = run("classify", bundle, photos_folder / "a.png", "--labels", "dog,größer", "--json", charset="ascii")
    assert document(result)["labels"] == ["dog", "größer"]


def test_a_broken_jpeg_is_skipped_and_counted(run: Run, bundle: Path, photos_folder: Path, broken: Path) -> None:
    result = run("classify", bundle, photos_folder, broken, *LABELS, "--json")
    assert result.exit_code == 3
    assert "skipped: " + str(broken) in result.stderr
    assert "skipped 1 of 4 pictures" in result.stderr
    answer = document(result)
    assert len(answer["results"]) == 3
    assert [item["path"] for item in answer["skipped"]] == [str(broken)]


def test_nothing_but_a_broken_jpeg(run: Run, bundle: Path, broken: Path) -> None:
    said = failure(run("classify", bundle, broken, *LABELS))
    assert str(broken) in said


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        ("gone.jpg", LABELS, "gone.jpg does not exist"),
        ("*.tiff", LABELS, "matches nothing"),
        ("empty", LABELS, "holds no picture"),
        ("a.png", ("--labels", ""), "label"),
        ("a.png", ("--labels", " "), "label"),
        ("a.png", ("--labels", "dog,,cat"), "empty"),
        ("a.png", ("--labels", "dog,dog"), "dog"),
        ("a.png", ("--label", "very " * 100), "long"),
        ("a.png", ("--labels-file", "gone.txt"), "gone.txt cannot be read"),
        ("a.png", (*LABELS, "--template", "no place"), "{}"),
        ("a.png", (*LABELS, "--precision", "int8"), "int8"),
        ("a.png", (*LABELS, "--backend", "abacus"), "abacus"),
    ],
)
def test_bad_input(
    run: Run, bundle: Path, photos_folder: Path, pictures: str, labels: tuple[str, ...], message: str
) -> None:
    (photos_folder / "empty").mkdir()
    said = failure(run("classify", bundle, photos_folder / pictures, *labels))
    assert message in said
    assert "fix: " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "PICTURES"),
        (("a.png",), "Give labels"),
        (("a.png", *LABELS, "--top", "0"), "--top"),
        (("a.png", *LABELS, "--precision", "fp3"), "--precision"),
    ],
)
def test_a_senseless_command_line(run: Run, bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("classify", bundle, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_bundle(run: Run, photos_folder: Path) -> None:
    said = failure(run("classify", photos_folder / "gone", photos_folder, *LABELS))
    assert "does not exist" in said
    assert "clipdeploy export" in said


def test_an_error_is_a_document_too(run: Run, bundle: Path) -> None:
    result = run("classify", bundle, "gone.jpg", *LABELS, "--json")
    assert result.exit_code == 1
    error = document(result)["error"]
    assert error["kind"] == "InputError"
    assert "gone.jpg does not exist" in error["message"]
    assert error["fix"]


def test_quiet_says_only_the_result(run: Run, bundle: Path, photos_folder: Path) -> None:
    loud = run("classify", bundle, photos_folder / "a.png", *LABELS)
    quiet = run("classify", bundle, photos_folder / "a.png", *LABELS, "--quiet")
    assert quiet.stdout == loud.stdout
    assert quiet.stderr == ""
    assert "onnxruntime" in loud.stderr
