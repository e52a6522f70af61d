"""`docs/engines.md` names commands, options, rows and lines that exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

pytest.importorskip("onnx", reason="the builder's options are read with it")
pytest.importorskip("onnx_ir", reason="the table of known bad versions is read with it")

import onnx

from clipdeploy.cli.root import root
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine.targets.known_bad import KNOWN_BAD
from clipdeploy.engine.trtexec import trtexec_line
from clipdeploy.engine_key import EngineBackend, Profile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/engines.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)
COMMANDS = [line for line in LINES if line.startswith("clipdeploy ")] + re.findall(r"`(clipdeploy [^`]+ -[^`]*)`", PAGE)
TOOLS = [line for line in LINES if line.startswith(("trtexec ", "tensorrt_rtx "))]


def test_there_are_recipes() -> None:
    assert len(COMMANDS) > 8
    assert len(TOOLS) == 2
    for title in ("Jetson Orin, JetPack 6", "Jetson Thor, JetPack 7", "Servers", "RTX desktops"):
        assert f"## {title}\n" in PAGE


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_has_these_options(line: str) -> None:
    _, verb, *words = shlex.split(line)
    command = root.get_command(click.Context(root), verb)
    assert command is not None, verb
    if words:  # parsed as it would be, with nothing run; the bundle need not be there
        options = {option: parameter for parameter in command.params for option in parameter.opts}
        named = [word for word in words if word.startswith("--")]
        assert set(named) <= set(options), line
        for word, value in pairwise(words):
            if word in options and isinstance(options[word].type, click.Choice):
                assert value in options[word].type.choices, line


@pytest.mark.parametrize("extras", sorted(set(re.findall(r"clipdeploy\[([\w,-]+)\]", PAGE))))
def test_an_extra_exists(extras: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras.split(","):
        assert f"\n{extra} = [" in project


def test_the_lines_of_the_tools(tmp_path: Path) -> None:
    graph = tmp_path / "visual_fp16.onnx"
    picture = onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
    answer = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
    node = onnx.helper.make_node("Identity", ["pixel_values"], ["out"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [picture], [answer])), graph)
    orin = BuildOptions(profiles=(Profile(1, 1, 1), Profile(2, 8, 16)), timing_cache=Path("b32.timing"))
    rtx = BuildOptions(compute_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"))
    asked: tuple[tuple[BuildOptions, EngineBackend, str], ...] = (
        (orin, "tensorrt", "10.3.0"),
        (rtx, "tensorrt-rtx", "1.7.1.116"),
    )
    for line, (options, backend, version) in zip(TOOLS, asked, strict=True):
        made = trtexec_line(graph, Path("engine.plan"), options, Product(backend, None, version))
        assert line == made.replace(str(graph), "b32/visual_fp16.onnx")


def test_every_row_of_the_table_is_there() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (rewrite|refuse|warn) \|.*$", PAGE, re.MULTILINE)
    assert rows == [(row.name, row.remedy) for row in KNOWN_BAD]
    for row in KNOWN_BAD:
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row.name}` |"))
        assert all(thread in line for thread in row.threads), row.name


def test_the_table_of_builds_is_that_of_the_committed_result() -> None:
    from bench.engine_builds import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page
