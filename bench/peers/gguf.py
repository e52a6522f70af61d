"""A CLIP checkpoint as clip.cpp reads it: GGUF, version 2, as its own converter names and types things.

Keys and names: https://github.com/monatis/clip.cpp (models/convert_hf_to_gguf.py); the layout of the file:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC, _VERSION, _ALIGNED = b"GGUF", 2, 32
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_TYPE = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}
_RENAMED = (
    *(("text_model", "t"), ("vision_model", "v"), ("encoder.layers", "blk"), ("embeddings.", ""), ("_proj", "")),
    *(("self_attn.", "attn_"), ("layer_norm", "ln"), ("layernorm", "ln"), ("mlp.fc1", "ffn_down")),
    *(("mlp.fc2", "ffn_up"), ("embedding", "embd"), ("final", "post"), ("layrnorm", "ln")),
)


def write_gguf(
    path: Path,
    tensors: Mapping[str, NDArray[np.float32]],
    tokens: Sequence[str],
    config: Mapping[str, Any],
    *,
    half: bool,
) -> None:
    """Write a checkpoint of transformers for clip.cpp.

    Args:
        path: the file.
        tensors: by the names of transformers.
        tokens: the vocabulary, by id.
        config: of transformers: `text_config`, `vision_config`, `projection_dim`.
        half: weights of matrices in float16; those of the convolution always are.
    """
    named = {_name(name): _typed(name, value, half) for name, value in tensors.items() if name != "logit_scale"}
    fields = _fields(config, tokens, half)
    with path.open("wb") as file:
        file.write(_MAGIC + struct.pack("<IQQ", _VERSION, len(named), len(fields)))
        for key, value in fields:
            file.write(_string(key) + value)
        offset = 0
        for name, array in named.items():
            shape = array.shape[::-1]
            file.write(_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", _TYPE[array.dtype], offset))
            offset += _padded(array.nbytes)
        file.write(bytes(_padded(file.tell()) - file.tell()))
        for array in named.values():
            file.write(array.tobytes() + bytes(_padded(array.nbytes) - array.nbytes))


def _fields(config: Mapping[str, Any], tokens: Sequence[str], half: bool) -> list[tuple[str, bytes]]:
    text, vision = config["text_config"], config["vision_config"]
    return [
        ("general.architecture", _text("clip")),
        ("clip.has_text_encoder", _bool(True)),
        ("clip.has_vision_encoder", _bool(True)),
        ("general.file_type", _u32(int(half))),
        ("general.name", _text("clip")),
        ("general.description", _text("two-tower CLIP model")),
        ("clip.text.context_length", _u32(text["max_position_embeddings"])),
        *_tower("clip.text", text, config["projection_dim"]),
        ("tokenizer.ggml.tokens", _strings(tokens)),
        ("clip.vision.image_size", _u32(vision["image_size"])),
        ("clip.vision.patch_size", _u32(vision["patch_size"])),
        *_tower("clip.vision", vision, config["projection_dim"]),
        ("clip.vision.image_mean", _floats(config["image_mean"])),
        ("clip.vision.image_std", _floats(config["image_std"])),
        ("clip.use_gelu", _bool(vision["hidden_act"] == "gelu")),
    ]


def _tower(prefix: str, sizes: Mapping[str, Any], projection: int) -> list[tuple[str, bytes]]:
    return [
        (f"{prefix}.embedding_length", _u32(sizes["hidden_size"])),
        (f"{prefix}.feed_forward_length", _u32(sizes["intermediate_size"])),
        (f"{prefix}.projection_dim", _u32(projection)),
        (f"{prefix}.attention.head_count", _u32(sizes["num_attention_heads"])),
        (f"{prefix}.attention.layer_norm_epsilon", struct.pack("<If", _F32, sizes["layer_norm_eps"])),
        (f"{prefix}.block_count", _u32(sizes["num_hidden_layers"])),
    ]


def _name(name: str) -> str:
    if "projection" in name:
        return name
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


def _typed(name: str, value: NDArray[np.float32], half: bool) -> NDArray[Any]:
    value = np.ascontiguousarray(np.squeeze(value))
    in_half = value.ndim == 4 or (half and value.ndim == 2 and name.endswith(".weight"))
    return value.astype(np.float16 if in_half else np.float32)


def _padded(count: int) -> int:
    return -(-count // _ALIGNED) * _ALIGNED


def _string(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _text(text: str) -> bytes:
    return struct.pack("<I", _STRING) + _string(text)


def _u32(value: int) -> bytes:
    return struct.pack("<II", _U32, value)


def _bool(value: bool) -> bytes:
    return struct.pack("<I?", _BOOL, value)


def _floats(values: Sequence[float]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}f", _ARRAY, _F32, len(values), *values)


def _strings(values: Sequence[str]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_string, values))
