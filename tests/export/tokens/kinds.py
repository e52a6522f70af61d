"""Tiny genuine tokenizers of every kind, trained on the spot; import this inside tests that asked for the extra."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerFast, Siglip2Tokenizer

from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.runtime.tokenizer import Tokenizer

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@cache
def corpus(count: int = 1500) -> list[str]:
    """Texts of made-up words of a few scripts, so that a small vocabulary has something to learn."""
    draw = random.Random(3)
    letters = [
        "etaoinshrdlu",
        "ETAOIN",
        "абвгдежз",
        "αβγδεσς",
        "ابتثجحخ",
        "สวัดีชโลกภพถนำ",
        "日本語한국",
        "éüñçßøåİ",
        "0123456789",
        "!?.,'",
    ]
    syllables = ["".join(draw.choices(pool, k=draw.randint(1, 4))) for pool in letters for _ in range(40)]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(600)]
    return [" ".join(draw.choices(words, k=draw.randint(2, 12))) for _ in range(count)]


@cache
def clip(**changes: Any) -> Any:
    """transformers' CLIP tokenizer with CLIP's real vocabulary, as OpenAI's checkpoints on the hub have it."""
    ours = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(piece, piece): id_ for piece, id_ in ours.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(ours.bpe_ranks), **changes)


@cache
def bert() -> Any:
    """A lower-casing WordPiece tokenizer, as Chinese-CLIP and CLIPA have it."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=900, special_tokens=names))
    return BertTokenizer(vocab=json.loads(backend.to_str())["model"]["vocab"])


@cache
def xlm_roberta() -> Any:
    """A unigram tokenizer between <s> and </s>, as XLM-R's."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=900, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(corpus(), trainer)
    pair = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pair)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, sep_token="</s>", **names)


@cache
def roberta() -> Any:
    """A byte-level BPE tokenizer, as RoBERTa's."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, sep_token="</s>", **names)


@cache
def gemma() -> Any:
    """SigLIP2's tokenizer: Gemma's BPE with bytes for what it does not know, lower case, <eos> behind."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=1200, special_tokens=names, show_progress=False)
    )
    model = json.loads(backend.to_str())["model"]
    tokenizer = Siglip2Tokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]], padding_side="right"
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def siglip(folder: Path, *, strip: bool = True, **settings: Any) -> Any:
    """transformers' SigLIP tokenizer over a SentencePiece model; `settings` are the trainer's."""
    import sentencepiece
    from transformers import AddedToken, SiglipTokenizer

    chosen = {"vocab_size": 1000, "model_type": "unigram", "character_coverage": 0.9995, "hard_vocab_limit": False}
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_prefix=str(folder / "spiece"),
        minloglevel=2,
        **{**chosen, **ids, **settings},
    )
    tokens = {}
    if strip:  # as the tokenizer_config.json of the published checkpoints says
        tokens = {
            id_: AddedToken(content, lstrip=True, rstrip=True, normalized=False, special=True)
            for id_, content in ((1, "</s>"), (2, "<unk>"))
        }
    return SiglipTokenizer(str(folder / "spiece.model"), **({"added_tokens_decoder": tokens} if tokens else {}))


def reference(tokenizer: Any, texts: list[str], length: int) -> npt.NDArray[np.int64]:
    """The ids that a processor of transformers asks for."""
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    return np.array(rows["input_ids"], dtype=np.int64)


def written(facts: TokenFacts, folder: Path, content: dict[str, Any] | None = None) -> Tokenizer:
    """The runtime's tokenizer of the file; `content` in place of the file's own."""
    path = folder / "tokenizer.json"
    path.write_text(facts.to_json() if content is None else json.dumps(content), encoding="utf-8")
    return Tokenizer(path, facts.spec(vocab_size=facts.vocab_size, pooling="other"))


def assert_same(found: npt.NDArray[np.int64], expected: npt.NDArray[np.int64], texts: list[str]) -> None:
    """Ids of all texts are equal; the first that differ are shown."""
    assert found.shape == expected.shape
    different = np.flatnonzero((found != expected).any(axis=1))
    assert not len(different), [(texts[i], expected[i].tolist(), found[i].tolist()) for i in different[:3]]
