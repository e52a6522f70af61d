"""Checkpoint to ONNX. Importing this room needs the extra `export`, and says so when it is not there."""

from __future__ import annotations

from importlib.util import find_spec

from clipdeploy.errors import MissingExtraError

_LIBRARIES = {
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "open_clip": "open_clip",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxsim": "onnxsim",
}

# An engine checks the graphs; whoever has one, of whatever extra, must not be given a second that overwrites it.
_EXTRA = "export" if find_spec("onnxruntime") else "export,cpu"

for _module, _library in _LIBRARIES.items():
    if find_spec(_module) is None:
        raise MissingExtraError(_library, extra=_EXTRA, needed_for="reading and exporting a checkpoint")
