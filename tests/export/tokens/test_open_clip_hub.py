"""open_clip's wrapper of Hugging Face tokenizers: cleaning, length, and the two ways in which it changes ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="writing tokenizers needs the extra: pip install 'clipdeploy[export]'")

from open_clip.tokenizer import HFTokenizer

from clipdeploy.errors import BundleCorruptError, CheckpointError
from clipdeploy.export.tokens.open_clip import named_tokenizer, token_facts
from tests import checkpoints
from tests.export.tokens import kinds
from tests.export.tokens.kinds import assert_same, written
from tests.texts import nasty_texts

CLIPS = {"bos_token": "[unused0]", "eos_token": "[unused1]"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    kinds.bert().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unigram")
    kinds.xlm_roberta().save_pretrained(folder)
    return folder


def check(theirs: HFTokenizer, folder: Path, count: int, seed: int) -> np.ndarray[Any, Any]:
    texts = nasty_texts(count, seed)
    extra = ["[SEP]", "a [SEP] b", "[CLS]a[PAD]", "</s> x", "[sep]", "a&lt;/s&gt;b", "cat [SEP]" * 30]
    rows = written(token_facts(theirs, name="tiny"), folder)([*texts, *extra])
    assert_same(rows, theirs([*texts, *extra]).numpy(), [*texts, *extra])
    return rows


@pytest.mark.parametrize("cleaning", ["whitespace", "lower", "canonicalize"])
def test_cleanings(cleaning: str, unigram: Path, tmp_path: Path) -> None:
    check(
        HFTokenizer(str(unigram), context_length=64, clean=cleaning),
        tmp_path,
        3000 if cleaning == "canonicalize" else 700,
        61,
    )


def test_separators_become_zero(bert: Path, tmp_path: Path) -> None:
    """CLIPA: of the ids of [SEP] none is left, wherever it stood."""
    theirs = HFTokenizer(str(bert), context_length=32, strip_sep_token=True)
    facts = token_facts(theirs, name="tiny")
    assert (facts.erased_id, facts.end_id, facts.last_id) == (3, 3, None)
    rows = check(theirs, tmp_path, 3000, 62)
    assert not (rows == 3).any()
    kept = check(HFTokenizer(str(bert), context_length=32), tmp_path, 300, 62)
    assert (kept == 3).any(axis=1).all()


def test_the_class_token_last(bert: Path, tmp_path: Path) -> None:
    """CLIPS: start, text, end, padding, and the class token in the last place."""
    theirs = HFTokenizer(str(bert), context_length=24, tokenizer_mode="clips", **CLIPS)
    facts = token_facts(theirs, name="tiny")
    assert (facts.last_id, facts.erased_id) == (2, None)
    rows = check(theirs, tmp_path, 3000, 63)
    assert (rows[:, -1] == 2).all()
    assert (rows[:, 0] == facts.start_id).all()
    ours = written(facts, tmp_path)
    assert ours.count("") == 3
    assert ours.count("cat " * 50) > 24


def test_clips_takes_no_note_of_the_separator(bert: Path, tmp_path: Path) -> None:
    check(
        HFTokenizer(str(bert), context_length=24, tokenizer_mode="clips", strip_sep_token=True, **CLIPS),
        tmp_path,
        300,
        64,
    )


def test_a_file_of_another_manifest(bert: Path, tmp_path: Path) -> None:
    facts = token_facts(HFTokenizer(str(bert), context_length=24), name="tiny")
    clips = token_facts(HFTokenizer(str(bert), context_length=24, tokenizer_mode="clips", **CLIPS), name="tiny")
    with pytest.raises(BundleCorruptError, match="truncation"):
        written(clips, tmp_path, json.loads(facts.to_json()))


def test_clips_without_its_tokens(bert: Path) -> None:
    with pytest.raises(CheckpointError, match="no bos_token and no eos_token, which tokenizer_mode 'clips'"):
        token_facts(HFTokenizer(str(bert), context_length=24, tokenizer_mode="clips"), name="tiny")


def test_clips_on_the_left(bert: Path) -> None:
    theirs = HFTokenizer(str(bert), context_length=24, tokenizer_mode="clips", padding_side="left", **CLIPS)
    with pytest.raises(CheckpointError, match="on the left"):
        token_facts(theirs, name="tiny")


def test_an_unknown_mode(bert: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown tokenizer_mode 'other'"):
        token_facts(HFTokenizer(str(bert), context_length=24, tokenizer_mode="other"), name="tiny")


def test_an_unknown_cleaning(bert: Path) -> None:
    theirs = HFTokenizer(str(bert), context_length=24)
    theirs.clean_fn = str.upper
    with pytest.raises(CheckpointError, match="unknown rule") as caught:
        token_facts(theirs, name="tiny")
    assert "whitespace, lower, canonicalize" in str(caught.value.fix)


def test_a_slow_tokenizer(bert: Path) -> None:
    from transformers import ByT5Tokenizer

    theirs = HFTokenizer(str(bert), context_length=24)
    theirs.tokenizer = ByT5Tokenizer()
    with pytest.raises(CheckpointError, match=r"slow one \(ByT5Tokenizer\)"):
        token_facts(theirs, name="tiny")


def test_a_wrapper_that_does_more(bert: Path) -> None:
    theirs = HFTokenizer(str(bert), context_length=24)
    theirs.tokenizer.split_special_tokens = True
    with pytest.raises(CheckpointError, match=r"more than its tokenizer.json says"):
        token_facts(theirs, name="tiny")


def text_cfg(**more: Any) -> dict[str, Any]:
    kwargs = {"clean": "canonicalize", "strip_sep_token": True}
    return {"text_cfg": {"context_length": 20, "hf_tokenizer_name": "org/none", "tokenizer_kwargs": kwargs, **more}}


@pytest.mark.parametrize("name", [".", "tokenizer.json"])
def test_a_tokenizer_that_the_user_names(bert: Path, name: str) -> None:
    """Length and cleaning are the architecture's; nothing is asked of the network."""
    theirs = named_tokenizer(str(bert / name), text_cfg(), name="tiny")
    facts = token_facts(theirs, name="tiny")
    assert (facts.context_length, facts.cleaning, facts.erased_id) == (20, "canonicalize", 3)


def test_a_named_tokenizer_that_is_not_there(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tokenizer at"):
        named_tokenizer(str(tmp_path / "none"), text_cfg(), name="tiny")
    with pytest.raises(CheckpointError, match="uses CLIP's own tokenizer"):
        named_tokenizer(str(bert), text_cfg(hf_tokenizer_name=None), name="tiny")


def test_a_whole_checkpoint_with_a_named_tokenizer(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture whose tokenizer lies on the hub loads without it."""
    config = checkpoints.model_config(text_cfg={**text_cfg()["text_cfg"], "vocab_size": 900, "pool_type": "last"})
    checkpoints.register(monkeypatch, "tiny-hub", config)
    loaded = checkpoints.load("tiny-hub", random_weights=True, preprocessing="openai", tokenizer=bert)
    assert (loaded.spec.tokens.erased_id, loaded.spec.tokens.cleaning) == (3, "canonicalize")
    assert loaded.reference_tokens(["a cat"]).shape == (1, 20)
