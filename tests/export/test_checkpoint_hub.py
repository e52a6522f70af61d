"""Checkpoints of the hub: a small hub of our own answers, or none does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import torch
from huggingface_hub import constants
from transformers import CLIPConfig, CLIPModel

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.resolve import resolve
from clipdeploy.export.sources.source import OpenClipSource, TransformersSource
from clipdeploy.export.weights.read import read_state
from clipdeploy.request import CheckpointRequest
from tests import checkpoints
from tests.fake_hub import serve

NOBODY = "http://127.0.0.1:9"  # the discard port: connections are refused at once


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub's client ask `address`."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a hub that runs; an empty cache."""
    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve(root) as address:
        point_to(address, monkeypatch)
        yield root


def test_repository(hub: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = checkpoints.write_checkpoint(hub / "org" / "clip", seed=5)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    seen: list[tuple[str, int, int]] = []
    checkpoint = checkpoints.load("hf-hub:org/clip", progress=lambda *args: seen.append(args))
    assert checkpoint.weights_sha256 == checkpoints.load(folder).weights_sha256
    assert (checkpoint.spec.name, checkpoint.source, checkpoint.licence) == ("org/clip", "hf-hub:org/clip", "mit")
    size = (folder / "open_clip_model.safetensors").stat().st_size
    assert ("downloading open_clip_model.safetensors", size, size) in seen
    assert capfd.readouterr() == ("", "")


def test_repository_with_a_pickle_only(hub: Path) -> None:
    checkpoints.write_checkpoint(hub / "org" / "clip", weights="open_clip_pytorch_model.bin")
    assert checkpoints.load("hf-hub:org/clip").licence is None


def test_repository_random_weights(hub: Path) -> None:
    checkpoints.write_checkpoint(hub / "org" / "clip", weights=None)
    assert checkpoints.load("hf-hub:org/clip", random_weights=True).source == "hf-hub:org/clip (random weights)"


@pytest.mark.parametrize("file", ["", "weights.pt"])
def test_tag(hub: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.write_checkpoint(hub / "org" / "clip", weights=file or "open_clip_model.safetensors", seed=2)
    own = {"hf_hub": f"org/clip/{file}", "mean": (0.5,) * 3, "resize_mode": "squash"}
    checkpoints.register(monkeypatch, "tiny", fine_tuned=own)
    checkpoint = checkpoints.load("tiny", pretrained="Fine-Tuned")
    assert checkpoint.weights_sha256 == checkpoints.load(folder).weights_sha256
    assert (checkpoint.spec.pixels.mean, checkpoint.spec.pixels.resize) == ((0.5, 0.5, 0.5), "squash")


def test_cache_answers_when_the_hub_is_gone(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write_checkpoint(hub / "org" / "clip", weights="open_clip_pytorch_model.bin")
    online = checkpoints.load("hf-hub:org/clip")
    point_to(NOBODY, monkeypatch)
    assert checkpoints.load("hf-hub:org/clip").weights_sha256 == online.weights_sha256


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be had from the hub"),
        ("README.md", "has no open_clip_config.json"),
        ("config", "no weights file"),
    ],
)
def test_repository_that_lacks_something(hub: Path, content: str | None, says: str) -> None:
    if content == "config":
        checkpoints.write_checkpoint(hub / "org" / "clip", weights=None)
    elif content:
        (hub / "org" / "clip").mkdir(parents=True)
        (hub / "org" / "clip" / content).write_text("# nothing else", encoding="utf-8")
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoints.load("hf-hub:org/clip")
    assert caught.value.fix


@pytest.mark.parametrize("reason", ["refused", "offline"])
@pytest.mark.parametrize(
    ("model", "more"), [("hf-hub:org/clip", {}), ("ViT-B-32-quickgelu", {"pretrained": "openai"})], ids=["hub", "tag"]
)
def test_no_network_fails_fast_and_says_what_to_fetch(
    hub: Path, model: str, more: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    point_to(NOBODY, monkeypatch)
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(model, **more)
    assert time.monotonic() - started < 5
    assert ("HF_HUB_OFFLINE is set" if reason == "offline" else "cannot be reached") in caught.value.message
    assert "not in the Hugging Face cache" in caught.value.message
    assert "open_clip_model.safetensors" in str(caught.value.fix)
    assert "https://huggingface.co/" in str(caught.value.fix)
    assert "local-dir:" in str(caught.value.fix)
    assert constants.HF_HUB_OFFLINE is (reason == "offline")


def test_hub_tokenizer_without_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(NOBODY, monkeypatch)
    checkpoints.register(monkeypatch, "tiny", checkpoints.model_config(text_cfg={"hf_tokenizer_name": "org/none"}))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="needs a tokenizer or text model") as caught:
        checkpoints.load("tiny", random_weights=True)
    assert time.monotonic() - started < 10
    assert "cannot be reached" in caught.value.message
    assert constants.HF_HUB_OFFLINE is False


# -- repositories in the layout of transformers

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 99, "max_position_embeddings": 8}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
PLAIN = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def write_transformers(folder: Path, *, seed: int = 0, **saving: Any) -> dict[str, torch.Tensor]:
    """A CLIP as transformers saves it, with stand-ins for the files that are only fetched; its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))
    model.save_pretrained(folder, **saving)
    for name in PLAIN:
        (folder / name).write_text("{}", encoding="utf-8")
    return dict(model.state_dict())


def source(model: str, **stated: Any) -> OpenClipSource | TransformersSource:
    return resolve(CheckpointRequest(model, **stated), Hub())


def of_transformers(model: str, **stated: Any) -> TransformersSource:
    found = source(model, **stated)
    assert isinstance(found, TransformersSource)
    return found


def same(folder: Path, state: dict[str, torch.Tensor]) -> bool:
    read = read_state(folder).state
    return read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("model", ["hf-hub:org/clip", "org/clip"])
def test_transformers_repository(hub: Path, model: str) -> None:
    state = write_transformers(hub / "org" / "clip")
    (hub / "org" / "clip" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    found = of_transformers(model)
    assert (found.name, found.label, found.licence, found.text_folder) == ("org/clip", model, "mit", None)
    assert {*PLAIN, "config.json", "model.safetensors"} <= {path.name for path in found.folder.iterdir()}
    assert same(found.folder, state)


def test_transformers_repository_in_shards(hub: Path) -> None:
    state = write_transformers(hub / "org" / "clip", max_shard_size="20KB")
    assert len(list((hub / "org" / "clip").glob("*.safetensors"))) > 2
    found = of_transformers("hf-hub:org/clip")
    assert same(found.folder, state)
    next((hub / "org" / "clip").glob("*-00002-of-*")).unlink()
    (hub / "org" / "again").symlink_to(hub / "org" / "clip")
    with pytest.raises(CheckpointError, match=r"00002-of-.* which model\.safetensors\.index\.json names"):
        source("hf-hub:org/again")


def test_transformers_repository_with_a_pickle_only(hub: Path) -> None:
    state = write_transformers(hub / "org" / "clip")
    (hub / "org" / "clip" / "model.safetensors").unlink()
    torch.save(state, hub / "org" / "clip" / "pytorch_model.bin")
    assert same(of_transformers("hf-hub:org/clip").folder, state)


@pytest.mark.parametrize("other", ["flax_model.msgpack", "adapter_config.json", None])
def test_transformers_repository_without_weights(hub: Path, other: str | None) -> None:
    write_transformers(hub / "org" / "clip")
    (hub / "org" / "clip" / "model.safetensors").unlink()
    if other is not None:
        (hub / "org" / "clip" / other).touch()
    with pytest.raises(CheckpointError, match="no weights that PyTorch reads") as caught:
        source("hf-hub:org/clip")
    assert other is None or other in caught.value.message
    assert of_transformers("hf-hub:org/clip", random_weights=True).random_weights


def test_repository_of_both_libraries(hub: Path) -> None:
    write_transformers(hub / "org" / "clip")
    checkpoints.write_checkpoint(hub / "org" / "clip")
    assert isinstance(source("org/clip"), OpenClipSource)
    assert isinstance(source("org/clip", library="open_clip"), OpenClipSource)
    assert isinstance(source("org/clip", library="transformers"), TransformersSource)


@pytest.mark.parametrize(
    ("library", "lacks"), [("open_clip", "open_clip_config.json"), ("transformers", "config.json")]
)
def test_library_that_the_repository_contradicts(hub: Path, library: Any, lacks: str) -> None:
    if library == "open_clip":
        write_transformers(hub / "org" / "clip")
    else:
        checkpoints.write_checkpoint(hub / "org" / "clip")
    with pytest.raises(CheckpointError, match=f"has no {lacks}"):
        source("hf-hub:org/clip", library=library)


def test_text_encoder_of_a_repository_of_its_own(hub: Path) -> None:
    image, text = (write_transformers(hub / "org" / name, seed=n) for n, name in enumerate(("image", "text")))
    found = of_transformers("org/image", text_model="org/text")
    assert found.text_folder is not None
    assert same(found.folder, image)
    assert same(found.text_folder, text)


def test_sentence_transformers_repository(hub: Path) -> None:
    state = write_transformers(hub / "org" / "clip" / "0_CLIPModel")
    part = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (hub / "org" / "clip" / "modules.json").write_text(json.dumps([part]), encoding="utf-8")
    found = of_transformers("org/clip")
    assert found.folder.name == "0_CLIPModel"
    assert same(found.folder, state)


def test_revision(hub: Path) -> None:
    newest = write_transformers(hub / "org" / "clip", seed=1)
    older = write_transformers(hub / "org" / "clip@v1", seed=2)
    assert same(of_transformers("org/clip").folder, newest)
    for model in ("hf-hub:org/clip@v1", "org/clip@v1"):
        found = of_transformers(model)
        assert (found.name, found.label) == ("org/clip", model)
        assert same(found.folder, older)
    with pytest.raises(CheckpointError, match="cannot be had from the hub"):
        source("hf-hub:org/clip@v2")


def test_revision_of_open_clip(hub: Path) -> None:
    checkpoints.write_checkpoint(hub / "org" / "clip", seed=1)
    older = checkpoints.write_checkpoint(hub / "org" / "clip@v1", seed=2)
    checkpoint = checkpoints.load("hf-hub:org/clip@v1")
    assert checkpoint.source == "hf-hub:org/clip@v1"
    assert checkpoint.weights_sha256 == checkpoints.load(older).weights_sha256


@pytest.mark.parametrize("named", ["org/clip", "org/words"])
def test_revision_of_a_tokenizer(hub: Path, named: str) -> None:
    config = checkpoints.model_config(text_cfg={"hf_tokenizer_name": named})
    for folder in (hub / "org" / "clip", hub / "org" / "clip@v1"):
        (checkpoints.write_checkpoint(folder, config) / "tokenizer.json").write_text(folder.name, encoding="utf-8")
    plain = source("org/clip")
    assert isinstance(plain, OpenClipSource)
    assert plain.tokenizer == "hf-hub:org/clip"
    if named == "org/words":
        with pytest.raises(CheckpointError, match="the tokenizer is of another repository, org/words"):
            source("org/clip@v1")
        return
    pinned = source("org/clip@v1")
    assert isinstance(pinned, OpenClipSource)
    folder = Path(pinned.tokenizer.removeprefix("local-dir:"))
    assert (folder / "tokenizer.json").read_text(encoding="utf-8") == "clip@v1"


def test_transformers_cache_answers_when_the_hub_is_gone(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is no open_clip_config.json was noted when there was a hub, and so is known without it."""
    write_transformers(hub / "org" / "clip")
    online = of_transformers("org/clip")
    point_to(NOBODY, monkeypatch)
    assert of_transformers("org/clip") == online


def test_cache_of_another_program_does_not_tell_the_library(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers never asks for open_clip_config.json: whether there is one is not known."""
    write_transformers(hub / "org" / "clip")
    of_transformers("org/clip", library="transformers")
    point_to(NOBODY, monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"open_clip_config.json of org/clip is not in the Hugging Face cache"
    ) as caught:
        source("org/clip")
    assert "--library transformers" in str(caught.value.fix)
    assert of_transformers("org/clip", library="transformers").name == "org/clip"


@pytest.mark.parametrize("reason", ["refused", "offline"])
def test_transformers_without_network_names_every_file(hub: Path, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    point_to(NOBODY, monkeypatch)
    for model in ("hf-hub:org/clip", "org/clip"):
        started = time.monotonic()
        with pytest.raises(CheckpointError, match="not in the Hugging Face cache") as caught:
            source(model, library="transformers")
        assert time.monotonic() - started < 5
        for file in ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "vocab.json"):
            assert file in str(caught.value.fix)
        assert "local-dir:FOLDER" in str(caught.value.fix)


def test_part_of_a_repository_in_the_cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may be there and is not in the cache is never taken for one that does not exist."""
    write_transformers(hub / "org" / "clip")
    Hub().fetch("org/clip", "config.json", fix="")
    point_to(NOBODY, monkeypatch)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json of org/clip is not in the") as caught:
        source("org/clip", library="transformers")
    assert "special_tokens_map.json" in str(caught.value.fix)
    assert "model.safetensors" in str(caught.value.fix)
