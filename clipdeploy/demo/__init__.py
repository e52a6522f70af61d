"""A world of rendered shapes, and two small CLIPs trained on it that ship with the package.

Everything here works without a network. Rendering needs numpy and Pillow only; training and scoring need torch and
open_clip, and are reached as `python -m clipdeploy.demo.train` and `python -m clipdeploy.demo.score`.
"""

from __future__ import annotations

from pathlib import Path

from clipdeploy.demo.captions import TEMPLATE
from clipdeploy.demo.dataset import class_names, write_captions, write_images
from clipdeploy.demo.paint import render
from clipdeploy.demo.video import video, write_video
from clipdeploy.demo.world import COLOURS, HELD_OUT, PAIRS, SEEN, SHAPES, Scene, sample_scene, single_scene
from clipdeploy.errors import CheckpointError, InputError

__all__ = [
    "COLOURS",
    "DEFAULT_MODEL",
    "HELD_OUT",
    "MODELS",
    "PAIRS",
    "SEEN",
    "SHAPES",
    "TEMPLATE",
    "Scene",
    "class_names",
    "model_path",
    "render",
    "sample_scene",
    "single_scene",
    "video",
    "write_captions",
    "write_images",
    "write_video",
]

MODELS = {"rn": "clipdeploy-demo-rn", "vit": "clipdeploy-demo-vit"}
DEFAULT_MODEL = "rn"


def model_path(name: str = DEFAULT_MODEL) -> Path:
    """The folder of a shipped model, "rn" or "vit", as open_clip's `local-dir:` takes it.

    Raises:
        InputError: there is no model of that name. CheckpointError: it was not installed.
    """
    if name not in MODELS:
        raise InputError(f"unknown demo model {name!r}", fix=f"use one of {', '.join(MODELS)}")
    folder = Path(__file__).parent / "models" / MODELS[name]
    if not (folder / "open_clip_model.safetensors").is_file():
        raise CheckpointError(
            f"the weights of the demo model are missing from {folder}",
            fix=f"reinstall clipdeploy, or train it: python -m clipdeploy.demo.train --variant {name} --out {folder}",
        )
    return folder
