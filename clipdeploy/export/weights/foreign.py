"""Files that are recognised and cannot be used as they are: each is refused with the step that makes them usable."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from clipdeploy.errors import CheckpointError

_KINDS = {
    ".gguf": ("quantised weights of llama.cpp", "get the checkpoint they were made from, as .safetensors"),
    ".ggml": ("quantised weights of llama.cpp", "get the checkpoint they were made from, as .safetensors"),
    ".npz": (
        "weights of big_vision (JAX)",
        "use the same model converted for open_clip, such as hf-hub:timm/ViT-B-16-SigLIP",
    ),
    ".msgpack": ("weights of Flax", "save them once for PyTorch: from_pretrained(FOLDER, from_flax=True)"),
    ".h5": ("weights of TensorFlow", "save them once for PyTorch: from_pretrained(FOLDER, from_tf=True)"),
    ".onnx": ("an exported graph", "give the checkpoint it was made from, or read the graph: clipdeploy import FOLDER"),
    ".engine": ("a TensorRT engine", "give the checkpoint it was made from"),
    ".plan": ("a TensorRT engine", "give the checkpoint it was made from"),
    ".pkl": ("a pickle, which could run code", "get the weights as .safetensors"),
    ".distcp": (
        "one part of a sharded PyTorch checkpoint",
        "join the parts: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    ),
}
_ADAPTER = re.compile(r"(^|\.)(lora_(A|B|down|up|embedding_[AB])|hada_w\d|lokr_w\d|oft_[rs]|ia3_l)(\.|$)|^base_model\.")
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|weight_format|absmax|quant_map|quant_state\.\w+|weight_scale_inv|_packed_params.*)$"
)
_MERGE = (
    "merge it into its base model first: model.merge_and_unload() of peft, then save_pretrained(FOLDER) and give that"
)


def check_file(path: Path) -> None:
    """Raise CheckpointError for a file whose name or first bytes say that it holds no weights to be used."""
    kind = _KINDS.get(path.suffix.lower())
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(b"GGUF"):
        kind = _KINDS[".gguf"]
    if kind is not None:
        raise CheckpointError(f"{path} is {kind[0]}, which is not read", fix=kind[1])
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a pointer of Git LFS, not the weights themselves", fix="fetch them: git lfs pull"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights", fix="download the file itself, again")
    if path.name.startswith("adapter_model."):
        raise CheckpointError(f"{path} is an adapter (LoRA or a kin), not a model", fix=_MERGE)
    if path.name.endswith("_optim_states.pt") or re.match(r"zero_pp_rank_\d+_", path.name):
        raise _deepspeed(path.parent)


def check_adapter(folder: Path) -> None:
    """Raise CheckpointError for a folder with an adapter: alone it is no model, and beside one it changes it."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"folder {folder} holds an adapter (LoRA or a kin)", fix=_MERGE)


def check_parts(folder: Path) -> None:
    """Raise CheckpointError for a folder that a training framework wrote in parts."""
    for part in (folder, *folder.glob("global_step*")):
        if any(part.glob("*_optim_states.pt")) or any(part.glob("zero_pp_rank_*")):
            raise _deepspeed(folder)
    if (folder / "zero_to_fp32.py").is_file() and (folder / "latest").is_file():
        raise _deepspeed(folder)
    for part in (folder, *folder.glob("pytorch_model_fsdp_*")):
        if any(part.glob("*.distcp")):
            raise CheckpointError(
                f"folder {part} holds a sharded PyTorch (FSDP) checkpoint, whose parts are of no use alone",
                fix=f"join them: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {part} model.pt, "
                "and give model.pt",
            )


def check_names(names: Iterable[str], path: Path) -> None:
    """Raise CheckpointError when the names of a state dict are those of an adapter or of quantised weights."""
    for name in names:
        if _ADAPTER.search(name):
            raise CheckpointError(f"{path} holds an adapter (LoRA or a kin): {name}", fix=_MERGE)
        if _QUANTISED.search(name):
            raise CheckpointError(
                f"{path} holds quantised weights ({name}), whose exact values are lost",
                fix="give the checkpoint they were made from, in float32, float16 or bfloat16; quantise after export",
            )


def _deepspeed(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"folder {folder} holds a DeepSpeed checkpoint in parts",
        fix=f"join them with the script that DeepSpeed put there: python {folder / 'zero_to_fp32.py'} {folder} OUTPUT, "
        "and give what it writes",
    )
