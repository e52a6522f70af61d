"""Tiny seeded checkpoints in the layout of Hugging Face transformers, each written by that library itself.

A folder holds what a published one does: `config.json`, weights, the tokenizer's files and the picture processor's.
Plain functions that need transformers; import this module inside tests that have asked for it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

IMAGE_SIZE, EMBED_DIM = 32, 24
FAMILIES = ("clip", "siglip", "siglip2", "chinese_clip", "altclip", "metaclip_2")
PICTURES: dict[str, dict[str, Any]] = {
    "clip": {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}},
    "siglip": {"size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}},
}
"""What the two kinds of picture processors are made with."""

_SENTENCES = [
    *("a photo of a cat", "a photo of two dogs on the grass", "the quick brown fox jumps over the lazy dog"),
    *("an aerial view of a city at night", "a bowl of fruit: apples, pears & 3 bananas!", "red square, blue circle"),
    *("a person riding a bicycle in the rain", "une photo d'un chat", "ein Foto von einem Hund", "una foto de un gato"),
    *(
        "фото кошки",
        "一张猫的照片",
        "两只狗在草地上",
        "写真の中の猫",
        string.ascii_letters,
        string.digits,
        string.punctuation,
    ),
]
_VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_PATCHES = {"image_size": IMAGE_SIZE, "patch_size": 8}


def write(
    folder: Path,
    family: str = "clip",
    *,
    model: nn.Module | None = None,
    seed: int = 0,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    pictures: Mapping[str, Any] | None = None,
    layout: Literal["old", "new"] = "old",
    **saving: Any,
) -> Path:
    """A checkpoint folder of one of FAMILIES.

    Args:
        folder: made when it is not there.
        family: `siglip2` is SigLIP 2 at a fixed resolution, published as a `SiglipModel` with Gemma's tokenizer.
        model: to be saved in place of a seeded one.
        seed: of the weights.
        text: changes to the text encoder's configuration.
        vision: changes to the image encoder's configuration.
        pictures: changes to the picture processor.
        layout: `old` writes preprocessor_config.json, as nearly all published ones have it; `new` what transformers 5
            writes, processor_config.json.
        saving: goes to `save_pretrained`, such as `max_shard_size`.
    """
    write_tokenizer(folder, family)
    write_pictures(folder, family, layout=layout, **(pictures or {}))
    model = model or make_model(family, seed, text=text, vision=vision)
    model.save_pretrained(folder, **saving)  # type: ignore[operator]
    return folder


def write_pair(image: Path, text: Path, *, seed: int = 0, **changes: Any) -> nn.Module:
    """A `CLIPVisionModelWithProjection` and a `CLIPTextModelWithProjection`, each in a folder; returns their CLIP."""
    whole: Any = make_model("clip", seed, **changes)
    for settings in (whole.config.vision_config, whole.config.text_config):
        settings.projection_dim = EMBED_DIM
    halves = {
        image: (transformers.CLIPVisionModelWithProjection(whole.config.vision_config), "vision_model", "visual"),
        text: (transformers.CLIPTextModelWithProjection(whole.config.text_config), "text_model", "text"),
    }
    for folder, (half, tower, projection) in halves.items():
        half.get_submodule(tower).load_state_dict(whole.get_submodule(tower).state_dict())
        half.get_submodule(f"{projection}_projection").load_state_dict(
            whole.get_submodule(f"{projection}_projection").state_dict()
        )
        half.save_pretrained(folder)
    write_pictures(image, "clip")
    write_tokenizer(text, "clip")
    return whole  # type: ignore[no-any-return]


def make_model(
    family: str = "clip",
    seed: int = 0,
    *,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The library's model of a family, every weight seeded and none at its neutral start."""
    tokenizer = make_tokenizer(family)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    words = {**_TEXT, "vocab_size": len(tokenizer), **ids, **_OF_FAMILY[family][1], **(text or {})}
    looks = {**_VISION, **_PATCHES, **_OF_FAMILY[family][2], **(vision or {})}
    kind = _OF_FAMILY[family][0]
    more = {} if family.startswith("siglip") else {"projection_dim": EMBED_DIM}
    config = getattr(transformers, f"{kind}Config")(text_config=words, vision_config=looks, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{kind}Model")(config).eval()
        return randomise(model)


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Take every parameter away from zeros and ones, and make the encoders answer distinct inputs distinctly."""
    for name, value in model.named_parameters():
        if name == "logit_scale":
            value.fill_(2.5)
        elif name == "logit_bias":
            value.fill_(-3.0)
        elif value.ndim == 1:
            value += 0.1 * torch.randn(value.shape)
        elif "embedding" in name:
            value.copy_(0.5 * torch.randn(value.shape))
        elif value.ndim == 2:
            value.copy_(torch.randn(value.shape) * value.shape[1] ** -0.5)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx] = 0.0  # as it stays in training
    return model


def write_pictures(folder: Path, family: str = "clip", *, layout: str = "old", **changes: Any) -> Path:
    """The picture processor's file, and of layout `new` the whole processor's."""
    kind = "siglip" if family.startswith("siglip") else "clip"
    maker = {"siglip": SiglipImageProcessorPil, "clip": CLIPImageProcessorPil}[kind]
    processor = maker(**{**PICTURES[kind], **changes})
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "new":
        both = {"siglip": transformers.SiglipProcessor, "clip": transformers.CLIPProcessor}[kind]
        both(processor, make_tokenizer(family)).save_pretrained(folder)
        return folder / "processor_config.json"
    processor.save_pretrained(folder)
    return folder / "preprocessor_config.json"


def write_tokenizer(folder: Path, family: str = "clip") -> Any:
    """The tokenizer's files; returns the tokenizer."""
    tokenizer = make_tokenizer(family)
    tokenizer.save_pretrained(folder)
    if family == "siglip":  # as the published files have it: special tokens take the spaces around them with them
        path = folder / "tokenizer_config.json"
        tokens = json.loads(path.read_text(encoding="utf-8"))["added_tokens_decoder"]
        edit(path, added_tokens_decoder={i: {**token, "lstrip": True, "rstrip": True} for i, token in tokens.items()})
    return tokenizer


def make_tokenizer(family: str = "clip") -> Any:
    """The library's tokenizer of a family: CLIP's real vocabulary, small trained ones of the others."""
    return _TOKENIZERS[family]()


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}, indent=2), encoding="utf-8")


def _clip_tokenizer() -> Any:
    original = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): id_ for token, id_ in original.encoder.items()}
    return transformers.CLIPTokenizer(vocabulary, list(original.bpe_ranks), model_max_length=77)


def _siglip_tokenizer() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spiece.model"
        path.write_bytes(sentencepiece_model())
        return transformers.SiglipTokenizer(str(path), model_max_length=64)


def _gemma_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    backend.train_from_iterator([s.lower() for s in _SENTENCES], trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    ends = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "model_max_length": 64}
    return transformers.GemmaTokenizer(model["vocab"], merges, **ends)


def _bert_tokenizer() -> Any:
    letters = sorted({letter for sentence in _SENTENCES for letter in sentence.lower() if not letter.isspace()})
    pieces = ["[PAD]", *(f"[unused{i}]" for i in range(1, 5)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for sentence in _SENTENCES for word in sentence.split() if word.isascii() and word.isalpha()})
    known = dict.fromkeys([*pieces, *letters, *(f"##{letter}" for letter in letters), *map(str.lower, words)])
    return transformers.BertTokenizer({piece: id_ for id_, piece in enumerate(known)}, model_max_length=52)


def _roberta_tokenizer() -> Any:
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as spm

    loaded = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    pieces = [(loaded.id_to_piece(i), loaded.get_score(i)) for i in range(3, loaded.get_piece_size())]
    proto = spm.ModelProto.FromString(sentencepiece_model())
    ends = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return transformers.XLMRobertaTokenizer(
        [*ends, *pieces, ("<mask>", 0.0)],
        _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap,
        model_max_length=77,
    )


@lru_cache(maxsize=1)
def sentencepiece_model() -> bytes:
    """A small Unigram model with SigLIP's special pieces: 0 is the padding, 1 the end, 2 the unknown."""
    import sentencepiece

    stream = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 4),
        model_writer=stream,
        vocab_size=260,
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    return stream.getvalue()


_CHINESE = {"max_position_embeddings": 64}
_ALT = {"max_position_embeddings": 80, "project_dim": 40}
# family: (the library's name, text encoder, image encoder)
_OF_FAMILY: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "clip": ("CLIP", {}, {}),
    "siglip": ("Siglip", {"hidden_size": 64}, {}),
    "siglip2": ("Siglip", {"hidden_size": 64}, {}),
    "chinese_clip": ("ChineseCLIP", _CHINESE, {}),
    "altclip": ("AltCLIP", _ALT, {}),
    "metaclip_2": ("MetaClip2", {}, {}),
}
_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "clip": _clip_tokenizer,
    "siglip": _siglip_tokenizer,
    "siglip2": _gemma_tokenizer,
    "chinese_clip": _bert_tokenizer,
    "altclip": _roberta_tokenizer,
    "metaclip_2": _roberta_tokenizer,
}
