"""Genuine checkpoints of every family at full size, with seeded random weights, written by the library that owns them.

Published weights are not needed to measure an export: nodes, memory and exactness depend on the architecture alone.
Where a checkpoint's tokenizer lies on the hub, a small one of the same kind, trained on the spot, stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROBERTA = {"model_type": "roberta", "vocab_size": 50265}
XLM_ROBERTA = {"model_type": "xlm-roberta", "vocab_size": 250002}
TINY_CLIP = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 10, "width": 256, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 3},
}
"""The sizes of TinyCLIP-ViT-8M-16-Text-3M."""


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        name: of the row, and what `--only` takes.
        family: for people.
        library: that wrote the checkpoint.
        write: makes the checkpoint's folder.
        tokenizer: of CLIP itself, or a small stand-in of the kind named.
    """

    name: str
    family: str
    write: Callable[[Path], None]
    library: str = "open_clip"
    tokenizer: str = "CLIP"


def _open_clip(name: str, family: str, tokenizer: str = "CLIP", **more: Any) -> Family:
    return Family(
        name, family, lambda folder: write_open_clip(folder, name, tokenizer=tokenizer, **more), "open_clip", tokenizer
    )


def _transformers(kind: str, family: str, tokenizer: str) -> Family:
    return Family(f"{kind}Model", family, lambda folder: write_transformers(folder, kind), "transformers", tokenizer)


FAMILIES = (
    _open_clip("ViT-B-32", "ViT"),
    _open_clip("ViT-B-16", "ViT"),
    _open_clip("ViT-L-14", "ViT"),
    _open_clip("ViT-L-14-336", "ViT"),
    _open_clip("ViT-H-14", "ViT"),
    _open_clip("TinyCLIP-ViT-8M-16", "TinyCLIP", config=TINY_CLIP),
    _open_clip("RN50", "ModifiedResNet"),
    _open_clip("RN50x4", "ModifiedResNet"),
    _open_clip("convnext_base", "ConvNeXt"),
    _open_clip("EVA02-B-16", "EVA02"),
    _open_clip("PE-Core-T-16-384", "Perception Encoder"),
    _open_clip("ViT-B-16-SigLIP", "SigLIP", "siglip"),
    _open_clip("ViT-B-16-SigLIP2", "SigLIP2", "siglip2"),
    _open_clip("MobileCLIP-S1", "MobileCLIP"),
    _open_clip("MobileCLIP2-S0", "MobileCLIP2"),
    _open_clip("coca_ViT-B-32", "CoCa"),
    _open_clip("roberta-ViT-B-32", "RoBERTa text", "altclip", text=ROBERTA),
    _open_clip("xlm-roberta-base-ViT-B-32", "XLM-R text", "altclip", text=XLM_ROBERTA),
    _transformers("CLIP", "CLIP of transformers", "CLIP"),
    _transformers("Siglip", "SigLIP of transformers", "siglip"),
    _transformers("ChineseCLIP", "Chinese-CLIP", "chinese_clip"),
)


def write_open_clip(
    folder: Path,
    name: str,
    *,
    tokenizer: str = "CLIP",
    config: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
) -> None:
    """A checkpoint folder of open_clip.

    Args:
        folder: to write into.
        name: of the architecture.
        tokenizer: `CLIP`, or a family of `tests.hf_checkpoints` whose tokenizer goes into the folder.
        config: `model_cfg` of an architecture that open_clip does not know by name.
        text: configuration of a text encoder of transformers, in the sizes of its base model.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    from bench.graphs import add_noise
    from clipdeploy.export.openclip import preprocessing

    model_cfg = config or open_clip.get_model_config(name)
    if tokenizer != "CLIP":
        _small_tokenizer(folder, tokenizer)
        model_cfg["text_cfg"].setdefault("hf_tokenizer_name", name)
    if text is not None:
        sizes = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
        (folder / "text").mkdir()
        (folder / "text" / "config.json").write_text(json.dumps({**text, **sizes}), encoding="utf-8")
        model_cfg["text_cfg"]["hf_model_name"] = str((folder / "text").resolve())
    preprocess = preprocessing.of_architecture(name) or preprocessing.family("openai")
    content = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    add_noise(model)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )


def write_transformers(folder: Path, kind: str) -> None:
    """A checkpoint folder of transformers, in the sizes that its configuration has of itself.

    Args:
        folder: to write into.
        kind: `CLIP`, `Siglip`, `ChineseCLIP`.
    """
    import torch
    import transformers

    from tests import hf_checkpoints

    family = {"CLIP": "clip", "Siglip": "siglip", "ChineseCLIP": "chinese_clip"}[kind]
    tokenizer = hf_checkpoints.write_tokenizer(folder, family)
    sides = {"height": 224, "width": 224}
    crop = {"size": sides} if family == "siglip" else {"size": {"shortest_edge": 224}, "crop_size": sides}
    hf_checkpoints.write_pictures(folder, family, **crop)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = getattr(transformers, f"{kind}Config")(text_config=ids)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    hf_checkpoints.randomise(model)
    model.save_pretrained(folder)


def _small_tokenizer(folder: Path, family: str) -> None:
    from tests import hf_checkpoints

    if family != "siglip":
        hf_checkpoints.write_tokenizer(folder, family)
        return
    # open_clip's SigLIPs bring the tokenizer of T5, in Rust, where transformers' own is written in Python.
    import sentencepiece
    import transformers

    small = sentencepiece.SentencePieceProcessor(model_proto=hf_checkpoints.sentencepiece_model())
    pieces = [(small.id_to_piece(i), small.get_score(i)) for i in range(small.get_piece_size())]
    transformers.T5Tokenizer(pieces, extra_ids=0, pad_token="</s>").save_pretrained(folder)


def weight_file_bytes(folder: Path) -> int:
    """Size of the weights, which are float32."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
