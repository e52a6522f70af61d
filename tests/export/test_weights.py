"""Weights however a training program saved them, and the refusal of all that is not certain."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import torch
from safetensors.torch import save_file

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.fit import load_weights
from clipdeploy.export.weights.layouts import of_open_clip
from clipdeploy.export.weights.read import TRANSFORMERS, find_weights, read_state, read_weights
from tests import checkpoints

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(checkpoints.make_model().state_dict())


def load(path: Path, entry: str | None = None) -> State:
    """The values of a model, seeded otherwise, after it took the weights of `path`."""
    model = checkpoints.make_model(seed=99)
    load_weights(model, read_weights(path, entry), label="x", rename=of_open_clip(model, label="x"))
    return model.state_dict()


def refusal(call: Callable[..., Any], *args: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert caught.value.fix, f"no fix is named: {caught.value.message}"
    return caught.value


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def optimizer(state: State) -> dict[str, Any]:
    """A real optimiser's state after a step."""
    weight = torch.nn.Parameter(state["ln_final.weight"].clone())
    adam = torch.optim.AdamW([weight])
    weight.sum().backward()
    adam.step()
    return adam.state_dict()


# -- wrappers

WRAPPERS: dict[str, Callable[[State], Any]] = {
    "alone": lambda s: s,
    "state_dict": lambda s: {"state_dict": s},
    "model": lambda s: {"model": s, "epoch": 3, "best": 0.5},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.tensor(0.5)},
    "module": lambda s: {"module": s, "global_steps": 5, "dp_world_size": 1},
    "deeper": lambda s: {"model": {"state_dict": s, "args": None}},
    "parallel": lambda s: prefixed("module.", s),
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled_parallel": lambda s: {"state_dict": prefixed("_orig_mod.module.", s)},
    "parallel_compiled": lambda s: {"state_dict": prefixed("module._orig_mod.", s)},
    "compiled_tower": lambda s: {n.replace("visual.", "visual._orig_mod."): t for n, t in s.items()},
    "lightning": lambda s: {
        "state_dict": prefixed("model.", s),
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "optimizer_states": [optimizer(s)],
        "lr_schedulers": [{"base_lrs": [1e-3]}],
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.1), "dirpath": "x"}},
        "hyper_parameters": {"lr": 1e-3, "args": argparse.Namespace(batch=8)},
    },
    "lightning_clip": lambda s: {"state_dict": prefixed("model.clip.", s)},
    "clip_model": lambda s: {"state_dict": prefixed("clip_model.", s)},
    "open_clip": lambda s: {
        "epoch": 3,
        "name": "run",
        "state_dict": prefixed("module.", s),
        "optimizer": optimizer(s),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 4},
    },
    "arguments": lambda s: {"model": s, "args": argparse.Namespace(lr=1e-3, out=Path("x"))},
    "scores": lambda s: {"model": s, "best": np.float64(0.5), "mean": np.float32(1.5)},
    "random_states": lambda s: {"model": s, "rng": {"cpu": torch.get_rng_state()}, "cuda": [torch.get_rng_state()]},
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper(tmp_path: Path, state: State, name: str) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(WRAPPERS[name](state), path)
    assert same(load(path), state)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_suffix_and_old_format(tmp_path: Path, state: State, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=suffix == ".pt")
    assert same(load(path), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precision_becomes_float32(tmp_path: Path, state: State, dtype: torch.dtype, suffix: str) -> None:
    path = checkpoints.save_state(tmp_path / f"w{suffix}", {name: t.to(dtype) for name, t in state.items()})
    assert same(load(path), {name: t.to(dtype).float() for name, t in state.items()})


# -- several sets of weights in a file


def moving_average(state: State) -> State:
    return {name: tensor * 0.5 for name, tensor in state.items()}


@pytest.mark.parametrize(
    "names", [("state_dict", "state_dict_ema"), ("model", "ema"), ("model", "model_ema"), ("state_dict", "ema.module")]
)
def test_average_beside_the_weights_is_never_chosen_unasked(tmp_path: Path, state: State, names: list[str]) -> None:
    path = tmp_path / "w.pth"
    outer, _, inner = names[1].partition(".")
    average = moving_average(state)
    torch.save({names[0]: state, outer: {inner: average, "decay": 0.99} if inner else average, "epoch": 1}, path)
    error = refusal(load, path)
    assert f"holds 2 sets of weights: {names[0]}, {names[1]}" in error.message
    assert f"--entry {names[0]}" in str(error.fix)
    assert same(load(path, names[0]), state)
    assert same(load(path, names[1]), average)
    assert same(load(path, outer), average)
    wrong = refusal(load, path, "emma")
    assert f"no entry 'emma': there are {names[0]}, {names[1]}" in wrong.message


def test_entry_of_a_file_without_entries(tmp_path: Path, state: State) -> None:
    for path in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        checkpoints.save_state(path, state)
        assert "holds one state dict and no entries" in refusal(load, path, "ema").message


def test_entry_through_the_whole_loader(tmp_path: Path, state: State) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    torch.save({"model": moving_average(state), "model_ema": state}, folder / "w.pth")
    whole = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "d"))
    assert checkpoints.load(folder, entry="model_ema").weights_sha256 == whole.weights_sha256
    assert checkpoints.load(folder, entry="model").weights_sha256 != whole.weights_sha256


def test_average_without_names(tmp_path: Path, state: State) -> None:
    path = tmp_path / "w.pt"
    shadow = {"decay": 0.99, "num_updates": 7, "shadow_params": list(state.values())}
    torch.save(shadow, path)
    assert "tensors without names" in refusal(load, path).message
    torch.save({"model": state, "ema": shadow}, path)
    assert "2 sets of weights: model, ema.shadow_params" in refusal(load, path).message
    assert "tensors without names" in refusal(load, path, "ema").message
    assert same(load(path, "model"), state)


def test_set_of_weights_with_something_else_in_it(tmp_path: Path, state: State) -> None:
    """It may be the one that was meant, so the other is not taken in its place."""
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {**state, "step": 3}, "ema": state}, path)
    assert "2 sets of weights" in refusal(load, path).message
    assert "1 entries (step) hold no tensor" in refusal(load, path, "state_dict").message


# -- what must never load


def test_half_wrapped_names(tmp_path: Path, state: State) -> None:
    names = list(state)
    half = {("module." if n == names[3] else "") + n: t for n, t in state.items()}
    assert "1 of" in refusal(load, checkpoints.save_state(tmp_path / "w.pt", half)).message
    double = {**state, f"_orig_mod.{names[3]}": state[names[3]]}
    assert "_orig_mod." in refusal(load, checkpoints.save_state(tmp_path / "v.pt", double)).message


TAMPERED: dict[str, tuple[Callable[[State], State], str]] = {
    "renamed": (lambda s: {n.replace("ln_post.bias", "ln_post.bais"): t for n, t in s.items()}, "1 missing"),
    "missing": (lambda s: {n: t for n, t in s.items() if n != "token_embedding.weight"}, "1 missing (token_emb"),
    "extra": (lambda s: {**s, "classifier.weight": torch.zeros(3)}, "1 unexpected (classifier.weight)"),
    "transposed": (lambda s: {**s, "visual.proj": s["visual.proj"].T.contiguous()}, "visual.proj is (24, 64)"),
    "nan": (lambda s: {**s, "visual.proj": torch.full_like(s["visual.proj"], torch.nan)}, "hold NaN"),
    "flat": (lambda s: {**s, "visual.proj": s["visual.proj"].reshape(-1)}, "wrong shapes"),
    "whole_numbers": (lambda s: {**s, "visual.proj": s["visual.proj"].to(torch.int8)}, "is int8, expected float32"),
    "bits": (lambda s: {**s, "visual.proj": s["visual.proj"] > 0}, "is bool, expected float32"),
    "float8": (lambda s: {**s, "visual.proj": s["visual.proj"].to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
    "emptied": (lambda s: {n: t[:0] if t.ndim else t.reshape(1)[:0] for n, t in s.items()}, "wrong shapes"),
    "position_ids": (lambda s: {**s, "x.position_ids": torch.zeros(1, 5, dtype=torch.int64)}, "1 unexpected"),
    "mask": (lambda s: {**s, "transformer.attn_mask": torch.zeros(4, 4)}, "1 unexpected"),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "lightning"])
@pytest.mark.parametrize("name", TAMPERED)
def test_tampered(tmp_path: Path, state: State, name: str, wrapped: bool) -> None:
    change, says = TAMPERED[name]
    tampered = change(dict(state))
    path = tmp_path / "w.pt"
    torch.save({"state_dict": prefixed("model.", tampered)} if wrapped else tampered, path)
    assert says in refusal(load, path).message


def test_constant_tables_of_older_versions_are_left_out(tmp_path: Path, state: State) -> None:
    tables = {"attn_mask": torch.full((4, 4), -torch.inf).triu(1), "x.position_ids": torch.arange(5)[None]}
    assert same(load(checkpoints.save_state(tmp_path / "w.pt", {**state, **tables})), state)


def test_values_in_other_files(tmp_path: Path, state: State) -> None:
    empty = {name: torch.empty(0) for name in state}
    assert "zero_to_fp32.py" in str(refusal(load, checkpoints.save_state(tmp_path / "w.pt", empty)).fix)


def test_weights_without_values(tmp_path: Path, state: State) -> None:
    path = tmp_path / "w.pt"
    torch.save({**state, "visual.proj": state["visual.proj"].to_sparse()}, path)
    assert "1 weights (visual.proj) are sparse" in refusal(load, path).message
    torch.save({**state, "visual.proj": state["visual.proj"].to("meta")}, path)
    assert "1 weights (visual.proj) are sparse, quantised or without values" in refusal(load, path).message


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.visual.proj.lora_A.default.weight",
        "visual.proj.lora_B.weight",
        "lora_down.weight",
        "visual.proj.hada_w1",
    ],
)
def test_adapter(tmp_path: Path, name: str) -> None:
    error = refusal(load, checkpoints.save_state(tmp_path / "w.safetensors", {name: torch.zeros(2, 2)}))
    assert "adapter" in error.message
    assert "merge" in str(error.fix)


@pytest.mark.parametrize("name", ["a.SCB", "a.qweight", "a.weight.absmax", "a.weight.quant_state.bitsandbytes__nf4"])
def test_quantised(tmp_path: Path, state: State, name: str) -> None:
    error = refusal(load, checkpoints.save_state(tmp_path / "w.safetensors", {**state, name: torch.zeros(2)}))
    assert "quantised weights" in error.message


@pytest.mark.parametrize(
    ("name", "content", "says", "fix"),
    [
        ("w.gguf", b"GGUF", "quantised", ".safetensors"),
        ("w.bin", b"GGUF\3\0\0\0", "quantised", ".safetensors"),
        ("w.npz", b"PK", "big_vision", "hf-hub:timm/"),
        ("flax_model.msgpack", b"", "Flax", "from_flax"),
        ("tf_model.h5", b"", "TensorFlow", "from_tf"),
        ("w.onnx", b"", "exported graph", "clipdeploy import"),
        ("w.pkl", b"", "pickle", ".safetensors"),
        ("__0_0.distcp", b"", "sharded", "dcp_to_torch"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer", "git lfs pull"),
        ("w.safetensors", b"<!DOCTYPE html><html>", "web page", "again"),
        ("adapter_model.safetensors", b"", "adapter", "merge"),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", b"", "DeepSpeed", "zero_to_fp32.py"),
    ],
)
def test_file_of_another_kind(tmp_path: Path, name: str, content: bytes, says: str, fix: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(load, tmp_path / name)
    assert says in error.message
    assert fix in str(error.fix)


# -- shards and folders


def write_shards(folder: Path, state: State, suffix: str) -> Path:
    """Two files and their index, as transformers writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = sorted(state)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-0000{number}-of-00002{suffix}"
        checkpoints.save_state(folder / file, {name: state[name] for name in part})
        places.update(dict.fromkeys(part, file))
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}), encoding="utf-8")
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(tmp_path: Path, state: State, suffix: str) -> None:
    index = write_shards(tmp_path, state, suffix)
    assert same(load(index), state)
    assert same(read_state(tmp_path).state, state)
    next(tmp_path.glob(f"*-00001-of-*{suffix}")).unlink()
    assert "names 2 files, of which 1 are missing" in refusal(load, index).message


@pytest.mark.parametrize("change", ["gone", "added", "moved"])
def test_shards_that_the_index_does_not_tell(tmp_path: Path, state: State, change: str) -> None:
    index = write_shards(tmp_path, state, ".safetensors")
    content = json.loads(index.read_text(encoding="utf-8"))
    places = content["weight_map"]
    name = next(iter(places))
    if change == "gone":
        del places[name]
    elif change == "added":
        places["another.weight"] = places[name]
    else:
        places[name] = next(place for place in places.values() if place != places[name])
    index.write_text(json.dumps(content), encoding="utf-8")
    assert "disagree about 1 tensors" in refusal(load, index).message


@pytest.mark.parametrize("place", ["../w.safetensors", "/etc/w.safetensors", "w.txt", 3, "a.safetensors.index.json"])
def test_index_that_leads_elsewhere(tmp_path: Path, place: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": place}}), encoding="utf-8")
    assert f"names {place!r}, which is no weights file beside it" in refusal(load, index).message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}'])
def test_broken_index(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text, encoding="utf-8")
    assert "index.json" in refusal(load, index).message


def test_folder_takes_the_usual_name_then_the_only_file(tmp_path: Path, state: State) -> None:
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth", "scheduler.pt"):
        torch.save({}, tmp_path / name)
    assert "found: none" in refusal(read_state, tmp_path).message
    checkpoints.save_state(tmp_path / "best.pt", state)
    assert find_weights(tmp_path, TRANSFORMERS).name == "best.pt"
    checkpoints.save_state(tmp_path / "last.pt", state)
    assert "found: best.pt, last.pt" in refusal(read_state, tmp_path).message
    checkpoints.save_state(tmp_path / "pytorch_model.bin", state)
    assert find_weights(tmp_path, TRANSFORMERS).name == "pytorch_model.bin"
    checkpoints.save_state(tmp_path / "model.safetensors", state)
    assert find_weights(tmp_path, TRANSFORMERS).name == "model.safetensors"
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "adapter" in refusal(read_state, tmp_path).message


@pytest.mark.parametrize(
    ("file", "says", "fix"),
    [
        ("global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt", "DeepSpeed", "zero_to_fp32.py"),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "DeepSpeed", "zero_to_fp32.py"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "FSDP", "dcp_to_torch"),
        ("__0_0.distcp", "FSDP", "dcp_to_torch"),
        ("flax_model.msgpack", "Flax", "from_flax"),
    ],
)
def test_folder_in_parts(tmp_path: Path, file: str, says: str, fix: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    error = refusal(read_state, tmp_path)
    assert says in error.message
    assert fix in str(error.fix)


# -- memory

MIB = 2**20


def own_memory(kind: str = "RssAnon") -> int:
    """Bytes of this process in memory: that no file holds (RssAnon), or of mapped files (RssFile)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("how much of the memory is mapped is only told by Linux")
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "archive.pt"])
def test_reading_maps_the_file(tmp_path: Path, name: str) -> None:
    """A file of 64 MiB takes no 64 MiB of memory."""
    values = torch.zeros(16 * MIB)
    if name == "archive.pt":
        model = torch.nn.Module()
        model.register_buffer("a", values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated; the archives it made are not
            torch.jit.script(model).save(str(tmp_path / name))
    elif name == "w.pt":
        torch.save({"a": values}, tmp_path / name)
    else:
        save_file({"a": values}, tmp_path / name)
    del values
    before = own_memory()
    weights = read_weights(tmp_path / name)
    assert own_memory() - before < 16 * MIB
    assert weights.state["a"].nbytes == 64 * MIB
    assert not weights.state["a"].any()


def test_values_outlive_that_their_memory_is_given_back(tmp_path: Path) -> None:
    """Two names of one tensor are both read, whatever became of its pages in between."""
    values = torch.arange(MIB, dtype=torch.float32)
    for path in (tmp_path / "w.pt", tmp_path / "legacy.pt", tmp_path / "w.safetensors"):
        if path.suffix == ".pt":
            torch.save({"a": values, "b": values}, path, _use_new_zipfile_serialization=path.stem == "w")
        else:
            save_file({"a": values, "b": values.clone()}, path)
        model = torch.nn.Module()
        model.register_buffer("a", torch.zeros(MIB))
        model.register_buffer("b", torch.zeros(MIB))
        weights = read_weights(path)
        load_weights(model, weights, label="x")
        for tensor in (*model.state_dict().values(), *weights.state.values()):
            assert torch.equal(tensor, values)


def test_loading_gives_the_file_back(tmp_path: Path) -> None:
    """At the end of 64 MiB of weights, the file's pages do not stand in memory beside the model's."""
    names = [f"part{number}" for number in range(16)]
    save_file({name: torch.full((MIB,), 1.0) for name in names}, tmp_path / "w.safetensors")
    model = torch.nn.Module()
    for name in names:
        model.register_buffer(name, torch.zeros(MIB))
    weights = read_weights(tmp_path / "w.safetensors")
    before = own_memory("RssFile")
    load_weights(model, weights, label="x")
    assert own_memory("RssFile") - before < 16 * MIB
    assert all(bool((tensor == 1).all()) for tensor in model.state_dict().values())
