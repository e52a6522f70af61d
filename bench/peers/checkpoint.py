"""One checkpoint of seeded random weights, in the format of each peer; made once and kept.

The architecture is OpenAI's own (QuickGELU), since some peers know no other. Biases and norms get noise, so that they
are no zeros and ones, as in a trained model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import checkpoint_of
from bench.peers.catalogue import Form

MODEL = "ViT-B-32-quickgelu"
SAVED = "checkpoint.pt"
IN_A_CACHE = "sentence-transformers__clip-ViT-B-32"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_form(form: Form, folder: Path) -> Path:
    """`folder/form`, written when it is not there: what a host is given as its checkpoint."""
    place = folder / form
    if place.exists():
        return place
    print(f"writing the checkpoint for {form}", flush=True)
    part = folder / f"{form}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _WRITERS[form](part, folder)
    part.rename(place)
    return place


def _open_clip(part: Path, folder: Path) -> None:
    import torch

    from bench.graphs import add_noise
    from clipdeploy.export.load import load_checkpoint

    model: Any = load_checkpoint(checkpoint_of(MODEL)).model
    add_noise(model)
    torch.save(model.state_dict(), part / SAVED)


def _state(folder: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(write_form("open_clip", folder) / SAVED, weights_only=True))


def _openai(part: Path, folder: Path) -> None:
    """A state dict with the three sizes that OpenAI's own files carry."""
    import torch

    state = _state(folder)
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": len(state["token_embedding.weight"])}
    torch.save({**state, **{name: torch.tensor(value) for name, value in sizes.items()}}, part / SAVED)


def _sentence_transformers(part: Path, folder: Path) -> None:
    """As published: the model in a folder of its own, all under the name by which faster-clip keeps it."""
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    _write_transformers(part / IN_A_CACHE / "0_CLIPModel", folder)
    _json(part / IN_A_CACHE / "modules.json", [module])


def _hub(part: Path, folder: Path) -> None:
    """The hub's own cache, as a download of `openai/clip-vit-base-patch32` leaves it."""
    repository, revision = part / "hub" / "models--openai--clip-vit-base-patch32", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    shutil.copytree(write_form("transformers", folder), repository / "snapshots" / revision)


def _write_transformers(place: Path, folder: Path) -> None:
    """Weights, configuration, tokenizer and picture processor, as OpenAI's are published for transformers."""
    from safetensors.torch import save_file

    place.mkdir(parents=True, exist_ok=True)
    save_file(transformers_state(_state(folder)), place / "model.safetensors", metadata={"format": "pt"})
    _json(place / "config.json", transformers_config())
    _json(place / "preprocessor_config.json", _PICTURES)
    write_tokenizer(place)


def transformers_config() -> dict[str, Any]:
    """As `openai/clip-vit-base-patch32` states it."""
    common = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0, "num_hidden_layers": 12}
    text = {
        **common,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "projection_dim": 512,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "model_type": "clip_text_model",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
    vision = {
        **common,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "projection_dim": 512,
        "image_size": 224,
        "patch_size": 32,
        "num_channels": 3,
        "model_type": "clip_vision_model",
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 512,
        "torch_dtype": "float32",
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": vision,
    }


_PICTURES: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "feature_extractor_type": "CLIPFeatureExtractor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_normalize": True,
    "image_mean": list(_MEAN),
    "image_std": list(_STD),
    "do_convert_rgb": True,
}


def transformers_state(state: dict[str, Any]) -> dict[str, Any]:
    """open_clip's state dict under the names of transformers' `CLIPModel`."""
    named = {"logit_scale": state["logit_scale"]}
    named["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    named["text_projection.weight"] = state["text_projection"].T.contiguous()
    for name, value in state.items():
        tower, rest = ("vision_model", name[7:]) if name.startswith("visual.") else ("text_model", name)
        if rest in _TOP:
            named[f"{tower}.{_TOP[rest]}"] = value
        elif rest.startswith("ln_"):
            kind, leaf = rest.split(".")
            named[f"{tower}.{_NORMS[kind]}.{leaf}"] = value
        elif rest.startswith("transformer.resblocks."):
            _block(named, f"{tower}.encoder.layers", rest.removeprefix("transformer.resblocks."), value)
    return {name: value.contiguous() for name, value in named.items()}


_TOP = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
}
_NORMS = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm", "ln_final": "final_layer_norm"}
_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _block(named: dict[str, Any], layers: str, rest: str, value: Any) -> None:
    """One tensor of one block; the joined weights of attention are three in transformers."""
    number, name = rest.split(".", 1)
    if name.startswith("attn.in_proj_"):
        leaf = name.removeprefix("attn.in_proj_")
        for part, third in zip("qkv", value.chunk(3), strict=True):
            named[f"{layers}.{number}.self_attn.{part}_proj.{leaf}"] = third.clone()
        return
    layer, leaf = name.rsplit(".", 1)
    named[f"{layers}.{number}.{_LAYERS[layer]}.{leaf}"] = value


def vocabulary() -> tuple[list[str], list[str]]:
    """CLIP's tokens by id, and its merges in order, as transformers spells them."""
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer()
    tokens = sorted(own.encoder, key=own.encoder.__getitem__)
    tokens[-2:] = ["<|startoftext|>", "<|endoftext|>"]
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    return tokens, [" ".join(pair) for pair in merges]


def write_tokenizer(place: Path) -> None:
    """The files that transformers, tokenizers and candle read."""
    from transformers import CLIPTokenizerFast

    tokens, merges = vocabulary()
    _json(place / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (place / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        CLIPTokenizerFast.from_pretrained(place).save_pretrained(scratch)
        shutil.copy(Path(scratch) / "tokenizer.json", place)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    _json(place / "special_tokens_map.json", special)
    _json(place / "tokenizer_config.json", {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})


def _onnx(part: Path, folder: Path) -> None:
    from bench.peers.graphs import write_graphs

    write_graphs(part, write_form("open_clip", folder) / SAVED, write_form("transformers", folder))


def _gguf(part: Path, folder: Path) -> None:
    from bench.peers.gguf import write_gguf

    tensors = {name: value.numpy() for name, value in transformers_state(_state(folder)).items()}
    config = {**transformers_config(), "image_mean": _MEAN, "image_std": _STD}
    for name, half in (("f32", False), ("f16", True)):
        write_gguf(part / f"{name}.gguf", tensors, vocabulary()[0], config, half=half)


def _bundle(part: Path, folder: Path) -> None:
    """As a user makes it: exported, then quantised for each engine with pictures, here drawn ones."""
    from bench.typed_bundle import INT8_CPU, INT8_QDQ, PICTURES, draw
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.quantize import QuantizeRequest, quantize_bundle
    from clipdeploy.request import CheckpointRequest

    weights = str(write_form("open_clip", folder) / SAVED)
    export_bundle(ExportRequest(CheckpointRequest(MODEL, pretrained=weights), output=part, overwrite=True))
    budget: dict[str, Any] = {
        "cosine_mean": 0.0,
        "cosine_min": 0.0,
        "top1": 0.0,
    }  # of random weights: see bench.typed_bundle
    with tempfile.TemporaryDirectory() as scratch:
        pictures = (str(draw(Path(scratch))),)
        for precision, target in (INT8_CPU, INT8_QDQ):
            asked = QuantizeRequest(part, precision.value, pictures, samples=PICTURES, target=target, **budget)
            quantize_bundle(asked)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_WRITERS: dict[Form, Callable[[Path, Path], None]] = {
    "open_clip": _open_clip,
    "openai": _openai,
    "transformers": _write_transformers,
    "sentence-transformers": _sentence_transformers,
    "hub": _hub,
    "onnx": _onnx,
    "gguf": _gguf,
    "bundle": _bundle,
}
