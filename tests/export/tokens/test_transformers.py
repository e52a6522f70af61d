"""Files written of transformers' tokenizers give the ids of the tokenizers themselves, whatever the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="writing tokenizers needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.errors import CheckpointError, TextError
from clipdeploy.export.tokens.transformers import load_tokenizer, token_facts_of_transformers
from clipdeploy.runtime.tokenizer import Tokenizer
from tests.export.tokens import kinds
from tests.export.tokens.kinds import assert_same, reference, written
from tests.texts import encodable_texts

KINDS: dict[str, Callable[[], Any]] = {
    "WordPiece": kinds.bert,
    "Unigram": kinds.xlm_roberta,
    "byte-level BPE": kinds.roberta,
    "Gemma": kinds.gemma,
}


@pytest.fixture(params=KINDS, ids=str)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def test_nasty_texts(tokenizer: Any, tmp_path: Path) -> None:
    facts = token_facts_of_transformers(tokenizer, length=40, name="tiny")
    ours, texts = written(facts, tmp_path), encodable_texts(3000, seed=31)
    assert_same(ours(texts), reference(tokenizer, texts, 40), texts)
    whole = [len(ids) for ids in tokenizer(texts[::7]).input_ids]
    assert [ours.count(text) for text in texts[::7]] == whole
    assert max(whole) > 40 > min(whole)


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_the_other_side(tokenizer: Any, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, side, "left")
    facts = token_facts_of_transformers(tokenizer, length=12, name="tiny")
    texts = encodable_texts(300, seed=5)
    rows = written(facts, tmp_path)(texts)
    assert_same(rows, reference(tokenizer, texts, 12), texts)
    assert (rows[0, 0] == facts.pad_id) == (side == "padding_side")


def test_facts() -> None:
    found = {name: token_facts_of_transformers(make(), length=16, name="x") for name, make in KINDS.items()}
    ends = {name: (facts.start_id, facts.end_id, facts.pad_id) for name, facts in found.items()}
    assert ends == {"WordPiece": (2, 3, 0), "Unigram": (0, 2, 1), "byte-level BPE": (0, 2, 1), "Gemma": (None, 1, 0)}
    assert {facts.cleaning for facts in found.values()} == {"none"}
    assert all(facts.vocab_size == len(KINDS[name]()) for name, facts in found.items())


def change(content: dict[str, Any], kind: str) -> None:
    """Spoil one thing in a tokenizer.json."""
    model = content["model"]
    if kind == "Unigram":
        piece = max((p for p in model["vocab"] if len(p[0]) == 2 and p[0].startswith("▁")), key=lambda p: p[1])
        piece[1] -= 5.0
    elif kind == "WordPiece":
        content["normalizer"]["lowercase"] = False
    else:
        del model["merges"][0]


def test_one_change_shows(tmp_path: Path) -> None:
    """The comparison is worth something: a merge, a score or a cleaning rule less, and ids differ."""
    for kind, make in KINDS.items():
        tokenizer = make()
        facts = token_facts_of_transformers(tokenizer, length=40, name="tiny")
        content = json.loads(facts.to_json())
        change(content, kind)
        texts = encodable_texts(400, seed=31)
        with pytest.raises(AssertionError):
            assert_same(written(facts, tmp_path, content)(texts), reference(tokenizer, texts, 40), texts)


def test_rules_outside_the_file_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shouting(type(kinds.roberta())):  # type: ignore[misc]
        """Does something in Python that no tokenizer.json tells."""

        def __call__(self, text: Any, **settings: Any) -> Any:
            one = isinstance(text, str)
            return super().__call__(text.upper() if one else [t.upper() for t in text], **settings)

    tokenizer = kinds.roberta()
    shouting = Shouting(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    with pytest.raises(CheckpointError, match=r"more than its tokenizer.json says.*\d+ of \d+ texts differ, first 'a'"):
        token_facts_of_transformers(shouting, length=16, name="tiny")


def test_special_tokens_that_are_split_are_found() -> None:
    """`split_special_tokens` is a setting of the running library, which its file does not keep."""
    tokenizer = kinds.roberta()
    split = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer, split_special_tokens=True, **tokenizer.special_tokens_map
    )
    with pytest.raises(CheckpointError, match=r"more than its tokenizer.json says"):
        token_facts_of_transformers(split, length=16, name="tiny")
    tokenizer.backend_tokenizer.encode_special_tokens = False


def bare_backend() -> Any:
    """Pieces alone: nothing is put around them."""
    from tokenizers import Tokenizer as Backend

    content = json.loads(kinds.roberta().backend_tokenizer.to_str())
    return Backend.from_str(json.dumps({**content, "post_processor": None, "padding": None, "truncation": None}))


def test_no_padding_token() -> None:
    tokenizer = type(kinds.roberta())(tokenizer_object=bare_backend())
    with pytest.raises(CheckpointError, match="no padding token") as caught:
        token_facts_of_transformers(tokenizer, length=16, name="tiny")
    assert "tokenizer_config.json" in str(caught.value.fix)


def test_no_end_token() -> None:
    bare = type(kinds.roberta())(tokenizer_object=bare_backend(), pad_token="<pad>")
    with pytest.raises(CheckpointError, match="no end token behind a text"):
        token_facts_of_transformers(bare, length=16, name="tiny")


def test_slow_tokenizers_are_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(CheckpointError, match=r"slow one \(ByT5Tokenizer\)"):
        token_facts_of_transformers(ByT5Tokenizer(), length=16, name="tiny")


def test_unpaired_surrogates_are_no_text(tokenizer: Any, tmp_path: Path) -> None:
    """The library refuses them as well."""
    with pytest.raises((TypeError, UnicodeEncodeError)):
        tokenizer(["a \ud800 b"])
    ours = written(token_facts_of_transformers(tokenizer, length=16, name="tiny"), tmp_path)
    for ask in (lambda: ours(["fine", "a \ud800 b"]), lambda: ours.count("\udfff")):
        with pytest.raises(TextError, match="unpaired surrogate"):
            ask()


def test_loading_a_folder_and_its_file(tmp_path: Path) -> None:
    kinds.bert().save_pretrained(tmp_path)
    texts = encodable_texts(200, seed=2)
    expected = reference(kinds.bert(), texts, 20)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = load_tokenizer(place, name="tiny")
        facts = token_facts_of_transformers(tokenizer, length=20, name="tiny")
        (tmp_path / "out").mkdir(exist_ok=True)
        assert_same(written(facts, tmp_path / "out")(texts), expected, texts)


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tokenizer at"):
        load_tokenizer(tmp_path / "none", name="tiny")
    (tmp_path / "vocab.txt").write_text("a", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is no tokenizer\.json"):
        load_tokenizer(tmp_path / "vocab.txt", name="tiny")
    with pytest.raises(
        CheckpointError, match=r"no tokenizer_config\.json, so nothing states what texts are padded with"
    ):
        load_tokenizer(tmp_path, name="tiny")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizerFast"', encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        load_tokenizer(tmp_path, name="tiny")


def test_files_of_others_need_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipdeploy.errors import MissingExtraError

    facts = token_facts_of_transformers(kinds.bert(), length=16, name="tiny")
    (tmp_path / "tokenizer.json").write_text(facts.to_json(), encoding="utf-8")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"clipdeploy\[tokenizers\]"):
        Tokenizer(tmp_path / "tokenizer.json", facts.spec(vocab_size=900, pooling="cls"))
