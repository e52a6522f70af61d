"""TensorRT engines for a bundle: each built, looked at, and kept under the key of what it is tied to.

Importing this room needs the extra `engine`, and says so when it is not there; the product that builds is asked for
when it builds.
"""

from __future__ import annotations

from importlib.util import find_spec

from clipdeploy.errors import MissingExtraError

for _module, _library in {"onnx": "onnx", "onnx_ir": "onnx-ir"}.items():
    if find_spec(_module) is None:
        raise MissingExtraError(_library, extra="engine", needed_for="building engines")
