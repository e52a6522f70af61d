"""The public face: what it names, what it costs to import, and what it never touches."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clipdeploy
from clipdeploy import errors

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "onnxsim", "open_clip", "transformers", "click", "onnxruntime")

# A finder that refuses the heavy packages, as if they were not installed.
BLOCK = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("refused: " + name, name=name)
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter in which every warning is an error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_names_what_is_public() -> None:
    at_hand = {
        name
        for name, value in vars(clipdeploy).items()
        if not name.startswith("_") and not inspect.ismodule(value) and getattr(value, "__module__", "") != "typing"
    } - {"annotations", "TYPE_CHECKING"}
    assert at_hand <= set(clipdeploy.__all__)
    assert all(hasattr(clipdeploy, name) for name in clipdeploy.__all__)
    assert len(set(clipdeploy.__all__)) == len(clipdeploy.__all__)


def test_what_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        clipdeploy.lod  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_is_public() -> None:
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert tree <= set(clipdeploy.__all__)
    assert all(issubclass(getattr(clipdeploy, name), clipdeploy.ClipdeployError) for name in tree)


def test_every_public_name_is_documented() -> None:
    for name in clipdeploy.__all__:
        value = getattr(clipdeploy, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_the_version_is_the_packages() -> None:
    (said,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert clipdeploy.__version__ == said


def test_importing_touches_nothing_heavy() -> None:
    code = (
        "import json, sys, clipdeploy; clipdeploy.load;"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    assert not set(json.loads(python(code))) & {*HEAVY, "tokenizers", "ftfy"}


def test_every_module_of_the_runtime_imports_without_them() -> None:
    code = BLOCK + (
        "import importlib, pkgutil, clipdeploy.runtime\n"
        "names = [m.name for m in pkgutil.iter_modules(clipdeploy.runtime.__path__, 'clipdeploy.runtime.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))"
    )
    assert int(python(code)) >= 9


def test_a_picture_is_classified_without_them(tmp_path: Path) -> None:
    """PyTorch, ONNX, open_clip and click refused; only the engine is let through."""
    pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
    pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")
    from tests.bundles import make_bundle

    bundle = make_bundle(tmp_path / "bundle")
    code = BLOCK.replace(", 'onnxruntime'", "") + (
        "import numpy, clipdeploy\n"
        "clip = clipdeploy.load(sys.argv[1])\n"
        "print(clip.classify(numpy.zeros((50, 40, 3), 'uint8'), ['a dog', 'a cat'], template='openai').label)\n"
        f"assert not set(sys.modules) & set({HEAVY!r}) - {{'onnxruntime'}}"
    )
    assert python(code, str(bundle)).strip() in {"a dog", "a cat"}
