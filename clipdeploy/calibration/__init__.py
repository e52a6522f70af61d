"""From a float32 graph and samples to a typed graph: FP16, BF16, INT8, FP8, inside an accuracy budget.

Importing this room needs the extra `quantize` and ONNX Runtime, and says so when they are not there.
"""

from __future__ import annotations

from importlib.util import find_spec

from clipdeploy.errors import MissingExtraError

# An engine measures the graphs; whoever has one must not be given a second that overwrites it.
_EXTRA = "quantize" if find_spec("onnxruntime") else "quantize,cpu"

for _module, _library in {"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxruntime": "ONNX Runtime"}.items():
    if find_spec(_module) is None:
        raise MissingExtraError(_library, extra=_EXTRA, needed_for="making and measuring typed graphs")
