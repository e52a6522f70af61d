"""One CLIP in both layouts, open_clip's and transformers': both loaders give the same embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

from tests import checkpoints, hf_checkpoints  # noqa: E402
from tests.export.huggingface.loading import load  # noqa: E402

TEXTS = ["a photo of a cat", "two dogs", "", "seven words that are all in english"]
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_TOWER = {
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
    "token_embedding": "text_model.embeddings.token_embedding",
}


def as_transformers(model: Any) -> Any:
    """open_clip's CLIP with QuickGELU as a CLIPModel with the same weights."""
    vision, text = checkpoints.VISION["vit"], checkpoints.TEXT
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **sizes,
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "vocab_size": 49408,
            "max_position_embeddings": checkpoints.CONTEXT_LENGTH,
            "eos_token_id": 49407,
        },
        vision_config={
            **sizes,
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "patch_size": 8,
            "image_size": checkpoints.IMAGE_SIZE,
        },
        projection_dim=checkpoints.EMBED_DIM,
    )
    twin = transformers.CLIPModel(config)
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        state.update(_renamed(name, value))
    twin.load_state_dict(state)
    return twin


def _renamed(name: str, value: Any) -> dict[str, Any]:
    side = "vision_model" if name.startswith("visual.") else "text_model"
    inner = name.removeprefix("visual.")
    if inner.startswith("transformer.resblocks."):
        _, _, number, rest = inner.split(".", 3)
        place = f"{side}.encoder.layers.{number}."
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            return {f"{place}self_attn.{q}_proj.{kind}": part for q, part in zip("qkv", value.chunk(3), strict=True)}
        module, kind = rest.rsplit(".", 1)
        return {f"{place}{_BLOCK[module]}.{kind}": value}
    plain = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    if name in plain:
        return {plain[name]: value}
    if name in ("visual.proj", "text_projection"):
        return {f"{'visual' if 'visual' in name else 'text'}_projection.weight": value.T}
    module, kind = name.rsplit(".", 1)
    return {f"{_TOWER[module]}.{kind}": value}


def test_both_layouts_embed_alike(tmp_path: Path) -> None:
    config = checkpoints.model_config(quick_gelu=True)
    model = checkpoints.make_model(config)
    ours = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "open_clip", config, state=model.state_dict()))
    twin = load(hf_checkpoints.write(tmp_path / "transformers", model=as_transformers(model)))
    pixels = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    ids = ours.reference_tokens(TEXTS)
    words = twin.reference_tokens(TEXTS)  # open_clip pads with 0, transformers with the end token
    assert np.array_equal(np.where(ids == 0, 49407, ids), words)
    assert np.abs(ours.reference_image_embeds(pixels) - twin.reference_image_embeds(pixels)).max() < 1e-5
    assert np.abs(ours.reference_text_embeds(ids) - twin.reference_text_embeds(words)).max() < 1e-5
    assert ours.spec.logit_scale == pytest.approx(twin.spec.logit_scale)
    assert ours.spec.activation == twin.spec.activation == "quick_gelu"
    assert ours.spec.image.parameters == twin.spec.image.parameters
    assert ours.spec.text.parameters == twin.spec.text.parameters


def test_another_activation_is_another_model(tmp_path: Path) -> None:
    """The comparison above would see it."""
    config = checkpoints.model_config(quick_gelu=True)
    model = checkpoints.make_model(config)
    folder = hf_checkpoints.write(tmp_path / "transformers", model=as_transformers(model))
    right = load(folder)
    content = transformers.CLIPConfig.from_pretrained(folder).to_dict()
    content["vision_config"]["hidden_act"] = "gelu"
    hf_checkpoints.edit(folder / "config.json", vision_config=content["vision_config"])
    wrong = load(folder)
    assert wrong.spec.activation == "gelu+quick_gelu"
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    assert np.abs(right.reference_image_embeds(pixels) - wrong.reference_image_embeds(pixels)).max() > 1e-4
