"""A checkpoint that loads means what open_clip says it means."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import open_clip
import torch

from clipdeploy.spec import ModelSpec, from_dict, to_dict
from tests import checkpoints

TEXTS = ["a photo of a cat", "A RED circle &amp; a blue square", "", "long " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def test_references_are_open_clips_own(folder: Path) -> None:
    checkpoint = checkpoints.load(folder)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    pictures = [picture(90, 50), picture(31, 64, 1), picture(32, 32, 2)]
    pixels = np.stack([checkpoint.reference_pixels(p) for p in pictures])
    expected = torch.stack([transform(p) for p in pictures])
    np.testing.assert_array_equal(pixels, expected.numpy())
    ids = checkpoint.reference_tokens(TEXTS)
    np.testing.assert_array_equal(ids, tokenizer(TEXTS).numpy())
    with torch.inference_mode():
        image, text = model.encode_image(expected, normalize=True), model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_array_equal(checkpoint.reference_image_embeds(pixels), image.numpy())
    np.testing.assert_array_equal(checkpoint.reference_text_embeds(ids), text.numpy())
    assert checkpoint.reference_image_embeds(pixels).dtype == np.float32
    assert ids.dtype == np.int64


def test_reference_crop_is_the_transform_before_its_numbers(folder: Path) -> None:
    checkpoint = checkpoints.load(folder)
    for image in (picture(90, 50), picture(90, 50).convert("L"), picture(20, 77).convert("P")):
        crop = checkpoint.reference_crop(image)
        assert crop.shape == (32, 32, 3)
        assert crop.dtype == np.uint8
        mean, std = (np.array(v, np.float32) for v in (checkpoint.spec.pixels.mean, checkpoint.spec.pixels.std))
        pixels = ((crop / np.float32(255) - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(checkpoint.reference_pixels(image), pixels, rtol=0, atol=1e-6)


def test_many_rows_and_none_are_encoded(folder: Path) -> None:
    checkpoint = checkpoints.load(folder)
    ids = checkpoint.reference_tokens([f"number {n}" for n in range(37)])
    together = checkpoint.reference_text_embeds(ids)
    assert together.shape == (37, checkpoints.EMBED_DIM)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([checkpoint.reference_text_embeds(row[None]) for row in ids])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert checkpoint.reference_text_embeds(ids[:0]).shape == (0, checkpoints.EMBED_DIM)


def test_model_is_ready_to_trace(folder: Path) -> None:
    model = checkpoints.load(folder).model
    assert not model.training
    assert {(p.dtype, p.device.type, p.requires_grad) for p in model.parameters()} == {(torch.float32, "cpu", False)}


def test_spec_describes_the_checkpoint(folder: Path) -> None:
    spec = checkpoints.load(folder).spec
    model = checkpoints.make_model()
    assert (spec.name, spec.embed_dim, spec.activation, spec.probability) == ("tiny", 24, "gelu", "softmax")
    assert spec.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert spec.logit_bias == 0.0
    assert (spec.image.architecture, spec.text.architecture) == ("ViT", "Transformer")
    assert spec.image.input.shape == ("batch", 3, 32, 32)
    assert spec.text.input.shape == ("batch", "length")
    assert spec.text.input.dtype == "int64"
    assert spec.image.parameters == sum(p.numel() for p in model.visual.parameters())
    assert spec.image.parameters + spec.text.parameters + 1 == sum(p.numel() for p in model.parameters())
    tokens = spec.tokens
    assert (tokens.context_length, tokens.vocab_size, tokens.start_id, tokens.end_id) == (20, 49408, 49406, 49407)
    assert (tokens.pad_id, tokens.cleaning, tokens.pooling) == (0, "lower", "eot_argmax")
    assert from_dict(ModelSpec, to_dict(spec)) == spec


@pytest.mark.parametrize(
    ("config", "activation", "image"),
    [
        (checkpoints.model_config(quick_gelu=True), "quick_gelu", "ViT"),
        (checkpoints.model_config("resnet"), "gelu", "ModifiedResNet"),
        (checkpoints.model_config(text_cfg={"act_kwargs": {"approximate": "tanh"}}), "gelu+gelu_tanh", "ViT"),
    ],
    ids=["quick_gelu", "resnet", "tanh"],
)
def test_activation_and_family(tmp_path: Path, config: dict[str, Any], activation: str, image: str) -> None:
    spec = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", config)).spec
    assert (spec.activation, spec.image.architecture) == (activation, image)


def test_sigmoid_checkpoint(tmp_path: Path) -> None:
    config = checkpoints.model_config(custom_text=True, init_logit_bias=-10.0, init_logit_scale=2.0)
    config["text_cfg"].update(pool_type="last", no_causal_mask=True)
    spec = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", config)).spec
    assert (spec.probability, spec.logit_bias) == ("sigmoid", -10.0)
    assert spec.logit_scale == pytest.approx(np.exp(2.0))
    assert spec.tokens.pooling == "last"


def test_first_end_token_pooling(tmp_path: Path) -> None:
    config = checkpoints.model_config(text_cfg={"pool_type": "eos", "eos_id": 49407})
    assert checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", config)).spec.tokens.pooling == "eot_first"


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_the_checkpoints_own(tmp_path: Path, resize: str, interpolation: str) -> None:
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "interpolation": interpolation, "resize_mode": resize}
    folder = checkpoints.write_checkpoint(tmp_path / "c", preprocess=stated)
    checkpoint = checkpoints.load(folder)
    pixels = checkpoint.spec.pixels
    assert (pixels.resize, pixels.interpolation) == (resize, interpolation)
    assert (pixels.mean, pixels.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    for size in ((90, 50), (33, 65)):
        np.testing.assert_array_equal(checkpoint.reference_pixels(picture(*size)), transform(picture(*size)).numpy())


def test_old_configuration_states_only_mean_and_std(tmp_path: Path) -> None:
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3}
    pixels = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", preprocess=stated)).spec.pixels
    assert (pixels.resize, pixels.interpolation, pixels.mean) == ("shortest", "bicubic", (0.5, 0.5, 0.5))


def test_size_that_is_no_square(tmp_path: Path) -> None:
    config = checkpoints.model_config(vision_cfg={"image_size": [32, 48]})
    stated = {**checkpoints.PREPROCESS, "resize_mode": "squash", "size": [32, 48]}
    checkpoint = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", config, preprocess=stated))
    assert (checkpoint.spec.pixels.height, checkpoint.spec.pixels.width) == (32, 48)
    assert checkpoint.reference_pixels(picture(50, 50)).shape == (3, 32, 48)


def test_weights_hash_follows_values_names_and_nothing_else(tmp_path: Path) -> None:
    one = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "a", seed=1))
    again = checkpoints.load(
        checkpoints.write_checkpoint(tmp_path / "b", seed=1, weights="open_clip_pytorch_model.bin")
    )
    state = checkpoints.make_model(seed=1).state_dict()
    state["ln_final.weight"][3] += 1e-6
    other = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "c", state=state))
    assert one.weights_sha256 == again.weights_sha256
    assert one.weights_sha256 != other.weights_sha256
    assert len(one.weights_sha256) == 64


def test_random_weights_are_seeded(tmp_path: Path) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "tiny", weights=None)
    before = torch.get_rng_state()
    one, again, other = (checkpoints.load(folder, random_weights=True, seed=s) for s in (3, 3, 4))
    assert one.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert torch.equal(torch.get_rng_state(), before)
    assert "random weights" in one.source
    torch.manual_seed(3)
    expected = open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in one.model.state_dict().items())


def test_random_weights_of_a_published_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    siglip = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash", "hf_hub": "none/tiny/"}
    checkpoints.register(monkeypatch, "tiny-squash", webli=siglip)
    checkpoints.register(monkeypatch, "tiny-new")
    assert checkpoints.load("tiny-squash", random_weights=True).spec.pixels.resize == "squash"
    assert checkpoints.load("tiny-new", random_weights=True).spec.pixels.mean == open_clip.OPENAI_DATASET_MEAN


def test_openai_spelling_of_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.register(monkeypatch, "ViT-T-8")
    assert checkpoints.load("ViT-T/8", random_weights=True).spec.name == "ViT-T-8"


@pytest.mark.parametrize("form", ["path", "text", "schema", "home"])
def test_folder_forms(folder: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    name = {"path": folder, "text": str(folder), "schema": f"local-dir:{folder}", "home": "local-dir:~/tiny"}[form]
    checkpoint = checkpoints.load(name)
    assert checkpoint.spec.name == "tiny"
    assert checkpoint.weights_sha256 == checkpoints.load(folder).weights_sha256


@pytest.mark.parametrize(
    "layout", ["plain", "training", "wrapped", "half", "safetensors", "list_of_one", "custom_text"]
)
def test_weights_file_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layouts that open_clip reads, each from a file of its own beside an architecture's name."""
    config = checkpoints.model_config(custom_text=layout == "custom_text")
    checkpoints.register(monkeypatch, "tiny", config)
    model = checkpoints.make_model()
    state = model.state_dict()
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pt")
    if layout == "training":
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 1e-3}}, path)
    elif layout == "wrapped":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    elif layout == "half":
        checkpoints.save_state(path, {n: t.half() for n, t in state.items()})
    elif layout == "list_of_one":
        checkpoints.save_state(path, {**state, "logit_scale": state["logit_scale"].reshape(1)})
    else:
        checkpoints.save_state(path, state)
    loaded = checkpoints.load("tiny", pretrained=path, preprocessing="openai").model.state_dict()
    for name, tensor in state.items():
        if layout == "custom_text" and name.split(".")[0] not in ("visual", "logit_scale"):
            name = f"text.{name}"
        expected = tensor.half().float() if layout == "half" else tensor
        assert torch.equal(loaded[name], expected), name


def test_openai_archive_is_read_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the program was loaded")

    model = checkpoints.write_openai(tmp_path / "ViT.pt")
    checkpoints.register(monkeypatch, "tiny-quickgelu", checkpoints.model_config(quick_gelu=True))
    monkeypatch.setattr(torch.jit, "load", refuse)
    checkpoint = checkpoints.load("tiny-quickgelu", pretrained=tmp_path / "ViT.pt", preprocessing="openai")
    state = checkpoint.model.state_dict()
    halves = 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor) or torch.equal(state[name], tensor.half().float()), name
        halves += not torch.equal(state[name], tensor)
    assert 0 < halves < len(state)
    assert checkpoint.spec.activation == "quick_gelu"


def test_licence_of_the_model_card(folder: Path, tmp_path: Path) -> None:
    assert checkpoints.load(folder).licence is None
    card = "---\nlibrary_name: open_clip\nlicense: {}\ntags:\n- clip\n---\n# A model\nlicense: not this\n"
    other = checkpoints.write_checkpoint(tmp_path / "c")
    for stated, licence in {"apache-2.0": "apache-2.0", "other\nlicense_name: apple-ascl": "apple-ascl"}.items():
        (other / "README.md").write_text(card.format(stated), encoding="utf-8")
        assert checkpoints.load(other).licence == licence
    (other / "README.md").write_text("# no header\nlicense: mit\n", encoding="utf-8")
    assert checkpoints.load(other).licence is None


def test_nothing_is_printed_logged_or_left_behind(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    with caplog.at_level(logging.DEBUG):
        checkpoints.load(folder)
        checkpoints.load(folder, random_weights=True)
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if "open_clip" in r.pathname] == []
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)


def test_other_libraries_may_log_while_loading(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from clipdeploy.export.openclip.quiet import no_complaints

    with caplog.at_level(logging.INFO), no_complaints("x"):
        logging.getLogger("camera").info("frame %d", 7)
    assert caplog.messages == ["frame 7"]


def test_hub_tokenizer_of_a_folder(tmp_path: Path) -> None:
    """A folder whose text tower takes a sentencepiece vocabulary, as SigLIP's do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["a", "photo", "of", "the", "cat", "dog", "3", "1", "4", "is", "red"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -3.0)]
    pieces += [(f"▁{w}", -2.0 - i / 10) for i, w in enumerate(words)] + [
        (c, -5.0) for c in "abcdefghijklmnopqrstuvwxyz"
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path / "siglip"
    text = {"context_length": 8, "vocab_size": len(pieces), "hf_tokenizer_name": "org/name", "pool_type": "last"}
    config = checkpoints.model_config(custom_text=True, init_logit_bias=-10.0)
    config["text_cfg"].update(text, tokenizer_kwargs={"clean": "canonicalize"})
    checkpoints.write_checkpoint(folder, config)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<unk>"}), encoding="utf-8")

    checkpoint = checkpoints.load(folder)
    tokens = checkpoint.spec.tokens
    assert (tokens.start_id, tokens.end_id, tokens.pad_id, tokens.cleaning) == (None, 1, 0, "canonicalize")
    checkpoint.write_tokenizer(tmp_path / "tokenizer.json")
    from clipdeploy.runtime.tokenizer import Tokenizer as Ours

    ours = Ours(tmp_path / "tokenizer.json", tokens)
    texts = ["a photo of the cat.", "A RED dog!!", "", "3 1 4 " * 20, "Ünknown 日本"]
    np.testing.assert_array_equal(ours(texts), checkpoint.reference_tokens(texts))
    assert [ours.count(t) for t in texts[:3]] == [6, 4, 1]
    assert ours.count(texts[3]) == 61
