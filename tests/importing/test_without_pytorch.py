"""The room works where PyTorch, open_clip and transformers are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[import,cpu]'")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

from tests.importing import graphs

_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {%s}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run(blocked: str, code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process that cannot import `blocked`."""
    names = ", ".join(repr(name) for name in blocked.split())
    return subprocess.run(
        [sys.executable, "-c", _BLOCK % names + code], capture_output=True, text=True, check=False, timeout=300
    )


def command(folder: Path, output: Path) -> str:
    words = ["import", str(folder), "-o", str(output), "--preprocessing", "openai", "--cleaning", "lower"]
    words += ["--pad-id", str(graphs.PAD), "--logit-scale", "50"]
    return f"sys.argv[1:] = {words!r}\nfrom clipdeploy.cli import main\nmain()"


def test_importing_needs_no_pytorch(tmp_path: Path) -> None:
    graphs.write(tmp_path / "given")
    done = run("torch torchvision open_clip transformers onnxscript", command(tmp_path / "given", tmp_path / "bundle"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle/manifest.json").is_file()


@pytest.mark.parametrize(("library", "extra"), [("onnx", "import"), ("onnxruntime", "cpu"), ("tokenizers", "import")])
def test_a_missing_library_is_named(tmp_path: Path, library: str, extra: str) -> None:
    graphs.write(tmp_path / "given")
    done = run(library, command(tmp_path / "given", tmp_path / "bundle"))
    assert done.returncode == 1
    assert f"pip install 'clipdeploy[{extra}]'" in done.stderr
    assert not (tmp_path / "bundle").exists()
