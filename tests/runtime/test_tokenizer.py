"""Ids as open_clip made them (golden_tokens.json, written by make_tokenizer_golden.py), without open_clip."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import BundleCorruptError, TextError
from clipdeploy.runtime import clip_words
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import TokenSpec

HERE = Path(__file__).parent
FILE = HERE / "golden_tokenizer.json"
SPEC = TokenSpec(
    context_length=77,
    vocab_size=49408,
    start_id=49406,
    end_id=49407,
    pad_id=0,
    cleaning="lower",
    pooling="eot_argmax",
)


@pytest.fixture(scope="module")
def golden() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HERE / "golden_tokens.json").read_text(encoding="ascii"))
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(FILE, SPEC)


def test_golden_texts(tokenizer: Tokenizer, golden: list[dict[str, Any]]) -> None:
    rows = tokenizer([case["text"] for case in golden])
    assert rows.shape == (len(golden), 77)
    assert rows.dtype == np.int64
    for case, row in zip(golden, rows, strict=True):
        ids = case["ids"]
        np.testing.assert_array_equal(row, ids + [0] * (77 - len(ids)), err_msg=repr(case["text"]))
        assert tokenizer.count(case["text"]) == case["count"]
    assert max(case["count"] for case in golden) > 77


def test_known_ids(tokenizer: Tokenizer) -> None:
    """The ids that OpenAI's own notebook shows for CLIP's prompts."""
    assert tokenizer(["a photo of a cat."])[0, :9].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407, 0]


def test_same_ids_when_words_are_remembered(golden: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_words, "CACHED_WORDS", 20)
    small = Tokenizer(FILE, SPEC)
    texts = [case["text"] for case in golden]
    first = small(texts)
    np.testing.assert_array_equal(small(texts), first)
    assert len(small._ids._known) <= 20  # type: ignore[union-attr]
    np.testing.assert_array_equal(Tokenizer(FILE, SPEC)(texts), first)


@pytest.mark.parametrize("length", [3, 5, 8, 77])
def test_cut_keeps_the_end_token(length: int) -> None:
    short = Tokenizer(FILE, replace(SPEC, context_length=length))
    row = short(["a photo of a cat. " * 30])[0].tolist()
    whole = [320, 1125, 539, 320, 2368, 269] * 30
    assert row == [49406, *whole[: length - 2], 49407]
    assert short.count("a photo of a cat. " * 30) == 182


def test_empty_text_and_empty_list(tokenizer: Tokenizer) -> None:
    assert tokenizer([""])[0, :3].tolist() == [49406, 49407, 0]
    assert tokenizer.count("") == 2
    assert tokenizer([]).shape == (0, 77)
    assert tokenizer(("a photo", "a cat")).shape == (2, 77)


@pytest.mark.parametrize("texts", ["a photo", b"a photo", None, 3, {"a": 1}, {"a photo"}])
def test_no_list_of_texts(tokenizer: Tokenizer, texts: Any) -> None:
    with pytest.raises(TextError, match="expected a list of texts"):
        tokenizer(texts)


@pytest.mark.parametrize("text", [None, 3, b"a photo", ["a photo"], 1.5])
def test_no_text(tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(TextError, match="expected a text, got"):
        tokenizer(["fine", text])
    with pytest.raises(TextError, match="expected a text, got"):
        tokenizer.count(text)


def test_unpaired_surrogates_are_what_open_clip_makes_of_them(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer(["a \ud800 b"]), tokenizer(["a \ufffd b"]))


def test_missing_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError, match="there is no tokenizer file"):
        Tokenizer(tmp_path / "tokenizer.json", SPEC)
    for content in ("", "{", '{"model": {}}', FILE.read_text(encoding="ascii")[:5000]):
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(BundleCorruptError, match="cannot be read"):
            Tokenizer(tmp_path / "tokenizer.json", SPEC)


@pytest.mark.parametrize("change", [{"start_id": 1}, {"end_id": 1}, {"start_id": None}])
def test_file_of_another_manifest(change: dict[str, Any]) -> None:
    with pytest.raises(BundleCorruptError, match="start and end ids 49406, 49407, but the manifest says"):
        Tokenizer(FILE, replace(SPEC, **change))


def test_other_tokenizers_must_cut_and_pad_as_the_manifest_says(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    def write(cut: int | None, pad: int | None) -> Path:
        backend = Backend(WordLevel({"<pad>": 0, "</s>": 1, "a": 2, "cat": 3, "?": 4}, unk_token="?"))
        backend.pre_tokenizer = Whitespace()
        if cut:
            backend.enable_truncation(cut)
        if pad:
            backend.enable_padding(length=pad, pad_id=0, pad_token="<pad>")
        backend.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    spec = replace(SPEC, context_length=5, vocab_size=5, start_id=None, end_id=1)
    words = Tokenizer(write(5, 5), spec)
    assert words(["A dog  a CAT", "a " * 9]).tolist() == [[2, 4, 2, 3, 0], [2] * 5]
    assert words.count("a " * 9) == 9
    with pytest.raises(BundleCorruptError, match="truncation None"):
        Tokenizer(write(None, 5), spec)
    with pytest.raises(BundleCorruptError, match="truncation"):
        Tokenizer(write(6, 5), spec)
    with pytest.raises(BundleCorruptError, match="padding None"):
        Tokenizer(write(5, None), spec)
    with pytest.raises(BundleCorruptError, match="padding"):
        Tokenizer(write(5, 6), spec)


def test_plain_texts_never_import_ftfy() -> None:
    """Its import takes longer than a whole classification."""
    program = (
        "import sys; from tests.runtime.test_tokenizer import *; t = Tokenizer(FILE, SPEC); t(['a photo of a cat.']);"
        "assert 'ftfy' not in sys.modules; t(['caf\\xe9']); assert 'ftfy' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
