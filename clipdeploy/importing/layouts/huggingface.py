"""The layout of Hugging Face, optimum and transformers.js.

    config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json
    onnx/vision_model.onnx  onnx/text_model.onnx       a tower each, also with a suffix: vision_model_fp16.onnx
    onnx/model.onnx                                    both towers and their logits in one graph

The graphs may lie beside the configuration, without the folder `onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.files import first_file, part, read_json
from clipdeploy.importing.pixels import of_transformers
from clipdeploy.importing.records import ImportRequest, Probability, Stated
from clipdeploy.spec import TextPooling

_VISION, _TEXT, _BOTH = "vision_model", "text_model", "model"
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# What the classes of transformers do: a causal text mask, a projection after the pooling, a mask over padding.
_CAUSAL = {"clip": True, "siglip": False, "siglip2": False, "chinese_clip": False}
_PROJECTS = {"clip": True, "chinese_clip": True, "siglip": False, "siglip2": False}
_POOLING: dict[str, TextPooling] = {"siglip": "last", "siglip2": "last", "chinese_clip": "cls"}


def fits(folder: Path) -> bool:
    """Whether there are graphs of these names."""
    graphs = _graphs(folder)
    return bool(graphs and (folder / "config.json").is_file()) or bool(
        _variants(graphs, _VISION) and _variants(graphs, _TEXT)
    )


def read(request: ImportRequest) -> Stated:
    """What the folder states."""
    folder = request.folder
    graphs = _graphs(folder)
    image, text = _choose(graphs, request)
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type", ""))
    vision, words = part(config, "vision_config"), part(config, "text_config")
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    return Stated(
        layout="huggingface",
        name=str(config.get("_name_or_path") or folder.resolve().name),
        image_graph=image,
        text_graph=text,
        scored=_scored(graphs),
        pixels=of_transformers(*_processor(folder)),
        tokenizer=first_file(folder, "tokenizer.json", "onnx/tokenizer.json"),
        tokenizer_config=tokenizer_config,
        context_length=words.get("max_position_embeddings") if kind in _CAUSAL and kind != "chinese_clip" else None,
        cleaning="none",
        pooling=_pooling(kind, words),
        causal=_CAUSAL.get(kind),
        masks_padding=_masks(kind, tokenizer_config),
        projects=_PROJECTS.get(kind),
        activation=_activation(vision, words),
        probability=_probability(kind),
        embed_dim=config.get("projection_dim") if _PROJECTS.get(kind) else None,
        image_family=str(vision.get("model_type") or kind or "unknown"),
        text_family=str(words.get("model_type") or kind or "unknown"),
        card=first_file(folder, "README.md"),
    )


def _graphs(folder: Path) -> Path | None:
    """Where the graphs lie: `onnx/`, or the folder itself."""
    for place in (folder / "onnx", folder):
        if any(_variants(place, stem) for stem in (_VISION, _BOTH)):
            return place
    return None


def _variants(graphs: Path | None, stem: str) -> dict[str, Path]:
    """The graphs of one stem by what follows it: `fp32` for nothing, `quantized`, `fp16`, ..."""
    found: dict[str, Path] = {}
    for path in sorted(graphs.glob(f"{stem}*.onnx")) if graphs else ():
        rest = path.stem[len(stem) :]
        if not rest or rest.startswith("_"):
            found[rest[1:] or "fp32"] = path
    return found


def _choose(graphs: Path | None, request: ImportRequest) -> tuple[Path, Path]:
    """The graphs of the two towers; one and the same where it holds both."""
    images, texts, both = (_variants(graphs, stem) for stem in (_VISION, _TEXT, _BOTH))
    apart = {name: (images[name], texts[name]) for name in images if name in texts}
    pairs = apart or {name: (path, path) for name, path in both.items()}
    wanted = request.variant or "fp32"
    if wanted not in pairs:
        have = ", ".join(pairs) or "none"
        raise CheckpointError(
            f"{graphs or request.folder} has no graphs of variant {wanted} for both towers; it has: {have}",
            fix="choose with " + " or ".join(f"--variant {name}" for name in pairs) if pairs else "copy both towers",
        )
    return pairs[wanted]


def _scored(graphs: Path | None) -> Path | None:
    return _variants(graphs, _BOTH).get("fp32")


def _processor(folder: Path) -> tuple[dict[str, Any], Path]:
    """The image processor's configuration and its file; transformers 5 keeps it inside processor_config.json."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return read_json(path), path
    path = folder / "processor_config.json"
    return part(read_json(path), "image_processor"), path


def _pooling(kind: str, words: dict[str, Any]) -> TextPooling | None:
    """transformers takes the largest id where a configuration has the end id 2, a mistake of old files."""
    if kind == "clip" and "eos_token_id" in words:
        return "eot_argmax" if words["eos_token_id"] == 2 else "eot_first"
    return _POOLING.get(kind)


def _masks(kind: str, tokenizer_config: dict[str, Any]) -> bool | None:
    """Whether the tokenizer hands a mask to the model; SigLIP's does not."""
    names = tokenizer_config.get("model_input_names")
    if isinstance(names, list):
        return "attention_mask" in names
    return False if kind in ("siglip", "siglip2") else None


def _activation(vision: dict[str, Any], words: dict[str, Any]) -> str | None:
    found = [_ACTIVATIONS.get(str(c["hidden_act"]), str(c["hidden_act"])) for c in (vision, words) if "hidden_act" in c]
    return "+".join(dict.fromkeys(found)) if len(found) == 2 else None


def _probability(kind: str) -> Probability | None:
    return ("sigmoid" if kind.startswith("siglip") else "softmax") if kind else None
