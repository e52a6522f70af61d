"""Merging gives what the `tokenizers` library gives, on CLIP's own merges, and stays quick on endless words."""

from __future__ import annotations

import json
import random
import string
import time
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.runtime.bpe import BytePairs

FILE = Path(__file__).parent / "golden_tokenizer.json"


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["model"]
    return found


@pytest.fixture(scope="module")
def pairs(model: dict[str, Any]) -> BytePairs:
    return BytePairs(model["vocab"], model["merges"], model["end_of_word_suffix"])


def test_as_the_library_does(model: dict[str, Any], pairs: BytePairs) -> None:
    models = pytest.importorskip("tokenizers.models", reason="the reference is the tokenizers library")
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    library = models.BPE(vocab=model["vocab"], merges=merges, end_of_word_suffix=model["end_of_word_suffix"])
    letters = [piece for piece in model["vocab"] if len(piece) == 1]
    plain = list(string.ascii_lowercase)
    rng = random.Random(0)
    for i in range(3000):
        word = "".join(rng.choices(plain if i % 3 else letters, k=rng.choice([1, 2, 3, 5, 8, 13, 40, 200])))
        assert pairs(word) == tuple(token.id for token in library.tokenize(word)), word
    for letter in letters:
        word = letter * 57
        assert pairs(word) == tuple(token.id for token in library.tokenize(word)), word


def test_time_grows_little_faster_than_the_word(pairs: BytePairs) -> None:
    rng = random.Random(1)

    def seconds(length: int) -> float:
        word = "".join(rng.choices(string.ascii_lowercase, k=length))
        started = time.process_time()
        pairs(word)
        return time.process_time() - started

    short = min(seconds(4_000) for _ in range(5))
    assert min(seconds(64_000) for _ in range(3)) < 64 * short  # 16 times the letters; squared time would be 256


def test_a_merge_must_make_a_known_piece() -> None:
    with pytest.raises(KeyError, match="'a' \\+ 'b'"):
        BytePairs({"a": 0, "b": 1}, ["a b"], "</w>")


def test_a_merge_must_be_a_pair() -> None:
    for merge in ("a", "a a a", ["a", "a", "a"], ["a"]):
        with pytest.raises(ValueError, match="a pair of pieces"):
            BytePairs({"a": 0, "aa": 1, "aaa": 2}, [merge], "</w>")


def test_merges_may_be_lists() -> None:
    texts, lists = (BytePairs({"a": 0, "b": 1, "ab</w>": 2}, [merge], "</w>") for merge in ("a b</w>", ["a", "b</w>"]))
    assert texts("ab") == lists("ab") == (2,)
