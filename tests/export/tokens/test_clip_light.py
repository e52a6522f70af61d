"""transformers' CLIP tokenizer, read by the runtime alone, gives transformers' ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="writing tokenizers needs the extra: pip install 'clipdeploy[export]'")

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from clipdeploy.errors import BundleCorruptError
from clipdeploy.export.tokens.clip_light import light
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.export.tokens.fast import fast_json
from clipdeploy.export.tokens.transformers import token_facts_of_transformers
from clipdeploy.runtime.clip_words import ClipPieces
from clipdeploy.runtime.tokenizer import Tokenizer
from tests.export.tokens import kinds
from tests.export.tokens.kinds import assert_same, reference, written
from tests.texts import encodable_texts


@pytest.fixture(scope="module")
def facts() -> TokenFacts:
    return token_facts_of_transformers(kinds.clip(), length=77, name="clip")


@pytest.fixture(scope="module")
def ours(facts: TokenFacts, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return written(facts, tmp_path_factory.mktemp("clip"))


def test_nasty_texts(ours: Tokenizer) -> None:
    assert isinstance(ours._ids, ClipPieces)
    texts = encodable_texts(3500, seed=41)
    assert_same(ours(texts), reference(kinds.clip(), texts, 77), texts)
    assert [ours.count(text) for text in texts[::9]] == [len(ids) for ids in kinds.clip()(texts[::9]).input_ids]


def test_known_ids(ours: Tokenizer, facts: TokenFacts) -> None:
    """Padded with the end token, and neither entities nor broken encodings mended: that is transformers' way."""
    assert ours(["a photo of a cat."])[0, :9].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407, 49407]
    assert (facts.start_id, facts.end_id, facts.pad_id, facts.cleaning) == (49406, 49407, 49407, "none")
    assert ours.count("&amp;") == 2 + len(kinds.clip()("&amp;", add_special_tokens=False).input_ids) > 3


def test_every_character_between_letters(ours: Tokenizer) -> None:
    """Case, white space, letters and numbers of all planes, as the library's Unicode has them and not as Python's."""
    points = [p for p in range(0, 0x20000, 29) if not 0xD800 <= p < 0xE000] + list(range(0x250))
    lower = normalizers.Lowercase().normalize_str
    cased = [p for p in range(0x20000) if not 0xD800 <= p < 0xE000 and lower(chr(p)) != chr(p).lower()]
    texts = [f"A{chr(p)}b' {chr(p)}1'{chr(p)}" for p in [*points, *cased]]
    assert_same(ours(texts), reference(kinds.clip(), texts, 77), texts)


def test_every_mark_in_every_order(ours: Tokenizer) -> None:
    """Composition knows the marks that the library knows: later ones neither move nor are passed by."""
    import unicodedata

    points = [
        p for p in range(0x20000) if unicodedata.combining(chr(p)) or unicodedata.decomposition(chr(p))[:1].isalnum()
    ]
    texts = [f"e\u0315{c}\u0301\u0334 {c}\u0323\u0301 \u1100{c}\u1161\u11a8" for c in map(chr, points[::3])]
    assert_same(ours(texts), reference(kinds.clip(), texts, 77), texts)


def test_padding_of_other_checkpoints(tmp_path: Path) -> None:
    tokenizer = kinds.clip(pad_token="!")
    facts = token_facts_of_transformers(tokenizer, length=20, name="clip")
    assert facts.pad_id == 0
    texts = encodable_texts(200, seed=8)
    assert_same(written(facts, tmp_path)(texts), reference(tokenizer, texts, 20), texts)


def test_the_file_serves_the_library_alone(facts: TokenFacts) -> None:
    library = Backend.from_str(facts.to_json())
    texts = encodable_texts(600, seed=43)
    rows = np.array([encoded.ids for encoded in library.encode_batch(texts)])
    assert_same(rows, reference(kinds.clip(), texts, 77), texts)


def test_special_tokens_that_are_cleaned_first(tmp_path: Path) -> None:
    """Files of OpenAI's repositories have <|startoftext|> so: found in the cleaned text, whatever its case."""
    tokenizer = kinds.clip()
    content = fast_json(tokenizer, 77, name="clip")
    content["added_tokens"][0]["normalized"] = True
    content["added_tokens"].append({**content["added_tokens"][1], "id": 49408, "content": "<|cat|>"})
    content["model"]["vocab"] = {**content["model"]["vocab"]}
    library = Backend.from_str(json.dumps(content))
    marked = light(content)
    assert marked is not None
    facts = token_facts_of_transformers(tokenizer, length=77, name="clip")
    texts = [*encodable_texts(1500, seed=44), "a <|STARTOFTEXT|> b<|startoftext|>c <|cat|><|CAT|>"]
    rows = np.array([encoded.ids for encoded in library.encode_batch(texts)])
    assert 49408 in rows[-1] and rows[-1].tolist().count(49406) == 3
    assert_same(written(facts, tmp_path, marked)(texts), rows, texts)


def spoiled(kind: str, content: dict[str, Any]) -> None:
    rules = content["normalizer"]["clipdeploy"]
    if kind == "merge":
        del content["model"]["merges"][5]
    elif kind == "case":
        rules["lower"].pop("A")
    elif kind == "composition":
        rules["composing"] = rules["composing"].replace("\u0300-\u034e", "")
    elif kind == "parts":
        content["pre_tokenizer"]["pretokenizers"][1] = content["pre_tokenizer"]["pretokenizers"][0]
    elif kind == "special":
        content["added_tokens"][1]["normalized"] = True


@pytest.mark.parametrize("kind", ["merge", "case", "composition", "parts", "special"])
def test_one_change_shows(kind: str, facts: TokenFacts, tmp_path: Path) -> None:
    content = json.loads(facts.to_json())
    before = json.dumps(content)
    spoiled(kind, content)
    assert json.dumps(content) != before
    texts = encodable_texts(1200, seed=41)
    with pytest.raises(AssertionError):
        assert_same(written(facts, tmp_path, content)(texts), reference(kinds.clip(), texts, 77), texts)


def other(kind: str, content: dict[str, Any]) -> None:
    """One difference to CLIP's tokenizer."""
    model = content["model"]
    steps = content["pre_tokenizer"]["pretokenizers"]
    changes: dict[str, Any] = {
        "normalizer": lambda: content["normalizer"]["normalizers"].pop(),
        "no normalizer": lambda: content.update(normalizer=None),
        "pattern": lambda: steps[0]["pattern"].update(Regex=r"\w+"),
        "literal": lambda: steps[0]["pattern"].update(Regex="[abc]|" + steps[0]["pattern"]["Regex"]),
        "third split": lambda: steps.append({"type": "Whitespace"}),
        "prefix": lambda: steps[1].update(add_prefix_space=True),
        "suffix": lambda: model.update(end_of_word_suffix=None),
        "dropout": lambda: model.update(dropout=0.1),
        "byte": lambda: model["vocab"].pop("Ġ"),
        "left": lambda: content["padding"].update(direction="Left"),
        "processor": lambda: content.update(post_processor=None),
        "stripping": lambda: content["added_tokens"][0].update(lstrip=True),
        "upper": lambda: content["added_tokens"][0].update(normalized=True, content="<|START|>"),
    }
    changes[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("normalizer", "no normalizer", "pattern", "literal", "third split", "prefix", "suffix", "dropout", "byte"),
        *("left", "processor", "stripping", "upper"),
    ],
)
def test_what_is_not_clips_stays_with_the_library(kind: str) -> None:
    content = fast_json(kinds.clip(), 77, name="clip")
    assert light(content) is not None
    other(kind, content)
    assert light(content) is None


def test_tokenizers_that_are_nearly_clips(tmp_path: Path) -> None:
    """An own normaliser: the library path, and the same ids."""
    tokenizer = kinds.clip.__wrapped__()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    facts = token_facts_of_transformers(tokenizer, length=30, name="clip")
    ours = written(facts, tmp_path)
    assert not isinstance(ours._ids, ClipPieces)
    texts = encodable_texts(300, seed=9)
    assert_same(ours(texts), reference(tokenizer, texts, 30), texts)


def test_a_damaged_file(facts: TokenFacts, tmp_path: Path) -> None:
    for spoil in (
        lambda c: c["normalizer"]["clipdeploy"].pop("lower"),
        lambda c: c.update(pre_tokenizer={"pretokenizers": c["pre_tokenizer"]["pretokenizers"][:1]}),
        lambda c: c["normalizer"]["clipdeploy"].update(composing="z-a"),
        lambda c: c.update(post_processor={"type": "RobertaProcessing"}),
    ):
        content = json.loads(facts.to_json())
        spoil(content)
        with pytest.raises(BundleCorruptError, match="cannot be read"):
            written(facts, tmp_path, content)


def test_neither_torch_nor_transformers_nor_tokenizers(facts: TokenFacts, tmp_path: Path) -> None:
    written(facts, tmp_path)
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'tokenizers', 'open_clip', 'ftfy')));"
        "from pathlib import Path; from clipdeploy.runtime.tokenizer import Tokenizer; "
        "from clipdeploy.spec import TokenSpec; "
        f"t = Tokenizer(Path({str(tmp_path / 'tokenizer.json')!r}), "
        "TokenSpec(77, 49408, 49406, 49407, 49407, 'none', 'eot_first')); "
        "print(t(['A CAF\\u00c9 & cafe\\u0301'])[0, :8].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == reference(kinds.clip(), ["A CAFÉ & cafe\u0301"], 77)[0, :8].tolist()
