"""What a name, a folder or a file is, told by what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import open_clip
import torch
from open_clip.model import build_model_from_openai_state_dict
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.openai import model_config
from clipdeploy.export.sources.resolve import resolve
from clipdeploy.export.sources.source import OpenClipSource, Source, TransformersSource
from clipdeploy.request import CheckpointRequest
from tests import checkpoints

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 99, "max_position_embeddings": 8, "projection_dim": 24}
VISION = {**SIZES, "image_size": 16, "patch_size": 8, "projection_dim": 24}


def source(model: str | Path, **stated: Any) -> Source:
    stated = {key: str(value) if isinstance(value, Path) else value for key, value in stated.items()}
    return resolve(CheckpointRequest(str(model), **stated), Hub())


def of_transformers(model: str | Path, **stated: Any) -> TransformersSource:
    found = source(model, **stated)
    assert isinstance(found, TransformersSource)
    return found


def of_open_clip(model: str | Path, **stated: Any) -> OpenClipSource:
    found = source(model, **stated)
    assert isinstance(found, OpenClipSource)
    return found


def refusal(model: str | Path, **stated: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        source(model, **stated)
    assert caught.value.fix, f"no fix is named: {caught.value.message}"
    return caught.value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder of a whole CLIP."""
    folder = tmp_path_factory.mktemp("clip") / "clip"
    CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders side by side, called as diffusers calls them."""
    folder = tmp_path_factory.mktemp("pair") / "pair"
    CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).save_pretrained(folder / "image_encoder")
    CLIPTextModelWithProjection(CLIPTextConfig(**TEXT)).save_pretrained(folder / "text_encoder")
    return folder


# -- folders


def test_folder_of_open_clip(tmp_path: Path) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c")
    for model in (folder, f"local-dir:{folder}"):
        found = of_open_clip(model)
        assert (found.name, found.label) == ("c", f"local-dir:{folder}")
        assert found.weights == folder / "open_clip_model.safetensors"
    assert of_open_clip(folder, library="open_clip") == found
    assert "has no config.json" in refusal(folder, library="transformers").message


def test_folder_of_transformers(clip: Path) -> None:
    (clip / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    for model in (clip, f"local-dir:{clip}"):
        found = of_transformers(model)
        assert found == TransformersSource("clip", f"local-dir:{clip}", clip, licence="mit")
    assert of_transformers(clip, library="transformers") == found
    assert "has no open_clip_config.json" in refusal(clip, library="open_clip").message
    random = of_transformers(clip, random_weights=True)
    assert (random.random_weights, random.label) == (True, f"local-dir:{clip} (random weights)")


def test_folder_of_both(clip: Path, tmp_path: Path) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "both")
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((clip / file).read_bytes())
    assert of_open_clip(folder).weights == folder / "open_clip_model.safetensors"
    assert of_open_clip(folder, library="open_clip") == of_open_clip(folder)
    assert of_transformers(folder, library="transformers").folder == folder


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"architecture": "vit_base_patch32"}'])
def test_configuration_that_is_not_of_transformers(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert "config.json" in refusal(tmp_path).message


def test_quantised_transformers(clip: Path, tmp_path: Path) -> None:
    content = json.loads((clip / "config.json").read_text(encoding="utf-8"))
    quantised = {**content, "quantization_config": {"load_in_8bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(quantised), encoding="utf-8")
    assert "holds quantised weights" in refusal(tmp_path).message


def test_folder_of_weights_only(tmp_path: Path) -> None:
    checkpoints.save_state(tmp_path / "w.pt", checkpoints.make_model().state_dict())
    error = refusal(tmp_path)
    assert "has no open_clip_config.json and no config.json, so nothing says which model it is" in error.message
    assert "--pretrained FILE" in str(error.fix)


@pytest.mark.parametrize(
    ("file", "says", "fix"),
    [
        ("manifest.json", "is a bundle already", "the checkpoint it was made from"),
        ("onnx/vision_model.onnx", "exported graphs", "clipdeploy import"),
        ("visual/model.onnx", "exported graphs", "clipdeploy import"),
    ],
)
def test_folder_of_something_else(tmp_path: Path, file: str, says: str, fix: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    error = refusal(tmp_path)
    assert says in error.message
    assert fix in str(error.fix)


# -- encoders apart


def test_text_encoder_apart(pair: Path) -> None:
    image, text = pair / "image_encoder", pair / "text_encoder"
    for folder in (text, f"local-dir:{text}"):
        found = of_transformers(image, text_model=folder)
        assert (found.folder, found.text_folder) == (image, text)
    assert of_transformers(image).text_folder is None
    assert "is no folder" in refusal(image, text_model=pair / "gone").message
    assert "has no config.json" in refusal(image, text_model=pair).message


@pytest.mark.parametrize("pipeline", [False, True])
def test_pipeline_of_diffusers(pair: Path, tmp_path: Path, pipeline: bool) -> None:
    if pipeline:
        (pair / "model_index.json").write_text("{}", encoding="utf-8")
    found = of_transformers(pair)
    assert (found.folder, found.text_folder) == (pair / "image_encoder", pair / "text_encoder")
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    assert "pipeline without image_encoder and text_encoder" in refusal(tmp_path).message


def write_modules(folder: Path, modules: Mapping[str, str]) -> Path:
    """modules.json as sentence-transformers writes it."""
    folder.mkdir()
    parts = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules.items())
    ]
    (folder / "modules.json").write_text(json.dumps(parts), encoding="utf-8")
    return folder


def test_sentence_transformers(clip: Path, tmp_path: Path) -> None:
    folder = write_modules(tmp_path / "st", {"0_CLIPModel": "CLIPModel"})
    clip_folder = folder / "0_CLIPModel"
    clip_folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (clip_folder / file).write_bytes((clip / file).read_bytes())
    assert of_transformers(folder).folder == clip_folder
    text = write_modules(tmp_path / "text", {"0_Transformer": "Transformer", "1_Pooling": "Pooling"})
    assert "of Transformer, Pooling, which is no CLIP" in refusal(text).message
    (text / "modules.json").write_text("[{}]", encoding="utf-8")
    assert "modules.json cannot be read" in refusal(text).message


# -- names


def test_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for model in ("ViT-B-32", "ViT-B/32"):
        found = of_open_clip(model, random_weights=True, library="open_clip")
        assert (found.model, found.weights) == ("ViT-B-32", None)
    assert "--library transformers contradicts" in refusal("ViT-B-32", library="transformers").message
    monkeypatch.chdir(tmp_path)
    checkpoints.write_checkpoint(tmp_path / "ViT-B-32")
    assert of_open_clip("ViT-B-32", random_weights=True).name == "ViT-B-32"
    assert of_open_clip("./ViT-B-32").weights == Path("ViT-B-32/open_clip_model.safetensors")
    assert "local-dir:ViT-B-32" in str(refusal("ViT-B-32").fix)


def test_repository_without_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refusal("some/clip")
    assert "'some/clip' is no architecture and no folder or file; as a repository: " in error.message
    assert "huggingface.co/some/clip" in str(error.fix)
    assert "ViT-B-32" in str(refusal("ViT-B/33").fix)
    assert "brings its own weights" in refusal("some/clip", pretrained="openai").message


@pytest.mark.parametrize("model", ["a/b/c", "../gone", "~/gone/x", "/no/where", "zzz"])
def test_name_of_nothing(model: str) -> None:
    assert "unknown architecture" in refusal(model).message


@pytest.mark.parametrize("stated", [{"entry": "ema"}, {"text_model": "x/y"}, {"logit_scale": 100.0}])
def test_option_without_effect_is_refused(stated: dict[str, Any], clip: Path, tmp_path: Path) -> None:
    folder = clip if "entry" in stated else checkpoints.write_checkpoint(tmp_path / "c")
    flag = f"--{next(iter(stated)).replace('_', '-')}"
    assert refusal(folder, **stated).fix == f"drop {flag}"


def test_entry_of_random_weights() -> None:
    assert "no entry 'ema'" in refusal("ViT-B-32", random_weights=True, entry="ema").message


# -- a file


def write_openai_state(path: Path, config: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """A state dict with the three facts that only OpenAI's own files have; heads are 64 wide in all of them."""
    config = config or checkpoints.model_config(quick_gelu=True, vision_cfg={"head_width": 64}, text_cfg={"heads": 1})
    facts = {"input_resolution": 32, "context_length": 20, "vocab_size": 49408}
    state = dict(checkpoints.make_model(config).state_dict())
    torch.save({**state, **{name: torch.tensor(value) for name, value in facts.items()}}, path)
    return state


def test_openai_state_dict_states_its_architecture(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    state = write_openai_state(path)
    checkpoint = checkpoints.load(path)
    spec = checkpoint.spec
    assert (spec.name, spec.activation, checkpoint.source) == ("mine", "quick_gelu", str(path))
    assert (spec.pixels.resize, spec.pixels.interpolation) == ("shortest", "bicubic")
    assert (spec.pixels.height, spec.tokens.context_length) == (32, 20)
    reference = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
    reference.load_state_dict(state)  # which rounded some of them to halves
    assert all(torch.equal(checkpoint.model.state_dict()[name], tensor) for name, tensor in state.items())
    pixels, ids = torch.rand(2, 3, 32, 32), checkpoint.tokenize(["a cat", "two dogs"])
    with torch.inference_mode():
        image, text = reference.encode_image(pixels, normalize=True), reference.encode_text(ids, normalize=True)
        torch.testing.assert_close(checkpoint.encode_image(pixels), image, rtol=0, atol=1e-6)
        torch.testing.assert_close(checkpoint.encode_text(ids), text, rtol=0, atol=1e-6)


def test_openai_archive_states_its_architecture(tmp_path: Path) -> None:
    model = checkpoints.write_openai(tmp_path / "ViT.pt")
    checkpoint = checkpoints.load(tmp_path / "ViT.pt")
    assert (checkpoint.spec.activation, checkpoint.spec.embed_dim) == ("quick_gelu", checkpoints.EMBED_DIM)
    assert checkpoint.model.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "name", [n for n in open_clip.list_models() if "openai" in open_clip.list_pretrained_tags_by_model(n)]
)
def test_every_architecture_of_openai_is_read_off_its_shapes(name: str) -> None:
    """On the meta device, so that the large ones cost nothing."""
    config = open_clip.get_model_config(name)
    given = dict(config)
    given.pop("quick_gelu", None)
    with torch.device("meta"):
        state = open_clip.CLIP(**config).state_dict()
    derived = model_config(state)
    if isinstance(derived["vision_cfg"]["patch_size"], int):
        assert derived == given
    else:
        vision = {**derived["vision_cfg"], "layers": list(derived["vision_cfg"]["layers"])}
        assert {**derived, "vision_cfg": vision} == given


def test_openai_file_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    write_openai_state(path)
    content = torch.load(path)
    for name, change in {"ln_final.weight": None, "visual.positional_embedding": torch.zeros(16, 64)}.items():
        broken = {n: t for n, t in content.items() if n != name}
        torch.save(broken if change is None else {**broken, name: change}, path)
        assert "marks of OpenAI's own files, but not their weights" in refusal(path).message
    torch.save({**content, "visual.extra": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"1 unexpected \(visual.extra\)"):
        checkpoints.load(path)


@pytest.mark.parametrize("custom_text", [False, True])
def test_other_weights_file_does_not_state_its_architecture(tmp_path: Path, custom_text: bool) -> None:
    config = open_clip.get_model_config("ViT-B-32")
    with torch.device("meta"):
        shapes = open_clip.CLIP(**config).state_dict()
    state = {
        ("text." if custom_text and not n.startswith(("visual", "logit")) else "") + n: t for n, t in shapes.items()
    }
    path = tmp_path / "w.pt"
    torch.save({n: torch.zeros((), dtype=torch.float16).expand(t.shape) for n, t in state.items()}, path)
    error = refusal(path)
    assert "does not state which model the weights are of" in error.message
    assert "ViT-B-32, ViT-B-32-quickgelu" in str(error.fix)
    assert "--pretrained FILE" in str(error.fix)


def test_files_that_are_no_checkpoint_of_their_own(clip: Path, tmp_path: Path) -> None:
    assert "local-dir:FOLDER" in str(refusal(clip / "model.safetensors").fix)
    path = checkpoints.save_state(tmp_path / "w.pt", {"a": torch.zeros(1)})
    assert "ARCHITECTURE --pretrained FILE" in str(refusal(path).fix)
    assert "brings its own weights" in refusal(path, pretrained="openai").message
    assert "a transformers checkpoint is a folder" in refusal(path, library="transformers").message
    assert "name its architecture" in str(refusal(path, random_weights=True).fix)
    (tmp_path / "w.onnx").touch()
    assert "exported graph" in refusal(tmp_path / "w.onnx").message


def test_model_of_another_kind_is_left_to_the_loader(tmp_path: Path) -> None:
    """Which of transformers' models can be exported is known where they are built."""
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    assert of_transformers(tmp_path).folder == tmp_path
    with pytest.raises(CheckpointError, match="BertModel"):
        checkpoints.load(tmp_path)
