"""Banks in a bundle: added to, by several processes at once, and taken out of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.bank import BankRequest, bank_labels, job, list_banks, remove_labels
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError, OutputError, TextError
from clipdeploy.runtime.clip import load
from clipdeploy.runtime.labels import TEMPLATES
from clipdeploy.runtime.stored_banks import read_index, read_rows
from clipdeploy.spec import Precision, Tower
from tests.bundles import make_bundle

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny", precisions=(Precision.FP32, Precision.FP16))


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """The rows of the only bank, by label."""
    bundle = Bundle.open(folder)
    (bank,) = list_banks(folder)
    rows = read_rows(bundle, bank.id, read_index(bundle, bank.id))
    return dict(zip(bank.labels, rows, strict=True))


def test_labels_are_embedded_as_the_runtime_does(folder: Path) -> None:
    with load(folder) as clip:
        expected = clip.encode_labels(["dog", "cat"], "openai")
    outcome = bank_labels(BankRequest(folder, ("dog", "cat"), ("openai",)))
    assert (outcome.added, outcome.present, outcome.count) == (("dog", "cat"), (), 2)
    assert outcome.templates == TEMPLATES["openai"]
    assert (outcome.precision, outcome.backend) == ("fp32", "onnxruntime")
    assert np.array_equal(np.stack(list(rows_of(folder).values())), expected)


def test_what_is_there_is_not_embedded_again(folder: Path) -> None:
    bank_labels(BankRequest(folder, ("dog", "cat")))
    before = rows_of(folder), Bundle.open(folder).manifest
    again = bank_labels(BankRequest(folder, ("cat", "dog")))
    assert (again.added, again.present, again.count, again.precision) == ((), ("cat", "dog"), 2, None)
    assert Bundle.open(folder).manifest == before[1]
    more = bank_labels(BankRequest(folder, ("cat", "bird")))
    assert (more.added, more.present, more.count) == (("bird",), ("cat",), 3)
    assert np.array_equal(rows_of(folder)["dog"], before[0]["dog"])


def test_what_made_the_rows_is_recorded(folder: Path) -> None:
    bank_labels(BankRequest(folder, ("dog",)))
    bank_labels(BankRequest(folder, ("cat",), precision="fp16"))
    (bank,) = list_banks(folder)
    assert bank.labels == ("dog", "cat")
    assert bank.made_by == ("fp32 on onnxruntime", "fp16 on onnxruntime")
    bundle = Bundle.open(folder)
    files = bundle.manifest.files
    first, second = read_index(bundle, bank.id).parts
    assert first.graph_sha256 == files[Tower.TEXT.graph_name()].sha256
    assert (second.precision, second.labels) == (Precision.FP16, ("cat",))
    assert {files[name].kind for name in files if name.startswith("banks/")} == {"bank"}
    assert bank.size_bytes == sum(path.stat().st_size for path in (folder / "banks").iterdir())


def test_a_bank_for_each_list_of_templates(folder: Path) -> None:
    for templates in ((), ("a {}.",), ("a {}.", "the {}.")):
        bank_labels(BankRequest(folder, ("dog",), templates))
    assert sorted(bank.templates for bank in list_banks(folder)) == [
        ("a photo of a {}.",),
        ("a {}.",),
        ("a {}.", "the {}."),
    ]


def test_a_label_that_is_too_long_leaves_nothing(folder: Path) -> None:
    before = Bundle.open(folder).manifest
    with pytest.raises(TextError, match=r"a label is too long: 'a photo of a xxx.*the model reads 77"):
        bank_labels(BankRequest(folder, ("dog", "x" * 100)))
    assert Bundle.open(folder).manifest == before
    assert not (folder / "banks").exists()


@pytest.mark.parametrize("labels", [(), ("dog", "dog"), ("dog", " ")])
def test_labels_are_checked(folder: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(TextError):
        bank_labels(BankRequest(folder, labels))


def test_progress_counts_texts(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    labels = tuple(f"thing {number}" for number in range(50))
    bank_labels(BankRequest(folder, labels, ("openai",)), progress=lambda *news: told.append(news))
    counts = [done for what, done, total in told if what == "embedding texts" and total == 4000]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 4000 and len(counts) > 100


def test_labels_are_taken_out(folder: Path) -> None:
    bank_labels(BankRequest(folder, ("dog", "cat")))
    bank_labels(BankRequest(folder, ("bird",)))
    before = rows_of(folder)
    removed = remove_labels(folder, ["dog", "bird"])
    assert (removed.removed, removed.count) == (("dog", "bird"), 1)
    assert list(after := rows_of(folder)) == ["cat"]
    assert np.array_equal(after["cat"], before["cat"])
    assert remove_labels(folder, None).count == 0
    assert list_banks(folder) == ()
    assert not any(name.startswith("banks/") for name in Bundle.open(folder).manifest.files)
    assert not (folder / "banks").exists()


def test_what_is_not_there_cannot_be_taken_out(folder: Path) -> None:
    with pytest.raises(InputError, match="no bank of these templates; it has none"):
        remove_labels(folder, ["dog"])
    bank_labels(BankRequest(folder, ("dog",)))
    with pytest.raises(TextError, match="does not hold 'cow'"):
        remove_labels(folder, ["dog", "cow"])
    assert list(rows_of(folder)) == ["dog"]


def test_an_altered_bank_is_not_added_to(folder: Path) -> None:
    bank_labels(BankRequest(folder, ("dog",)))
    (path,) = (folder / "banks").glob("*.npz")
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleCorruptError):
        bank_labels(BankRequest(folder, ("cat",)))


def test_another_model_meanwhile_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = job.embed_labels

    def slowly(*args: Any) -> Any:
        made = embed(*args)
        folder.rename(folder.parent / "elsewhere")
        make_bundle(folder, seed=1)
        return made

    monkeypatch.setattr(job, "embed_labels", slowly)
    with pytest.raises(OutputError, match="made anew meanwhile"):
        bank_labels(BankRequest(folder, ("dog",)))
    assert list_banks(folder) == ()


def test_an_interrupted_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tuple(f"thing {number}" for number in range(100))
    embed, groups = job.embed_labels, list[int]()

    def interrupted(some: Any, *args: Any) -> Any:
        groups.append(len(some))
        if len(groups) == 3:
            raise KeyboardInterrupt
        return embed(some, *args)

    monkeypatch.setattr(job, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(job, "embed_labels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bank_labels(BankRequest(folder, labels))
    assert list(rows_of(folder)) == list(labels[:64])
    outcome = bank_labels(BankRequest(folder, labels))
    assert (outcome.present, outcome.added, outcome.count) == (labels[:64], labels[64:], 100)
    held = rows_of(folder)
    with load(folder) as clip:
        expected = clip.encode_text([f"a photo of a {label}." for label in labels])
    assert list(held) == list(labels)
    assert np.allclose(np.stack(list(held.values())), expected, atol=1e-6)


ADD = """
import sys
from pathlib import Path
from clipdeploy.bank import BankRequest, bank_labels
for label in sys.argv[2:]:
    bank_labels(BankRequest(Path(sys.argv[1]), (label, "shared")))
"""


def test_processes_that_add_at_once_lose_nothing(folder: Path) -> None:
    groups = [[f"{letter}{number}" for number in range(6)] for letter in "abc"]
    running = [
        subprocess.Popen([sys.executable, "-c", ADD, str(folder), *group], stderr=subprocess.PIPE, text=True)
        for group in groups
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    held = rows_of(folder)
    assert sorted(held) == sorted(["shared", *(label for group in groups for label in group)])
    with load(folder) as clip:
        expected = clip.encode_text([f"a photo of a {label}." for label in held])
    assert np.allclose(np.stack(list(held.values())), expected, atol=1e-6)
