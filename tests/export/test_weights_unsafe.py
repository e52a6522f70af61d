"""The code of a pickle never runs, wherever in a checkpoint it hides."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import torch

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.read import read_state, read_weights
from tests import checkpoints


class Danger:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path, how: Callable[..., Any] = Path.touch) -> None:
        self.path, self.how = path, how

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (self.how, (self.path,))


class Disguised:
    """The same, behind a class that may stand in a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import argparse

        return (argparse.Namespace, (), {"x": Danger(self.path)})


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda danger: danger,
    "as_a_weight": lambda danger: {"a.weight": torch.zeros(2), "b.weight": danger},
    "in_state_dict": lambda danger: {"state_dict": {"a.weight": danger}},
    "beside_state_dict": lambda danger: {"state_dict": {"a.weight": torch.zeros(2)}, "args": danger},
    "deeper": lambda danger: {"model": {"state_dict": {"a.weight": torch.zeros(2)}, "x": [danger]}},
    "as_a_name": lambda danger: {"state_dict": {("x", danger): torch.zeros(2)}},
    "hyper_parameters": lambda danger: {"state_dict": {"model.a": torch.zeros(2)}, "hyper_parameters": {"x": danger}},
    "optimizer": lambda danger: {"model": {"a.weight": torch.zeros(2)}, "optimizer": {"state": {0: danger}}},
    "average": lambda danger: {"model": {"a.weight": torch.zeros(2)}, "ema": {"shadow_params": [danger]}},
}


def danger_runs(path: Path, proof: Path) -> bool:
    """Whether the file would do harm if it were read without care: that the test can fail."""
    torch.load(path, weights_only=False)
    there = proof.exists()
    proof.unlink(missing_ok=True)
    return there


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_pickle(tmp_path: Path, wrapper: str, suffix: str, zipped: bool) -> None:
    proof, path = tmp_path / "proof", tmp_path / f"w{suffix}"
    torch.save(WRAPPERS[wrapper](Danger(proof)), path, _use_new_zipfile_serialization=zipped)
    for entry in (None, "state_dict"):
        with pytest.raises(CheckpointError, match="could run code, so it is refused") as caught:
            read_weights(path, entry)
        assert ".safetensors" in str(caught.value.fix)
        assert not proof.exists()
    assert danger_runs(path, proof)


@pytest.mark.parametrize("how", [print, eval, open, Path.unlink, torch.load, torch.hub.load, getattr])
def test_function_of_any_kind(tmp_path: Path, how: Callable[..., Any]) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Danger(tmp_path / "proof", how)}, path)
    with pytest.raises(CheckpointError, match=r"could run code|not a file of tensors"):
        read_weights(path)


def test_behind_a_class_that_is_stood_in_for(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "w.pt"
    torch.save({"model": {"a": torch.zeros(1)}, "args": Disguised(proof)}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        read_weights(path)
    assert not proof.exists()
    assert danger_runs(path, proof)


def test_classes_that_are_stood_in_for_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    path = tmp_path / "w.pt"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1.0), "path": Path("x")}, path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a class of the file was made")

    before = set(torch.serialization.get_safe_globals())
    monkeypatch.setattr(argparse.Namespace, "__init__", refuse)
    assert set(read_weights(path).state) == {"a"}
    assert set(torch.serialization.get_safe_globals()) == before, "what may stand in one file is allowed for good"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_shard(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "proof"
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model-1.bin")
    bad = tmp_path / "pytorch_model-2.bin"
    torch.save({"b": Danger(proof)}, bad, _use_new_zipfile_serialization=zipped)
    places = {"a": "pytorch_model-1.bin", "b": bad.name}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="could run code"):
        read_state(tmp_path)
    assert not proof.exists()
    assert danger_runs(bad, proof)


@pytest.mark.parametrize("source", ["file", "pretrained", "folder"])
def test_whole_loader(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "proof"
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    path = folder / "w.pt"
    torch.save({"state_dict": checkpoints.make_model().state_dict(), "x": Danger(proof)}, path)
    checkpoints.register(monkeypatch, "tiny")
    with pytest.raises(CheckpointError, match="could run code"):
        if source == "pretrained":
            checkpoints.load("tiny", pretrained=path, preprocessing="openai")
        else:
            checkpoints.load(path if source == "file" else folder)
    assert not proof.exists()
    assert danger_runs(path, proof)


def test_pickle_that_calls_itself_safetensors(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "w.safetensors"
    torch.save({"a": Danger(proof)}, path)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_weights(path)
    assert not proof.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_archive_of_a_program(tmp_path: Path, protocol: int) -> None:
    proof, path = tmp_path / "proof", tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/data.pkl", pickle.dumps(Danger(proof), protocol=protocol))
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_weights(path)
    assert not proof.exists()


def test_archive_with_damaged_values(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    checkpoints.write_openai(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(path)
