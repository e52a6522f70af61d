"""clipdeploy bank."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdeploy.bundle import Bundle
from tests.bundles import make_bundle
from tests.cli.conftest import Run, document, failure


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return make_bundle(tmp_path / "own")


def test_labels_are_added_once(run: Run, own: Path) -> None:
    result = run("bank", own, "--labels", "a dog, a cat")
    assert result.exit_code == 0
    head, made = result.stdout.splitlines()
    assert head.startswith(f"{own}: bank ") and head.endswith("a photo of a {}., holds 2 labels")
    assert made.startswith("2 labels added, fp32 on onnxruntime, ")
    again = run("bank", own, "--label", "a dog", "--label", "a, b")
    assert again.stdout.splitlines()[1].startswith("1 label added, fp32 on onnxruntime, 1 label there already, ")
    assert run("bank", own, "--label", "a dog").stdout.splitlines()[1] == "1 label there already, nothing to do"


def test_json(run: Run, own: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ein Hund\n\nKatze, größer\n", encoding="utf-8")
    answer = document(run("bank", own, "--labels-file", tmp_path / "labels.txt", "--template", "openai", "--json"))
    assert answer["added"] == ["ein Hund", "Katze, größer"]
    assert (answer["present"], answer["count"], len(answer["templates"])) == ([], 2, 80)
    assert answer["precision"] == "fp32"


def test_the_banks_are_shown(run: Run, own: Path) -> None:
    assert run("bank", own, "--list").stdout == "no banks\n"
    run("bank", own, "--labels", "dog,cat")
    run("bank", own, "--label", "dog", "--template", "openai")
    run("bank", own, "--label", "dog", "--template", "a {}.", "--template", "the {}.")
    head, *lines = run("bank", own, "--list").stdout.splitlines()
    assert head.split() == ["bank", "templates", "labels", "made", "by", "size"]
    told = {line[16:].split("fp32")[0].strip() for line in lines}
    assert told == {"a photo of a {}.       2", "80 of openai           1", "2: a {}., ...          1"}
    banks = document(run("bank", own, "--list", "--json"))["banks"]
    assert sorted(bank["labels"] for bank in banks) == [["dog"], ["dog"], ["dog", "cat"]]
    shown = run("inspect", own)
    assert "banks" in shown.stdout and "2 labels with a photo of a {}., fp32 on onnxruntime" in shown.stdout
    assert len(document(run("inspect", own, "--json"))["banks"]) == 3


def test_labels_are_taken_out(run: Run, own: Path) -> None:
    run("bank", own, "--labels", "dog,cat")
    result = run("bank", own, "--remove", "--label", "dog")
    assert result.stdout.startswith(f"{own}: 1 label taken out; bank ") and result.stdout.endswith("holds 1 label\n")
    assert document(run("bank", own, "--remove", "--all", "--json"))["count"] == 0
    assert not any(entry.kind == "bank" for entry in Bundle.open(own).manifest.files.values())
    assert "no bank of these templates" in failure(run("bank", own, "--remove", "--all"))


def test_a_label_that_is_too_long(run: Run, own: Path) -> None:
    said = failure(run("bank", own, "--label", "dog", "--label", "x" * 100))
    assert "a label is too long" in said and "shorten the label or the template" in said
    assert not (own / "banks").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Give labels"),
        (("--remove",), "or --all"),
        (("--list", "--label", "dog"), "--list goes alone"),
        (("--all",), "--all goes with --remove"),
        (("--remove", "--all", "--label", "dog"), "--all goes with --remove"),
    ],
)
def test_what_makes_no_sense(run: Run, own: Path, words: tuple[str, ...], told: str) -> None:
    result = run("bank", own, *words)
    assert result.exit_code == 2
    assert told in result.stderr
