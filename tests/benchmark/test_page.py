"""The benchmark as one page: well-formed, whole, without scripts, and the figures are those of the result."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clipdeploy.benchmark.page import render, write_html
from clipdeploy.benchmark.records import Absent, BenchResult
from tests.benchmark.figures import CANDIDATES, candidate, result
from tests.benchmark.test_report import BOARD, LONG


def parsed(made: BenchResult) -> ElementTree.Element:
    return ElementTree.fromstring(render(made).removeprefix("<!DOCTYPE html>\n"))


def headings(root: ElementTree.Element) -> list[str]:
    return [found.text or "" for found in root.iter("h2")]


def charts(root: ElementTree.Element) -> dict[str, str]:
    """Title -> what is read out of it."""
    told = [svg.attrib["aria-label"] for svg in root.iter("svg")]
    return {text.split(". ")[0]: text for text in told}


def test_the_page_has_all_of_it() -> None:
    root = parsed(result(board=BOARD))
    assert headings(root) == [
        "Fastest",
        "Image encoder",
        "One picture from file to label",
        "Text encoder",
        "Cold start",
        "Memory of the process",
        "The board meanwhile",
        "Power by rail",
        "Not measured",
        "Machine and conditions",
    ]
    drawn = charts(root)
    assert "openvino int8 8.6 ms" not in drawn["Time by batch"]
    assert "openvino int8 30.3 ms: decode 8 ms, resize 13.5 ms" in drawn["One picture, stage by stage"]
    assert "openvino int8, batch 1 17.9 W" in drawn["Power"]
    assert "first picture 0.31 s" in drawn["A fresh process to its first answers"]
    tips = [tip.text for tip in root.iter("title")]
    assert "openvino int8: batch 32, 195 ms" in tips
    assert "openvino int8: batch 32, 164" in tips


def test_the_tables_are_those_of_the_terminal() -> None:
    root = parsed(result())
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    assert ["openvino int8", "1", "8.60", "9.03", "10.3", "8.34", "116", "2 %"] in rows
    assert ["onnxruntime bf16, fp8", "onnxruntime on a CPU does not compute in bf16"] in rows


def test_it_is_one_file_without_scripts() -> None:
    text = render(result(board=BOARD))
    assert not re.search(r"<script|<link|<iframe|https?:|url\(|@import|\son\w+=", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_names_are_escaped() -> None:
    bad = Absent("tensorrt", "fp8", "<script>alert(1)</script>")
    text = render(result(absent=[bad]))
    assert "&lt;script&gt;" in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        (result([candidate("openvino", "fp32", 9.0, images=False)]), "Image encoder"),
        (result(absent=[]), "Not measured"),
        (result(), "The board meanwhile"),
    ],
)
def test_what_there_is_not_is_left_out(made: BenchResult, missing: str) -> None:
    assert missing not in headings(parsed(made))


def test_one_batch_is_shown_as_bars() -> None:
    drawn = charts(parsed(result([candidate("openvino", "fp32", 9.0, batches=(1,))])))
    assert drawn["Time of one run: one picture"].endswith("openvino fp32 9 ms")
    assert "Time by batch" not in drawn


def test_many_candidates_keep_their_colours_apart() -> None:
    many = (
        *CANDIDATES,
        *LONG,
        *(candidate("openvino:gpu", precision, 5.0) for precision in ("fp32", "fp16", "int8", "bf16")),
    )
    root = parsed(result(many))
    dashed = [path for path in root.iter("path") if "dashed" in path.attrib.get("class", "")]
    assert len(dashed) == 2 * 2 * 2  # the ninth and tenth: image and text, time and rate


def test_conditions_are_told_in_words() -> None:
    root = parsed(result())
    facts = {
        "".join(pair[0].itertext()): "".join(pair[1].itertext())
        for found in root.iter("dl")
        for pair in found.iter("div")
    }
    assert facts["processor"] == "name: A Processor; features: avx2; cores: 4; virtual: no"
    assert facts["batches"] == "1, 8, 32"
    assert "jetson" not in facts  # which is not known


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_html(result(), tmp_path / "bench.html")
    assert (tmp_path / "bench.html").read_text(encoding="utf-8") == render(result())
    assert [path.name for path in tmp_path.iterdir()] == ["bench.html"]
