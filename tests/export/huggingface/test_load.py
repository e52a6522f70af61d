"""Every family of transformers, loaded: it answers as the library's own `from_pretrained` and processors do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from clipdeploy.export.towers.build import build_tower  # noqa: E402
from clipdeploy.spec import Tower  # noqa: E402
from tests import hf_checkpoints  # noqa: E402
from tests.export.huggingface.loading import load  # noqa: E402

FAMILIES = hf_checkpoints.FAMILIES
TEXTS = ["a photo of a cat", "Two DOGS, on the grass!", "", "一张猫的照片", "long " * 90, "a <pad> b [PAD] c </s> d"]

Load = Callable[[str], Any]
Folder = Callable[[str], Path]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_answer_as_in_the_library(family: str, folder_of: Folder, checkpoint_of: Load) -> None:
    checkpoint, folder = checkpoint_of(family), folder_of(family)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = checkpoint.spec.tokens.context_length
    batch = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    if family.startswith("siglip"):
        batch = {"input_ids": batch["input_ids"]}  # trained without a mask
    with torch.no_grad():
        expected = torch.nn.functional.normalize(_features(model.get_text_features(**batch)), dim=-1).numpy()
    ids = checkpoint.reference_tokens(TEXTS)
    assert np.array_equal(ids, batch["input_ids"].numpy())
    assert np.abs(checkpoint.reference_text_embeds(ids) - expected).max() < 1e-6
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_answer_as_in_the_library(family: str, folder_of: Folder, checkpoint_of: Load) -> None:
    checkpoint = checkpoint_of(family)
    model = transformers.AutoModel.from_pretrained(folder_of(family)).eval()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(_features(model.get_image_features(pixels)), dim=-1).numpy()
    assert np.abs(checkpoint.reference_image_embeds(pixels.numpy()) - expected).max() < 1e-6
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tower", list(Tower))
def test_what_is_traced_answers_the_same(family: str, tower: Tower, checkpoint_of: Load) -> None:
    checkpoint = checkpoint_of(family)
    encoder = checkpoint.encoder(tower)
    if tower is Tower.IMAGE:
        batch = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        expected = checkpoint.reference_image_embeds(batch.numpy())
    else:
        batch = torch.from_numpy(checkpoint.reference_tokens(TEXTS))
        expected = checkpoint.reference_text_embeds(batch.numpy())
    lean = build_tower(encoder, tower)
    left = {type(m).__name__ for m in lean.modules() if type(m).__module__.startswith("transformers.models.")}
    assert all(name.endswith("MLP") for name in left), f"all else of the library is rewritten: {left}"
    with torch.no_grad():
        assert np.abs(lean(batch).numpy() - expected).max() < 2e-6
        plain = torch.nn.functional.normalize(encoder(batch), dim=-1).numpy()
    assert np.abs(plain - expected).max() < 1e-6


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_pixels_are_those_of_the_pillow_processor(family: str, folder_of: Folder, checkpoint_of: Load) -> None:
    kinds = {"clip": hf_checkpoints.CLIPImageProcessorPil, "siglip": hf_checkpoints.SiglipImageProcessorPil}
    processor = kinds[family].from_pretrained(folder_of(family))
    values = np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    checkpoint = checkpoint_of(family)
    expected = processor(picture, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(checkpoint.reference_pixels(picture), expected)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (processor.image_mean, processor.image_std))
    crop = np.moveaxis(checkpoint.reference_crop(picture), -1, 0)
    assert crop.dtype == np.uint8
    assert np.abs((crop / np.float32(255) - mean) / std - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("family", "pooling", "length", "activation", "probability", "causal"),
    [
        ("clip", "eot_first", 77, "quick_gelu", "softmax", True),
        ("siglip", "last", 64, "gelu_tanh", "sigmoid", False),
        ("siglip2", "last", 64, "gelu_tanh", "sigmoid", False),
        ("chinese_clip", "cls", 52, "quick_gelu+gelu", "softmax", False),
        ("altclip", "cls", 77, "quick_gelu+gelu", "softmax", False),
        ("metaclip_2", "eot_first", 77, "quick_gelu", "softmax", True),
    ],
)
def test_what_a_family_is(
    family: str, pooling: str, length: int, activation: str, probability: str, causal: bool, checkpoint_of: Load
) -> None:
    checkpoint = checkpoint_of(family)
    spec = checkpoint.spec
    assert (spec.tokens.pooling, spec.tokens.context_length) == (pooling, length)
    assert (spec.activation, spec.probability, checkpoint.causal) == (activation, probability, causal)
    assert spec.logit_scale == pytest.approx(np.exp(2.5))
    assert spec.logit_bias == (-3.0 if probability == "sigmoid" else 0.0)
    assert spec.pixels.crop_rounding == "floor"
    assert spec.embed_dim == spec.image.output.shape[1] == spec.text.output.shape[1]
    total = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    logits = 2 if probability == "sigmoid" else 1
    assert spec.image.parameters + spec.text.parameters + logits == total


def test_end_token_2_means_the_highest_id(tmp_path: Path, folder_of: Folder, checkpoint_of: Load) -> None:
    """As in transformers, for the many configurations written before 4.31."""
    folder = Path(shutil.copytree(folder_of("clip"), tmp_path / "clip"))
    text = json.loads((folder / "config.json").read_text())["text_config"]
    hf_checkpoints.edit(folder / "config.json", text_config={**text, "eos_token_id": 2})
    old, new = load(folder), checkpoint_of("clip")
    assert (old.spec.tokens.pooling, new.spec.tokens.pooling) == ("eot_argmax", "eot_first")
    ids = old.reference_tokens(TEXTS)
    assert np.array_equal(old.reference_text_embeds(ids), new.reference_text_embeds(ids))
    lean = build_tower(old.text_encoder, Tower.TEXT)
    with torch.no_grad():
        assert np.abs(lean(torch.from_numpy(ids)).numpy() - old.reference_text_embeds(ids)).max() < 2e-6


def test_a_pair_answers_as_the_model_it_was_cut_from(tmp_path: Path) -> None:
    whole: Any = hf_checkpoints.write_pair(tmp_path / "image", tmp_path / "text")
    checkpoint = load(tmp_path / "image", tmp_path / "text", logit_scale=100.0)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ids = torch.from_numpy(checkpoint.reference_tokens(TEXTS))
    with torch.no_grad():
        image = torch.nn.functional.normalize(_features(whole.get_image_features(pixels)), dim=-1)
        text = torch.nn.functional.normalize(_features(whole.get_text_features(ids)), dim=-1)
    assert np.abs(checkpoint.reference_image_embeds(pixels.numpy()) - image.numpy()).max() < 1e-6
    assert np.abs(checkpoint.reference_text_embeds(ids.numpy()) - text.numpy()).max() < 1e-6
    assert checkpoint.spec.logit_scale == 100.0
    with torch.no_grad():
        assert (build_tower(checkpoint.image_encoder, Tower.IMAGE)(pixels) - image).abs().max() < 2e-6
        assert (build_tower(checkpoint.text_encoder, Tower.TEXT)(ids) - text).abs().max() < 2e-6


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("family", ["metaclip_2", "siglip2", "chinese_clip"])
def test_another_image_size_is_what_the_library_interpolates(family: str, size: int, folder_of: Folder) -> None:
    checkpoint = load(folder_of(family), image_size=(size, size))
    model = transformers.AutoModel.from_pretrained(folder_of(family)).eval()
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        features = _features(model.get_image_features(pixels, interpolate_pos_encoding=True))
        expected = torch.nn.functional.normalize(features, dim=-1).numpy()
        lean = build_tower(checkpoint.image_encoder, Tower.IMAGE)(pixels).numpy()
    assert np.abs(checkpoint.reference_image_embeds(pixels.numpy()) - expected).max() < 1e-6
    assert np.abs(lean - expected).max() < 2e-6
    assert checkpoint.spec.image.input.shape == ("batch", 3, size, size)
    assert checkpoint.reference_crop(Image.new("RGB", (90, 60))).shape == (size, size, 3)


def test_random_weights_are_seeded_and_read_no_file(tmp_path: Path) -> None:
    folder = hf_checkpoints.write(tmp_path / "small", "metaclip_2")
    (folder / "model.safetensors").unlink()
    first, again, other = (load(folder, random_weights=True, seed=seed) for seed in (1, 1, 2))
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert not first.trained


def test_files_that_older_versions_wrote(tmp_path: Path, folder_of: Folder, checkpoint_of: Load) -> None:
    """Half precision, position ids among the weights, `gamma` and `beta`, several pickles and an index."""
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(folder_of("chinese_clip"), folder)
    state = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    gamma = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for name in list(state):
        for new, old in gamma.items():
            if name.endswith(new):
                state[name.replace(new, old)] = state.pop(name)
    state["text_model.embeddings.position_ids"] = torch.arange(64)[None]
    names = sorted(state)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for shard, held in shards.items():
        torch.save({name: state[name] for name in held}, folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    hf_checkpoints.edit(folder / "config.json", dtype=None, torch_dtype="float16")
    old, new = load(folder), checkpoint_of("chinese_clip")
    assert next(old.model.parameters()).dtype == torch.float32
    ids = new.reference_tokens(TEXTS)
    assert np.abs(old.reference_text_embeds(ids) - new.reference_text_embeds(ids)).max() < 2e-3
    assert old.model.state_dict().keys() == new.model.state_dict().keys()


def _features(output: Any) -> Any:
    return output if isinstance(output, torch.Tensor) else output.pooler_output
