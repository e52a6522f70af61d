"""Checkpoints of the hub: a small hub of our own answers, or none does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

from huggingface_hub import constants

from clipdeploy.errors import CheckpointError
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
