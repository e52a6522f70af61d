"""Folders as others write them: tiny genuine models, exported as optimum, Immich's exporter and CLIP-ONNX export them.

Plain functions that need the `export` extra; import this module inside tests that have asked for it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tests import checkpoints
from tests import hf_checkpoints as hf

OPSET = 17


class Call(nn.Module):
    """A module whose forward is a function of a model's."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, *args: torch.Tensor) -> Any:
        return self._call(self.model, *args)


def export(
    model: nn.Module,
    call: Callable[..., Any],
    args: tuple[torch.Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: bool = True,
    opset: int = OPSET,
) -> Path:
    """A graph by the exporter that nearly all published ones come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and warns of what it traces
        torch.onnx.export(
            Call(model, call).eval(),
            args,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            dynamic_axes=axes,
            dynamo=False,
        )
    return path


def huggingface(folder: Path, family: str = "clip", *, masked: bool = False, **changes: Any) -> Any:
    """A transformers.js folder, a graph a tower; returns the model.

    Args:
        masked: the text graph asks for an attention mask too.
        changes: go to `hf_checkpoints.make_model`.
    """
    model: Any = _configure(folder, family, **changes)
    ids = _ids(model)
    onnx = folder / "onnx"
    names = ["input_ids", "attention_mask"] if masked else ["input_ids"]
    words = (ids, torch.ones_like(ids)) if masked else (ids,)
    if family.startswith("siglip"):
        export(
            model, _siglip_image, (_pictures(),), onnx / "vision_model.onnx", inputs=["pixel_values"], outputs=_HIDDEN
        )
        export(model, _siglip_text, words, onnx / "text_model.onnx", inputs=names, outputs=_HIDDEN)
    else:
        export(
            model,
            _clip_image,
            (_pictures(),),
            onnx / "vision_model.onnx",
            inputs=["pixel_values"],
            outputs=["image_embeds", "last_hidden_state"],
        )
        export(
            model,
            _clip_text,
            words,
            onnx / "text_model.onnx",
            inputs=names,
            outputs=["text_embeds", "last_hidden_state"],
        )
    return model


def combined(folder: Path, family: str = "clip", name: str = "onnx/model.onnx") -> Any:
    """An optimum folder, both towers and their logits in one graph; returns the model."""
    model: Any = _configure(folder, family)
    ids = _ids(model)
    export(
        model,
        _both,
        (ids, _pictures(), torch.ones_like(ids)),
        folder / name,
        inputs=["input_ids", "pixel_values", "attention_mask"],
        outputs=["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
    )
    return model


def immich(folder: Path, vision: str = "vit", *, frozen: bool = True, **changes: Any) -> Any:
    """An Immich folder, as its exporter writes it from open_clip; returns the model."""
    config = checkpoints.model_config(vision, **changes)
    model: Any = checkpoints.make_model(config)
    checkpoint_files(folder, config)
    export(
        model,
        lambda m, x: m.encode_image(x, normalize=True),
        (_pictures(1),),
        folder / "visual/model.onnx",
        inputs=["image"],
        outputs=["embedding"],
        dynamic=not frozen,
    )
    export(
        model,
        lambda m, x: m.encode_text(x, normalize=True),
        (torch.ones(1, checkpoints.CONTEXT_LENGTH, dtype=torch.int32),),
        folder / "textual/model.onnx",
        inputs=["text"],
        outputs=["embedding"],
        dynamic=not frozen,
    )
    return model


def checkpoint_files(folder: Path, config: Any) -> None:
    """What Immich's exporter writes beside the graphs."""
    hf.write_tokenizer(folder / "textual")
    (folder / "visual").mkdir(parents=True, exist_ok=True)
    size = checkpoints.IMAGE_SIZE
    preprocess = {"size": [size, size], "mode": "RGB", **checkpoints.PREPROCESS, "fill_color": 0}
    (folder / "visual/preprocess_cfg.json").write_text(json.dumps(preprocess), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def plain(folder: Path, *, mask: bool = True, opset: int = 14) -> Any:
    """Two graphs as CLIP-ONNX writes them, unnormalised, and a tokenizer; returns the model.

    Args:
        mask: False loses the causal mask, as a known fault of the exporter does.
    """
    model: Any = checkpoints.make_model()
    hf.write_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    names: dict[str, Any] = {"inputs": ["input"], "outputs": ["output"], "opset": opset}
    export(model, lambda m, x: m.encode_image(x), (_pictures(),), folder / "visual.onnx", **names)
    ids = torch.ones(2, checkpoints.CONTEXT_LENGTH, dtype=torch.int64)
    kept = model.attn_mask
    if not mask:
        model.attn_mask = None
    export(model, lambda m, x: m.encode_text(x), (ids,), folder / "textual.onnx", **names)
    model.attn_mask = kept
    return model


PLAIN = {"preprocessing": "openai", "cleaning": "lower", "pad_id": 0, "logit_scale": 100.0}
"""The flags that two plain graphs need, as fields of an ImportRequest."""


def image_embeds(model: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) of length 1, by the model's own library."""
    return _embeds(model, "image", torch.from_numpy(pixels))


def text_embeds(model: Any, ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """(N, D) of length 1, by the model's own library."""
    masks = {} if mask is None else {"attention_mask": torch.from_numpy(mask)}
    return _embeds(model, "text", torch.from_numpy(ids), **masks)


def _embeds(model: Any, tower: str, batch: torch.Tensor, **more: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        if hasattr(model, f"encode_{tower}"):
            found = getattr(model, f"encode_{tower}")(batch)
        else:
            found = _features(getattr(model, f"get_{tower}_features")(batch, **more))
        return np.asarray(nn.functional.normalize(found, dim=-1).numpy())


def _features(found: Any) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found.pooler_output


_HIDDEN = ["last_hidden_state", "pooler_output"]


def _configure(folder: Path, family: str, **changes: Any) -> Any:
    """What stands beside the graphs; returns the model."""
    model: Any = hf.make_model(family, **changes)
    model.set_attn_implementation("eager")
    hf.write_tokenizer(folder, family)
    hf.write_pictures(folder, family)
    model.config.save_pretrained(folder)
    return model


def _pictures(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE)


def _ids(model: Any) -> torch.Tensor:
    rows = model.text_model.embeddings.token_embedding.num_embeddings
    ids = torch.randint(3, rows - 1, (2, model.config.text_config.max_position_embeddings))
    ids[:, 9:] = rows - 1  # CLIP's end token
    return ids


def _clip_image(model: Any, pixels: torch.Tensor) -> Any:
    out = model.vision_model(pixels)
    return model.visual_projection(out.pooler_output), out.last_hidden_state


def _clip_text(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
    out = model.text_model(ids, attention_mask=mask)
    return model.text_projection(out.pooler_output), out.last_hidden_state


def _siglip_image(model: Any, pixels: torch.Tensor) -> Any:
    out = model.vision_model(pixels)
    return out.last_hidden_state, out.pooler_output


def _siglip_text(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
    out = model.text_model(ids, attention_mask=mask)
    return out.last_hidden_state, out.pooler_output


def _both(model: Any, ids: torch.Tensor, pixels: torch.Tensor, mask: torch.Tensor) -> Any:
    out = model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
    return out.logits_per_image, out.logits_per_text, out.text_embeds, out.image_embeds
