"""The report as table, JSON and page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError, OutputError
from clipdeploy.pages.markup import el, shown
from clipdeploy.verify import (
    STAGES,
    CheckpointReference,
    GoldenReference,
    ParityReport,
    from_json,
    rows,
    text_table,
    to_json,
    verify,
    write_html,
)
from clipdeploy.verify.records import Check
from clipdeploy.verify.report import number
from tests.verify.conftest import as_any
from tests.verify.fakes import FakeCheckpoint, FakeClip, see

NASTY = ("<script>alert(1)</script>", "\"quoted\" & 'cut'", "\x1b[31mred\x00", "", "lone \ud800 half", "東京 🗼")


@pytest.fixture
def good(bundle: Bundle, golden: GoldenReference) -> ParityReport:
    return verify(bundle, reference=golden, clip=as_any(FakeClip()))


@pytest.fixture
def bad(bundle: Bundle, golden: GoldenReference) -> ParityReport:
    def images(pixels: np.ndarray) -> np.ndarray:
        embeds = see(pixels)
        embeds[0] = np.nan
        return embeds

    return verify(bundle, reference=golden, clip=as_any(FakeClip(crops=lambda c: c ^ 1, images=images)))


@pytest.fixture
def nasty(good: ParityReport) -> ParityReport:
    """A report whose names are an attack on whoever shows them."""
    stages = []
    for stage in good.stages:
        names = NASTY * (len(stage.samples) // len(NASTY) + 1)
        samples = tuple(replace(s, name=n, note=n) for s, n in zip(stage.samples, names, strict=False))
        stages.append(replace(stage, samples=samples, notes=NASTY))
    pictures = tuple(replace(p, name=n) for p, n in zip(good.pictures, NASTY * 2, strict=False))
    texts = tuple((NASTY * 3)[: len(good.texts)])
    return replace(
        good, bundle=NASTY[0], model=NASTY[0], backend=NASTY[1], stages=tuple(stages), pictures=pictures, texts=texts
    )


def test_the_table_of_a_good_bundle(good: ParityReport) -> None:
    table = text_table(good)
    assert table.endswith("PASS: all 6 stages hold\n")
    assert "FAIL" not in table
    assert table.count(" pass ") == 6
    assert "golden samples in the bundle" in table
    assert "10 pictures, 21 texts" in table
    assert max(map(len, table.splitlines())) < 120


def test_the_columns_are_aligned(good: ParityReport) -> None:
    lines = text_table(good).split("\n\n")[1].splitlines()
    place = lines[0].index("gate")
    assert all(line[place : place + 2] in ("<=", ">=") for line in lines[2:])
    assert {line[place - 1] for line in lines} <= {" "}


def test_the_table_of_a_bad_bundle(bad: ParityReport) -> None:
    table = text_table(bad)
    assert "FAIL: first drift: pixels (4 of 6 stages fail)" in table
    assert "not finite" in table
    for line in ("pixels: worst is", "image tower: worst is 'lighthouse.png'", "likely: ", "fix: "):
        assert line in table


def test_rows_are_structured(bad: ParityReport) -> None:
    table = rows(bad)
    assert [row.stage for row in table if row.stage][:2] == ["pixels", "tokens"]
    assert [row.verdict for row in table if row.verdict] == ["FAIL", "pass", "FAIL", "pass", "FAIL", "FAIL"]
    crop = next(row for row in table if row.check == "crop")
    assert (crop.measured, crop.gate, crop.passed) == ("1 of 255 levels", "<= 0", False)
    assert [row.check for row in table if row.stage == "top-1"] == ["could not be run"]


@pytest.mark.parametrize("which", ["good", "bad", "nasty"])
def test_json_round_trip(which: str, request: pytest.FixtureRequest) -> None:
    report: ParityReport = request.getfixturevalue(which)
    text = to_json(report)
    again = from_json(text)
    bare = tuple(replace(p, thumbnail="", crop="", difference="") for p in report.pictures)
    assert again == replace(report, pictures=bare)
    plain = json.loads(text)
    assert plain["passed"] is report.passed
    assert plain["first_drift"] == report.first_drift
    assert [stage["name"] for stage in plain["stages"]] == list(STAGES)
    assert [stage["passed"] for stage in plain["stages"]] == [stage.passed for stage in report.stages]


def test_json_has_null_for_what_is_not_finite(bad: ParityReport) -> None:
    tower = json.loads(to_json(bad))["stages"][2]
    checks = {check["name"]: check for check in tower["checks"]}
    assert checks["cosine"]["value"] is None
    assert checks["cosine"]["passed"] is False
    assert "NaN" not in to_json(bad)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1, "stages": []}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        from_json(text)


def test_a_report_of_another_schema_is_refused(good: ParityReport) -> None:
    with pytest.raises(InputError, match="schema 9"):
        from_json(to_json(replace(good, schema_version=9)))


def tree(path: Path) -> ElementTree.Element:
    """The page, which has to be well-formed."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(text.split("\n", 1)[1])


@pytest.mark.parametrize("which", ["good", "bad", "nasty"])
def test_the_page_is_whole(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    write_html(request.getfixturevalue(which), tmp_path / "r.html")
    page = tree(tmp_path / "r.html")
    assert page.find(".//script") is None
    assert [s.get("id") for s in page.iter("section")][:6] == list(STAGES)
    sources = [image.get("src", "") for image in page.iter("img")]
    assert len(sources) == (30 if which == "bad" else 20)  # file, crop and, where it differs, the difference
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", source) for source in sources)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<link|@import|url\(", text)
    assert len(text) < 1_000_000


def test_names_are_escaped(nasty: ParityReport, tmp_path: Path) -> None:
    write_html(nasty, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\x1b" not in text
    assert "\x00" not in text
    everything = "".join(tree(tmp_path / "r.html").itertext())
    assert "<script>alert(1)</script>" in everything
    assert "(empty text)" in everything


def test_control_characters_stay_out_of_the_terminal(nasty: ParityReport) -> None:
    stages = [replace(s, notes=()) for s in nasty.stages]
    assert "\x1b" not in text_table(replace(nasty, bundle=NASTY[2], stages=tuple(stages)))


def test_the_page_says_what_failed(bad: ParityReport, tmp_path: Path) -> None:
    write_html(bad, tmp_path / "r.html")
    page = tree(tmp_path / "r.html")
    states = {s.get("id"): s.get("class") for s in page.iter("section") if s.get("id")}
    assert [states[name] for name in STAGES] == ["fail", "pass", "fail", "pass", "fail", "fail"]
    assert "first drift: pixels" in "".join(page.itertext())
    opened = [d.get("open") is not None for s in page.iter("section") for d in s.iter("details")]
    assert opened == [True, False, True, False, True]


def test_many_samples_are_cut_to_the_worst(bundle: Bundle, golden: GoldenReference, tmp_path: Path) -> None:
    pictures = [golden.pictures[i % 10] for i in range(70)]
    texts = [f"text number {i}" for i in range(70)]
    reference = CheckpointReference(as_any(FakeCheckpoint()), pictures, texts)
    report = verify(bundle, reference=reference, clip=as_any(FakeClip()))
    assert report.stage("text_tower").passed
    write_html(report, tmp_path / "r.html")
    text = "".join(tree(tmp_path / "r.html").itertext())
    assert "70 samples, all hold (the worst 64 shown)" in text
    assert "38 more pictures are not shown" in text
    assert "only the first 48 of each are drawn" in text


def test_a_page_that_cannot_be_written(good: ParityReport, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_html(good, tmp_path / "nowhere" / "r.html")


def test_the_summary_is_a_line(good: ParityReport, bad: ParityReport) -> None:
    assert good.summary == "all 6 stages hold"
    assert bad.summary.startswith("first drift: pixels: 10 of 10 crops differ")
    assert "\n" not in bad.summary


def test_numbers_are_never_rounded_into_passing() -> None:
    cosine = Check("cosine", 0.99998999, ">=", 0.99999)
    assert number(cosine, cosine.value) == "0.9999899"
    assert number(cosine, 1.0000000002) == "1.0000000"
    share = Check("agreement", 0.99999, ">=", 1.0)
    assert number(share, share.value) == "99.9 %"
    assert number(share, 1.0) == "100 %"
    assert number(share, None) == "not finite"


def test_markup_escapes_all_but_markup() -> None:
    assert el("b", "<i>", el("i", "x"), title='"&') == '<b title="&quot;&amp;">&lt;i&gt;<i>x</i></b>'
    assert shown("a\tb\x9b") == "a␉b␡"
