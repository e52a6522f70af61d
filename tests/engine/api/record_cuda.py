"""Record what cuda-python offers of the CUDA runtime; its module is imported without a GPU or a driver.

pip install cuda-python==12.6.2.post1
python -m tests.engine.api.record_cuda 12.6.2.post1 tests/engine/api/cuda-12.6.2.json
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FUNCTIONS = re.compile(
    r"cuda(Malloc|Free|Mem(cpy|set|GetInfo)|Stream|Event|Host|Get(Device|Error|Last)|SetDevice|DriverGet|RuntimeGet|"
    r"PointerGet|Graph(Instantiate|Launch|Destroy|ExecDestroy))\w*$"
)
CONSTANTS = re.compile(r"cuda(Stream|Event|Host|Mem)")
ENUMS = ("cudaError_t", "cudaMemcpyKind", "cudaMemoryType", "cudaStreamCaptureMode")
FIELDS = {
    "cudaDeviceProp": ("name", "major", "minor", "totalGlobalMem", "multiProcessorCount", "integrated"),
    "cudaPointerAttributes": ("type", "device"),
}


def main(version: str, target: str) -> None:
    """Write the installed cuda-python's record."""
    Path(target).write_text(
        json.dumps(recorded(importlib.import_module("cuda.bindings.runtime"), version), indent=1) + "\n"
    )


def recorded(module: ModuleType, version: str) -> dict[str, Any]:
    """Functions with the names of their arguments, and the members of the enumerations."""
    names = [name for name in dir(module) if FUNCTIONS.match(name) and callable(getattr(module, name))]
    return {
        "version": version,
        "source": f"the package cuda-python {version}",
        "functions": {name: _arguments(getattr(module, name)) for name in names if _is_function(getattr(module, name))},
        "constants": [name for name in dir(module) if isinstance(getattr(module, name), int) and CONSTANTS.match(name)],
        "enums": {name: sorted(getattr(module, name).__members__) for name in ENUMS},
        "fields": {name: [f for f in told if hasattr(getattr(module, name), f)] for name, told in FIELDS.items()},
    }


def _is_function(value: Any) -> bool:
    return not isinstance(value, type)


def _arguments(function: Any) -> str:
    return " ".join(inspect.signature(function).parameters)


if __name__ == "__main__":
    main(*sys.argv[1:])
