"""transformers' SigLIP tokenizer (SentencePiece behind Python's rules), read by the runtime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="writing tokenizers needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("sentencepiece", reason="SigLIP's reference tokenizer needs it: pip install sentencepiece protobuf")
pytest.importorskip("google.protobuf", reason="SigLIP's reference tokenizer needs it: pip install protobuf")

from tokenizers import Tokenizer as Backend

from clipdeploy.errors import BundleCorruptError, CheckpointError, TextError
from clipdeploy.export.tokens.transformers import load_tokenizer, token_facts_of_transformers
from clipdeploy.runtime.siglip import SiglipText
from tests.export.tokens import kinds
from tests.export.tokens.kinds import assert_same, reference, written
from tests.texts import encodable_texts

pytestmark = pytest.mark.filterwarnings("ignore:This sequence already has:UserWarning")  # texts that spell </s>

MODELS: dict[str, dict[str, Any]] = {
    "as published": {},
    "special tokens keep spaces": {"strip": False},
    "nothing mapped": {"normalization_rule_name": "identity"},
    "case folded, spaces kept": {"normalization_rule_name": "nmt_nfkc_cf", "remove_extra_whitespaces": False},
    "no space in front": {"add_dummy_prefix": False},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kinds.siglip(tmp_path_factory.mktemp("siglip"))


@pytest.mark.parametrize("kind", MODELS)
def test_nasty_texts(kind: str, tmp_path: Path) -> None:
    tokenizer = kinds.siglip(tmp_path, **MODELS[kind])
    facts = token_facts_of_transformers(tokenizer, length=64, name="siglip")
    ours = written(facts, tmp_path)
    assert isinstance(ours._ids, SiglipText)
    texts = encodable_texts(3000 if kind == "as published" else 700, seed=51)
    assert_same(ours(texts), reference(tokenizer, texts, 64), texts)
    assert [ours.count(text) for text in texts[::9]] == [len(ids) for ids in tokenizer(texts[::9]).input_ids]


def test_facts(published: Any) -> None:
    facts = token_facts_of_transformers(published, length=64, name="siglip")
    assert (facts.start_id, facts.end_id, facts.pad_id, facts.cleaning) == (None, 1, 1, "none")
    assert facts.vocab_size == len(published)


@pytest.mark.parametrize("length", [3, 8])
def test_other_lengths(published: Any, length: int, tmp_path: Path) -> None:
    facts = token_facts_of_transformers(published, length=length, name="siglip")
    texts = [*encodable_texts(300, seed=3), *("word " * n for n in range(length + 2)), "a </s>", "a b </s> c </s>"]
    assert_same(written(facts, tmp_path)(texts), reference(published, texts, length), texts)


def test_case_is_kept_where_the_tokenizer_keeps_it(tmp_path: Path) -> None:
    tokenizer = kinds.siglip(tmp_path)
    tokenizer.do_lower_case = False
    facts = token_facts_of_transformers(tokenizer, length=64, name="siglip")
    texts = ["A Photo OF a cat", "ETAOIN etaoin", *encodable_texts(200, seed=6)]
    ours = written(facts, tmp_path)
    assert_same(ours(texts), reference(tokenizer, texts, 64), texts)
    assert (ours(["ETAOIN"]) != ours(["etaoin"])).any()


def test_equal_scores_are_decided_as_sentencepiece_does(published: Any, tmp_path: Path) -> None:
    """Runs of one letter have segmentations of the same pieces in another order: rounding decides between them."""
    texts = [f"{'x ' * n}{letter * m}" for letter in "aeοσsтаสו" for n in (0, 1, 7) for m in range(2, 40)]
    ours = written(token_facts_of_transformers(published, length=64, name="siglip"), tmp_path)
    assert_same(ours(texts), reference(published, texts, 64), texts)


def test_a_folder_from_disk(published: Any, tmp_path: Path) -> None:
    published.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, name="siglip")
    assert type(tokenizer) is type(published)
    texts = encodable_texts(200, seed=6)
    (tmp_path / "out").mkdir()
    ours = written(token_facts_of_transformers(tokenizer, length=64, name="siglip"), tmp_path / "out")
    assert_same(ours(texts), reference(published, texts, 64), texts)


def test_the_file_serves_the_library_for_ordinary_texts(published: Any) -> None:
    library = Backend.from_str(token_facts_of_transformers(published, length=64, name="siglip").to_json())
    words = [word for text in kinds.corpus()[:300] for word in text.split() if word.isascii()]
    texts = ["", "a photo of a cat.", "x </s>", *(" ".join(words[i : i + 9]) for i in range(0, len(words), 9))]
    assert len(texts) > 20
    rows = np.array([encoded.ids for encoded in library.encode_batch(texts)])
    assert_same(rows, reference(published, texts, 64), texts)


def spoil(kind: str, content: dict[str, Any]) -> None:
    rules = content["normalizer"]["clipdeploy"]
    if kind == "score":
        max((piece for piece in content["model"]["vocab"] if len(piece[0]) == 2), key=lambda piece: piece[1])[1] -= 5
    elif kind == "special":
        content["added_tokens"].pop(0)
    else:
        rules.update({"case": {"lower": False}, "map": {"characters": ""}, "control": {"control": []}}[kind])


@pytest.mark.parametrize("kind", ["score", "case", "map", "control", "special"])
def test_one_change_shows(kind: str, published: Any, tmp_path: Path) -> None:
    facts = token_facts_of_transformers(published, length=64, name="siglip")
    content = json.loads(facts.to_json())
    spoil(kind, content)
    texts = encodable_texts(800, seed=51)
    with pytest.raises(AssertionError):
        assert_same(written(facts, tmp_path, content)(texts), reference(published, texts, 64), texts)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"model_type": "bpe"}, "a model of type 2, not unigram"),
        ({"byte_fallback": True, "vocab_size": 1300}, r"pieces of types \[6\]"),
        ({"user_defined_symbols": ["<extra>"]}, r"pieces of types \[4\]"),
        ({"treat_whitespace_as_suffix": True}, "spaces behind words"),
        ({"split_by_whitespace": False}, "pieces across spaces"),
    ],
)
def test_models_that_are_not_known(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=why) as caught:
        token_facts_of_transformers(kinds.siglip(tmp_path, **settings), length=64, name="siglip")
    assert "spiece.model" in str(caught.value.fix)


def test_the_other_side_is_refused(tmp_path: Path) -> None:
    tokenizer = kinds.siglip(tmp_path)
    tokenizer.padding_side = "left"
    with pytest.raises(CheckpointError, match="padding or truncation on the left"):
        token_facts_of_transformers(tokenizer, length=64, name="siglip")


def test_rules_of_a_subclass_are_found(tmp_path: Path) -> None:
    from transformers import SiglipTokenizer

    class Odd(SiglipTokenizer):  # type: ignore[misc]
        def canonicalize_text(self, text: str, **settings: Any) -> str:
            return super().canonicalize_text(text, **settings).replace("photo", "picture")

    Odd.__name__ = "SiglipTokenizer"
    kinds.siglip(tmp_path)
    with pytest.raises(CheckpointError, match=r"more than its tokenizer.json says"):
        token_facts_of_transformers(Odd(str(tmp_path / "spiece.model")), length=64, name="siglip")


def test_a_damaged_file(published: Any, tmp_path: Path) -> None:
    facts = token_facts_of_transformers(published, length=64, name="siglip")
    for change in (
        {"characters": "AAA"},
        {"characters": "//8AAAA="},
        {"end": "none"},
        {"unknown": None, "prefix": None},
    ):
        content = json.loads(facts.to_json())
        content["normalizer"]["clipdeploy"].update(change)
        if None in change.values():
            del content["normalizer"]["clipdeploy"]["unknown"]
        with pytest.raises(BundleCorruptError, match="cannot be read"):
            written(facts, tmp_path, content)


def test_unpaired_surrogates_are_no_text(published: Any, tmp_path: Path) -> None:
    ours = written(token_facts_of_transformers(published, length=64, name="siglip"), tmp_path)
    with pytest.raises(TextError, match="unpaired surrogate"):
        ours(["a \ud800 b"])


def test_neither_torch_nor_transformers_nor_tokenizers(published: Any, tmp_path: Path) -> None:
    written(token_facts_of_transformers(published, length=64, name="siglip"), tmp_path)
    absent = ("torch", "transformers", "tokenizers", "open_clip", "sentencepiece", "google.protobuf")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}));"
        "from pathlib import Path; from clipdeploy.runtime.tokenizer import Tokenizer; "
        "from clipdeploy.spec import TokenSpec; "
        f"t = Tokenizer(Path({str(tmp_path / 'tokenizer.json')!r}), TokenSpec(64, 1000, None, 1, 1, 'none', 'last')); "
        "print(t(['Η Γάτα, ΟΔΟΣ &amp; e\\u0301'])[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == reference(published, ["Η Γάτα, ΟΔΟΣ &amp; e\u0301"], 64)[0].tolist()
