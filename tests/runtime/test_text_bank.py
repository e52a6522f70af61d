"""Labels are embedded once: memory, then the bundle's banks, then the text encoder."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipdeploy.bank import BankRequest, bank_labels
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BundleCorruptError, TextError
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, TEMPLATES, fill_templates
from clipdeploy.runtime.stored_banks import KIND, bank_id, index_name, rows_name
from clipdeploy.runtime.text_bank import KEPT_SETS, TextBank
from tests.bundles import EMBED_DIM, make_bundle

pytest.importorskip("onnxruntime")

ONE = (DEFAULT_TEMPLATE,)
TWO = ("a {}.", "the {}.")


class Encoder:
    """Any text to a unit vector that is its own; remembers what it was asked."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.asked: list[str] = []
        self._delay_s = delay_s

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        time.sleep(self._delay_s)
        return np.stack([vector(text) for text in texts])


def vector(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(EMBED_DIM)
    return (values / np.linalg.norm(values)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without banks; nobody changes it."""
    return make_bundle(tmp_path_factory.mktemp("plain") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle that holds dog and cat with the default template."""
    folder = make_bundle(tmp_path / "tiny")
    bank_labels(BankRequest(folder, ("dog", "cat")))
    return folder


def test_a_label_set_is_embedded_once(plain: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(plain), encoder)
    rows = bank.labels(("dog", "cat"), ONE)
    assert np.array_equal(rows, np.stack([vector("a photo of a dog."), vector("a photo of a cat.")]))
    assert bank.labels(("dog", "cat"), ONE) is rows
    assert encoder.asked == ["a photo of a dog.", "a photo of a cat."]


def test_shared_rows_cannot_be_written_to(plain: Path) -> None:
    rows = TextBank(Bundle.open(plain), Encoder()).labels(("dog",), ONE)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


@pytest.mark.parametrize("templates", [ONE, TWO])
def test_one_label_more_is_one_label_embedded(plain: Path, templates: tuple[str, ...]) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(plain), encoder)
    many = tuple(f"thing {number}" for number in range(1000))
    before = bank.labels(many, templates)
    encoder.asked.clear()
    after = bank.labels(("new", *reversed(many)), templates)
    assert encoder.asked == fill_templates(["new"], templates)
    assert np.array_equal(after[1:], before[::-1])


def test_a_row_belongs_to_the_text_not_to_its_template(plain: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(plain), encoder)
    rows = bank.labels(("dog", "cat"), ONE)
    assert np.array_equal(bank.labels(("a photo of a cat.",), ("{}",)), rows[1:])
    assert len(encoder.asked) == 2


def test_several_templates_are_averaged(plain: Path) -> None:
    rows = TextBank(Bundle.open(plain), Encoder()).labels(("dog", "cat"), TWO)
    for row, label in zip(rows, ("dog", "cat"), strict=True):
        mean = np.mean([vector(f"a {label}."), vector(f"the {label}.")], axis=0, dtype=np.float64)
        assert np.array_equal(row, (mean / np.linalg.norm(mean)).astype(np.float32))


def test_more_labels_than_go_at_once(plain: Path) -> None:
    encoder = Encoder()
    many = tuple(f"thing {number}" for number in range(100))
    rows = TextBank(Bundle.open(plain), encoder).labels(many, TWO)
    assert encoder.asked == fill_templates(many, TWO)
    one = TextBank(Bundle.open(plain), Encoder()).labels(many[77:78], TWO)
    assert np.array_equal(rows[77], one[0])


def test_only_the_latest_sets_stay(plain: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(plain), encoder)
    bank.labels(("first",), ONE)
    for number in range(KEPT_SETS):
        bank.labels((f"thing {number}",), ONE)
    encoder.asked.clear()
    bank.labels((f"thing {KEPT_SETS - 1}",), ONE)
    assert encoder.asked == []
    bank.labels(("first",), ONE)
    assert encoder.asked == ["a photo of a first."]


def test_clear_forgets(plain: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(plain), encoder)
    bank.labels(("dog",), ONE)
    bank.clear()
    bank.labels(("dog",), ONE)
    assert len(encoder.asked) == 2


def test_threads_that_ask_for_the_same_wait_for_one(plain: Path) -> None:
    encoder = Encoder(delay_s=0.05)
    bank = TextBank(Bundle.open(plain), encoder)
    start = threading.Barrier(8)
    got = []

    def ask() -> None:
        start.wait()
        got.append(bank.labels(("dog", "cat"), TWO))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoder.asked) == 4
    assert len(got) == 8 and all(rows is got[0] for rows in got)


def test_a_kept_set_does_not_wait_for_a_new_one(plain: Path) -> None:
    release = threading.Event()

    def encode(texts: Sequence[str]) -> np.ndarray:
        if texts[0] != "a photo of a quick.":
            assert release.wait(10)
        return np.stack([vector(text) for text in texts])

    bank = TextBank(Bundle.open(plain), encode)
    bank.labels(("quick",), ONE)
    slow = threading.Thread(target=lambda: bank.labels(("slow",), ONE))
    slow.start()
    try:
        assert len(bank.labels(("quick",), ONE)) == 1
        assert slow.is_alive()
    finally:
        release.set()
        slow.join()


def test_a_failed_label_set_is_asked_for_again(plain: Path) -> None:
    asked = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        asked.append(texts)
        if len(asked) == 1:
            raise TextError("not now")
        return np.stack([vector(text) for text in texts])

    bank = TextBank(Bundle.open(plain), encode)
    with pytest.raises(TextError, match="not now"):
        bank.labels(("dog",), ONE)
    assert len(bank.labels(("dog",), ONE)) == 1


def test_lengths_are_checked_before_anything_is_encoded(plain: Path) -> None:
    encoder, checked = Encoder(), list[str]()

    def check(texts: Sequence[str]) -> None:
        checked.extend(texts)
        raise TextError("too long")

    with pytest.raises(TextError, match="too long"):
        TextBank(Bundle.open(plain), encoder, check).labels(("dog", "cat"), ONE)
    assert checked == ["a photo of a dog.", "a photo of a cat."]
    assert encoder.asked == []


def test_a_kept_set_of_a_thousand_costs_microseconds(plain: Path) -> None:
    bank = TextBank(Bundle.open(plain), Encoder())
    many = tuple(f"thing {number}" for number in range(1000))
    bank.labels(many, ONE)
    fastest = min(_seconds(lambda: bank.labels(many, ONE)) for _ in range(100))
    assert fastest < 200e-6  # a tenth of it is usual


def _seconds(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began


# What the bundle holds.


def test_banked_labels_need_no_text_encoder(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), None)
    rows = bank.labels(("cat", "dog"), ONE)
    from clipdeploy.runtime.clip import load

    with load(folder) as clip:
        assert np.array_equal(rows, clip.encode_text(["a photo of a cat.", "a photo of a dog."]))


def test_banked_labels_do_not_ask_the_text_encoder(folder: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(folder), encoder)
    rows = bank.labels(("cat", "bird"), ONE)
    assert encoder.asked == ["a photo of a bird."]
    assert np.array_equal(rows[1], vector("a photo of a bird."))
    assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-6)


def test_texts_that_a_template_makes_are_known(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), None)
    rows = bank.texts(["a photo of a dog.", "a photo of a cat.", "a photo of a dog."])
    assert np.array_equal(rows, bank.labels(("dog", "cat"), ONE)[[0, 1, 0]])
    rows[0] = 0  # a copy
    assert bank.texts([]).shape == (0, EMBED_DIM)


def test_an_unknown_label_names_the_command(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), None)
    with pytest.raises(TextError) as caught:
        bank.labels(("dog", "a 'red' car"), ONE)
    assert "no text encoder" in caught.value.message and '''"a 'red' car"''' in caught.value.message
    assert "'dog'" not in caught.value.message
    assert caught.value.fix and "clipdeploy bank BUNDLE --label 'a '\"'\"'red'\"'\"' car'" in caught.value.fix


def test_many_unknown_labels_are_counted(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), None)
    with pytest.raises(TextError, match=r"the 40 labels 'x0', .* and 35 more with these 80 templates") as caught:
        bank.labels(tuple(f"x{number}" for number in range(40)), TEMPLATES["openai"])
    assert caught.value.fix and caught.value.fix.endswith("clipdeploy bank BUNDLE --labels-file FILE --template openai")


def test_an_unknown_text_names_its_template(folder: Path) -> None:
    with pytest.raises(TextError, match="holds the text 'a dog'") as caught:
        TextBank(Bundle.open(folder), None).texts(["a dog"])
    assert caught.value.fix and caught.value.fix.endswith("--label 'a dog' --template '{}'")


def test_other_templates_are_another_bank(folder: Path) -> None:
    bank_labels(BankRequest(folder, ("dog",), TWO))
    bank = TextBank(Bundle.open(folder), None)
    assert len(bank.labels(("dog",), TWO)) == 1
    with pytest.raises(TextError):
        bank.labels(("dog",), tuple(reversed(TWO)))


def test_labels_that_are_banked_later_are_found(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), None)
    with pytest.raises(TextError):
        bank.labels(("bird",), ONE)
    bank_labels(BankRequest(folder, ("bird",)))
    assert len(bank.labels(("bird", "dog"), ONE)) == 2


def test_a_bundle_that_is_gone_does_not_stop_what_is_loaded(folder: Path) -> None:
    encoder = Encoder()
    bank = TextBank(Bundle.open(folder), encoder)
    folder.rename(folder.parent / "elsewhere")
    assert np.array_equal(bank.labels(("bird",), ONE)[0], vector("a photo of a bird."))


def test_another_model_in_its_place_is_refused(folder: Path) -> None:
    bank = TextBank(Bundle.open(folder), Encoder())
    folder.rename(folder.parent / "elsewhere")
    make_bundle(folder, seed=1)
    with pytest.raises(BundleCorruptError, match="made anew"):
        bank.labels(("dog",), ONE)


# What is not as it was written.


def replaced(folder: Path, *, index: dict | None = None, rows: np.ndarray | None = None) -> Bundle:
    """The bundle with other content in its default bank, and a manifest that names it."""
    bundle = Bundle.open(folder)
    identity = bank_id(ONE, bundle.manifest.embedding_space)
    files = []
    if index is not None:
        about = folder.parent / "index.json"
        about.write_text(json.dumps(index), encoding="utf-8")
        files.append(NewFile(index_name(identity), about, KIND, "tests"))
    if rows is not None:
        np.savez(folder.parent / "rows.npz", embeddings=rows)
        files.append(NewFile(rows_name(identity), folder.parent / "rows.npz", KIND, "tests"))
    bundle.add_all(files)
    return Bundle.open(folder)


def index_of(folder: Path) -> dict:
    (path,) = (folder / "banks").glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_bank_of_another_embedding_space_is_refused(folder: Path) -> None:
    index, own = index_of(folder), Bundle.open(folder).manifest.embedding_space
    bundle = replaced(folder, index={**index, "embedding_space": "0123456789abcdef"})
    with pytest.raises(BundleCorruptError, match=f"space 0123456789abcdef, the bundle of {own}"):
        TextBank(bundle, Encoder()).labels(("dog",), ONE)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.zeros((2, EMBED_DIM), np.float32), "row of 'dog' has length 0"),
        (np.full((2, EMBED_DIM), np.nan, np.float32), "row of 'dog' has length nan"),
        (2 * np.eye(2, EMBED_DIM, dtype=np.float32), "row of 'dog' has length 2"),
        (np.eye(3, EMBED_DIM, dtype=np.float32), r"holds \(3, 16\) float32, expected \(2, 16\)"),
        (np.eye(2, EMBED_DIM - 1, dtype=np.float32), r"holds \(2, 15\)"),
        (np.eye(2, EMBED_DIM, dtype=np.float64), "float64"),
    ],
)
def test_rows_that_are_none_are_refused(folder: Path, rows: np.ndarray, why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        TextBank(replaced(folder, rows=rows), Encoder()).labels(("dog",), ONE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": 2}, "format 2"),
        ({"templates": ["another {}."]}, "not those that it was written with"),
        ({"parts": "none"}, "expected"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_an_index_that_is_none_is_refused(folder: Path, changes: dict, why: str) -> None:
    bundle = replaced(folder, index={**index_of(folder), **changes})
    with pytest.raises(BundleCorruptError, match=why):
        TextBank(bundle, Encoder()).labels(("dog",), ONE)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_an_altered_file_is_refused(folder: Path, suffix: str) -> None:
    (path,) = (folder / "banks").glob(f"*{suffix}")
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    bundle = Bundle.open(folder, check_hashes=False)
    with pytest.raises(BundleCorruptError, match=f"{suffix} is altered"):
        TextBank(bundle, None).labels(("dog",), ONE)
