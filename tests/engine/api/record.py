"""Record the Python API of TensorRT, or of TensorRT for RTX, from NVIDIA's own bindings: no GPU, no libraries.

    pip download --no-deps --only-binary :all: tensorrt-cu12-bindings==10.3.0
    python -m tests.engine.api.record tensorrt_cu12_bindings-10.3.0-*.whl tests/engine/api/tensorrt-10.3.0.json
    python -m tests.engine.api.record tensorrt_rtx tests/engine/api/tensorrt_rtx-1.7.1.json     (an installed package)

A bindings wheel holds the compiled Python module and no library of TensorRT; what it asks of them when it is imported
is a handful of functions, for which empty libraries are compiled here (needs a C compiler, and the Python that the
wheel is for). What the module then says of itself is what is recorded: names, arguments, types, enumerations. Nothing
of its documentation is kept.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.engine.api import split

# What the compiled module calls in TensorRT's libraries; here each answers nothing.
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# No use to a tool that parses an ONNX file: single layers and their settings, plugins, calibration of 10.x.
LEFT_OUT = re.compile(
    r"\w*(Layer|Operation|Mode|Type|Limit|Boundary|ActType|Kind|Op|IOForm|Attention|MoE)$|Plugin|.*Plugin"
    r"|.*(Algorithm|Calibrat|Expr|Dims[HE]|Indices|Fallback|KernelLaunch|Permutation|Loop|IIf|BoundingBox)"
    r"|add_|get_\w*plugin|TensorRTPhase"
)
KEPT = {"ILayer", "IConstantLayer", "DataType", "LayerType", "MemoryPoolType", "DeviceType", "TensorIOMode"}
KEPT |= {"add_input", "add_constant", "add_optimization_profile"}
ENUM_OWN = ("name", "value", "__doc__", "__members__")
# Names that the versions of pybind11, or C++ and Python, have for one thing
SAME = {"SupportsInt": "int", "SupportsFloat": "float", "Buffer": "buffer", "CapsuleType": "capsule", "List": "list"}
SAME |= {"Tuple": "tuple", "Sequence": "list", "IParserError": "ParserError", "IBuilder": "Builder"}
SIGNATURE = re.compile(r"^(?:\d+\. )?(\w*)\((.*)\)(?: -> (.+))?$")


def main(source: str, target: str) -> None:
    """Record `source`, a bindings wheel or the name of an installed package, as the JSON file `target`."""
    if source.endswith(".whl"):
        text = _from_wheel(Path(source))
    else:
        text = dumps(recorded(importlib.import_module(source), f"the installed package {source}"))
    Path(target).write_text(text)


def _from_wheel(wheel: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        package = next(p for p in Path(folder).iterdir() if p.name.endswith("_bindings"))
        compiled = next(package.glob("tensorrt*.so")).read_bytes()
        stub = Path(folder, "stub.c")
        stub.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for library in sorted(set(re.findall(rb"libnv\w+\.so\.\d+|libtensorrt\w+\.so[.\d]*", compiled))):
            subprocess.run(["cc", "-shared", "-fPIC", "-o", Path(folder, library.decode()), stub], check=True)
        env = {**os.environ, "LD_LIBRARY_PATH": folder, "PYTHONPATH": os.pathsep.join([folder, str(Path.cwd())])}
        code = (
            "import importlib, sys; from tests.engine.api.record import recorded, dumps; "
            "sys.stdout.write(dumps(recorded(importlib.import_module(sys.argv[1]), sys.argv[2])))"
        )
        command = [sys.executable, "-c", code, package.name, f"the wheel {wheel.name}"]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def recorded(module: ModuleType, source: str) -> dict[str, Any]:
    """What `module` offers: classes, enumerations, functions and constants."""
    classes: dict[str, Any] = {}
    functions: dict[str, list[str]] = {}
    constants: dict[str, str] = {}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or isinstance(value, ModuleType) or name in ("common_enter", "common_exit"):
            continue
        if isinstance(value, type):
            if value.__module__.startswith("tensorrt") and _useful(name):
                _add_class(classes, name, value)
        elif callable(value):
            if _useful(name):
                functions[name] = signatures(value, bound=False)
        elif _is_enum(type(value)) and name != "value":  # a loop variable that NVIDIA's module leaves behind
            constants[name] = f"{type(value).__qualname__}.{value.name}"
    return {
        "version": module.__version__,
        "source": source,
        "constants": constants,
        "functions": functions,
        "classes": classes,
    }


def _useful(name: str) -> bool:
    return name in KEPT or not LEFT_OUT.match(name)


def _add_class(classes: dict[str, Any], name: str, kind: type) -> None:
    if _is_enum(kind):
        members = kind.__members__  # type: ignore[attr-defined]
        extra = sorted(k for k, v in vars(kind).items() if isinstance(v, property) and k not in ENUM_OWN)
        classes[name] = {"members": {k: int(v) for k, v in members.items()}, **({"properties": extra} if extra else {})}
        return
    entry: dict[str, Any] = {
        "bases": [base.__qualname__ for base in kind.__bases__ if base.__module__.startswith("tensorrt")],
        "methods": {},
        "properties": {},
        "constants": {},
    }
    for member, value in sorted(vars(kind).items()):
        if not _useful(member):
            continue
        if isinstance(value, type):
            _add_class(classes, f"{name}.{member}", value)
        elif isinstance(value, property):
            told = SIGNATURE.match(_first_line(value.fget))
            answer = _type(told.group(3) or "Any") if told else "Any"
            entry["properties"][member] = answer + (" (writable)" if value.fset else "")
        elif isinstance(value, staticmethod):
            entry["methods"][member] = ["static " + text for text in signatures(value.__func__, bound=False)]
        elif member == "__init__" or (not member.startswith("_") and callable(value)):
            entry["methods"][member] = signatures(value, bound=True)
        elif member in ("__getitem__", "__len__", "__iter__", "__buffer__", "__enter__", "__exit__"):
            entry["methods"][member] = ["(...)"]
        elif type(value).__module__.startswith("tensorrt"):
            entry["constants"][member] = f"{type(value).__qualname__}.{value.name}"
    classes[name] = entry


def _is_enum(kind: type) -> bool:
    return hasattr(kind, "__members__")


def _first_line(function: Any) -> str:
    return (getattr(function, "__doc__", "") or "").strip().split("\n")[0].strip()


def signatures(function: Any, *, bound: bool) -> list[str]:
    """Every way to call it, as `(network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory`.

    A name `argN` is one the module does not tell: such an argument takes no keyword.
    """
    lines = (getattr(function, "__doc__", "") or "").strip().split("\n")
    if len(lines) > 1 and lines[1].strip() == "Overloaded function.":
        found = [line.strip() for line in lines if re.match(r"^\s*\d+\. \w+\(.*\)", line)]
    else:
        found = [lines[0].strip()]
    matches = [match for line in found if (match := SIGNATURE.match(line))]
    if not matches:  # a function in Python; NVIDIA's few take positional arguments only
        code = getattr(function, "__code__", None)
        names = code.co_varnames[: code.co_argcount] if code else ("...",)
        return [f"({', '.join(names[1:] if bound else names)})"]
    return [_shown(match.group(2), match.group(3), bound) for match in matches]


def _shown(arguments: str, answer: str | None, bound: bool) -> str:
    parts = [_argument(text) for text in split(arguments)]
    return f"({', '.join(parts[1:] if bound else parts)}) -> {_type(answer or 'Any')}"


def _argument(text: str) -> str:
    name, _, rest = text.partition(":")
    kind, _, default = rest.partition("=")
    if not rest:
        return text.strip()
    return f"{name.strip()}: {_type(kind)}" + (f" = {_default(default.strip())}" if default else "")


def _default(text: str) -> str:
    enum = re.match(r"<(?:\w+\.)*(\w+)\.(\w+): -?\d+>", text)
    return f"{enum.group(1)}.{enum.group(2)}" if enum else re.sub(r" object at 0x\w+", "", text)


def _type(text: str) -> str:
    text = re.sub(r"\b(?:tensorrt\w*|typing|typing_extensions|collections\.abc)\.(?:tensorrt\w*\.)?", "", text.strip())
    text = re.sub(r"\b(?:nvinfer1|nvonnxparser)::(?:v_\d_\d::)?", "", text)
    return re.sub(r"\w+", lambda word: SAME.get(word.group(), word.group()), text)


def dumps(record: dict[str, Any]) -> str:
    """As JSON, one line a name, so that two versions can be compared with `diff`."""
    text = json.dumps(record, indent=1)
    text = re.sub(r"\[\n\s+(\"[^\n]*\")\n\s+\]", r"[\1]", text)
    members = re.compile(r"\{(\n\s+\"\w+\": -?\d+,?)+\n\s+\}")
    return members.sub(lambda match: re.sub(r"\s*\n\s*", " ", match.group()), text) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
