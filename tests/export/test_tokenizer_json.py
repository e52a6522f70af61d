"""The written tokenizer gives the ids of open_clip's own, whatever the text."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="writing tokenizers needs the extra: pip install 'clipdeploy[export]'")

import tokenizers
from open_clip.tokenizer import SimpleTokenizer

from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.export.tokens.open_clip import token_facts
from clipdeploy.export.tokens.words import words_pattern
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import TextCleaning, TokenSpec
from tests.texts import nasty_texts


@cache
def facts_of(cleaning: str, length: int) -> tuple[SimpleTokenizer, TokenFacts]:
    tokenizer = SimpleTokenizer(clean=cleaning, context_length=length)
    return tokenizer, token_facts(tokenizer, name="clip")


def written(folder: Path, cleaning: TextCleaning = "lower", length: int = 77) -> tuple[SimpleTokenizer, Tokenizer]:
    """open_clip's tokenizer, and ours of the file made from it."""
    theirs, facts = facts_of(cleaning, length)
    path = folder / "tokenizer.json"
    path.write_text(facts.to_json(), encoding="utf-8")
    ids = {"start_id": facts.start_id, "end_id": facts.end_id, "pad_id": facts.pad_id}
    spec = TokenSpec(
        context_length=length, vocab_size=facts.vocab_size, cleaning=facts.cleaning, pooling="eot_argmax", **ids
    )
    return theirs, Tokenizer(path, spec)


def assert_same(theirs: SimpleTokenizer, ours: Tokenizer, texts: list[str]) -> None:
    expected, found = theirs(texts).numpy(), ours(texts)
    assert found.dtype == expected.dtype == np.int64
    different = np.flatnonzero((expected != found).any(axis=1))
    assert not len(different), [(texts[i], expected[i], found[i]) for i in different[:3]]


def test_nasty_texts(tmp_path: Path) -> None:
    theirs, ours = written(tmp_path)
    texts = nasty_texts(3500, seed=20261121)
    assert_same(theirs, ours, texts)
    assert [ours.count(t) for t in texts[::9]] == [len(theirs.encode(t)) + 2 for t in texts[::9]]


@pytest.mark.parametrize("cleaning", ["whitespace", "canonicalize"])
def test_other_cleanings(tmp_path: Path, cleaning: TextCleaning) -> None:
    theirs, ours = written(tmp_path, cleaning)
    assert_same(theirs, ours, nasty_texts(600, seed=1))


@pytest.mark.parametrize("length", [3, 8, 200])
def test_other_lengths(tmp_path: Path, length: int) -> None:
    theirs, ours = written(tmp_path, length=length)
    assert_same(theirs, ours, nasty_texts(300, seed=length))


def test_characters_of_all_planes(tmp_path: Path) -> None:
    """Letters, numbers and the rest are told apart as open_clip's engine does, also after an apostrophe."""
    theirs, ours = written(tmp_path)
    points = [p for p in range(0, 0x20000, 41) if not 0xD800 <= p < 0xE000] + list(range(0x250))
    assert_same(theirs, ours, [f"a{chr(p)}b' {chr(p)}1'{chr(p)}" for p in points])


def test_every_length_around_the_cut(tmp_path: Path) -> None:
    theirs, ours = written(tmp_path)
    texts = ["cat " * n for n in range(70, 82)]
    assert_same(theirs, ours, texts)
    rows = ours(texts)
    assert [int((row == 49407).sum()) for row in rows] == [1] * 12
    assert (rows[5:, -1] == 49407).all()
    assert ours.count(texts[-1]) == 83


def test_pattern_needs_no_unicode_tables() -> None:
    """Python's engine and the library's read it alike: there is no class or case flag left in it."""
    pattern = words_pattern()
    assert not re.search(r"\\[pPsSwWdD]|\(\?i", pattern)
    assert re.fullmatch(pattern, "<ſTART_of_text>")
    assert re.findall(pattern, "it's 42 naïve!! ᾳ\u0345") == ["it", "'s", "4", "2", "naïve", "!!", "ᾳ"]


def test_file_serves_the_library_alone(tmp_path: Path) -> None:
    """Whoever reads tokenizer.json with `tokenizers` gets the same ids for ordinary texts, cut and padded."""
    theirs, _ = written(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["a photo of a cat", "It's  3 o'clock,\tMR. Étienne!", "", "日本語 😀 <start_of_text>x", "long " * 99]
    for text in texts:
        assert library.encode(text).ids == theirs(text)[0].tolist()
    ids = [i for i in library.encode("a réd circle").ids if 0 < i < 49406]
    assert library.decode(ids) == "a réd circle "
