"""The parity report as one page: no script, no other file, light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipdeploy.bundle import write_text
from clipdeploy.errors import OutputError
from clipdeploy.pages.markup import Html, el, page, shown
from clipdeploy.pages.style import CSS
from clipdeploy.verify.plots import MAP_LIMIT, check_gauge, cosine_map, drift_map, gauge, share_bar
from clipdeploy.verify.records import Check, Finding, ParityReport, PictureNote, Sample, Stage
from clipdeploy.verify.report import TITLES, header, measured, number, verdict

THUMB_WIDTH_PX, THUMB_HEIGHT_PX = 150, 112
SAMPLE_LIMIT = 64
"""Samples that a stage lists, at most: the worst."""

MEANING = {
    "pixels": "The picture files become exactly the pixels that the checkpoint's own transform makes.",
    "frames": "Camera frames become the same pixels in the graph, within one level of 255 on few values.",
    "tokens": "The texts become exactly the checkpoint's token ids.",
    "image_tower": "Fed with the reference's pixels, the image tower gives the reference's embeddings.",
    "text_tower": "Fed with the reference's tokens, the text tower gives the reference's embeddings.",
    "similarity": "End to end, from files and texts, the cosines are the reference's.",
    "logits": "Fed with the golden pictures, the baked graph answers as the bundle did that it was baked from.",
    "embeddings": "Fed with the golden pictures, the baked graph gives the embeddings of the bundle it was baked from.",
    "top1": "Each picture finds the same nearest text, each text the same nearest picture.",
}


def write_html(report: ParityReport, path: str | Path) -> None:
    """Write the report as one self-contained page; raises OutputError where it cannot be written."""
    try:
        write_text(Path(path), render(report))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}", fix="name a file in a folder that exists") from error


def render(report: ParityReport) -> str:
    """The page as text."""
    title = f"{'PASS' if report.passed else 'FAIL'} · parity of {shown(report.bundle)}"
    return page(
        title,
        CSS,
        el(
            "main",
            _head(report),
            [_stage_card(stage, report) for stage in report.stages],
            _picture_card(report),
            _map_card(report) if report.reference_cosines else None,
            _version_card(report),
            el("footer", f"clipdeploy verify · {report.created}"),
        ),
    )


def _head(report: ParityReport) -> Html:
    facts = [el("div", el("dt", name), el("dd", value)) for name, value in header(report)]
    rungs = [el("li", el("a", _mark(stage), " ", TITLES[stage.name], href=f"#{stage.name}")) for stage in report.stages]
    return el(
        "header",
        el("p", "parity report", class_="over"),
        el("h1", report.bundle),
        el("p", verdict(report), class_=f"verdict {_tone(report.passed)}"),
        el("ol", rungs, class_="rungs"),
        el("dl", facts),
    )


def _stage_card(stage: Stage, report: ParityReport) -> Html:
    title = el("h2", _mark(stage), " ", TITLES[stage.name], el("small", f"{stage.seconds:.2f} s"))
    return el(
        "section",
        title,
        el("p", MEANING[stage.name], class_="meaning"),
        _finding(stage.finding) if stage.finding else None,
        el("div", [_check_line(check) for check in stage.checks], class_="checks") if stage.checks else None,
        [el("p", note, class_="note") for note in (stage.skipped, *stage.notes) if note],
        _sample_list(stage, report) if stage.samples else None,
        id=stage.name,
        class_=_state(stage),
    )


def _finding(finding: Finding) -> Html:
    rows = [
        ("worst sample", finding.sample),
        ("numbers", finding.numbers),
        ("likely cause", finding.cause),
        ("what to do", finding.fix),
    ]
    # the empty text is a sample like any other, so it is named
    return el("dl", [el("div", el("dt", k), el("dd", shown(v))) for k, v in rows], class_="finding")


def _check_line(check: Check) -> Html:
    return el(
        "div",
        el("span", check.name, class_="name"),
        el("span", check_gauge(check), class_="plot"),
        el("span", measured(check), class_=f"value {_tone(check.passed)}"),
        el("span", f"gate {'≤' if check.rule == '<=' else '≥'} {number(check, check.gate)}", class_="gate"),
        class_="check",
    )


def _sample_list(stage: Stage, report: ParityReport) -> Html:
    """Every sample with its bars; open where something fails."""
    indexed = list(enumerate(stage.samples))
    cut = len(indexed) > SAMPLE_LIMIT
    if cut:
        indexed.sort(key=lambda pair: float("inf") if pair[1].error is None else pair[1].error, reverse=True)
        indexed = indexed[:SAMPLE_LIMIT]
    failed = sum(not sample.passed for sample in stage.samples)
    summary = f"{len(stage.samples)} samples" + (f", {failed} fail" if failed else ", all hold")
    summary += f" (the worst {SAMPLE_LIMIT} shown)" if cut else ""
    lines = [_sample_line(stage, _label(stage, i, report), sample, report) for i, sample in indexed]
    legend = "left bar: max abs; right bar: 1 - cosine; the tick is the gate (logarithmic)"
    return el(
        "details",
        el("summary", summary),
        el("p", legend, class_="note") if "tower" in stage.name else None,
        el("div", lines, class_="samples"),
        open=None if stage.passed else "open",
    )


def _label(stage: Stage, index: int, report: ParityReport) -> str:
    """P1.. for pictures, T1.. for texts, as on the maps; top-1 lists pictures, then texts."""
    pictures = len(report.pictures)
    if stage.name in ("tokens", "text_tower"):
        return f"T{index + 1}"
    return f"P{index + 1}" if index < pictures else f"T{index - pictures + 1}"


def _sample_line(stage: Stage, label: str, sample: Sample, report: ParityReport) -> Html:
    bars, value = _sample_bars(stage, sample, report)
    return el(
        "div",
        el("span", label, class_="index"),
        el("span", shown(sample.name), class_="name", title=sample.name),
        el("span", bars, class_="plot"),
        el("span", value, class_=f"value {_tone(sample.passed)}"),
        el("span", sample.note, class_="remark") if sample.note else None,
        class_="sample",
    )


def _sample_bars(stage: Stage, sample: Sample, report: ParityReport) -> tuple[list[Html], str]:
    """The bars of one sample, and its numbers as text."""
    gates, error = report.gates, sample.error
    if stage.name in ("image_tower", "text_tower"):
        gap = None if sample.cosine is None else max(0.0, 1 - sample.cosine)
        bars = [gauge(error, gates.max_abs, passed=sample.passed)]
        bars.append(gauge(gap, 1 - gates.cosine, passed=sample.passed))
        return bars, "not finite" if error is None else f"{error:.1e}"
    if stage.name in ("similarity", "logits", "embeddings"):
        bar = gauge(error, gates.max_abs, passed=sample.passed)
        return [bar], "not finite" if error is None else f"{error:.1e}"
    if stage.name == "frames":
        return [], "identical" if sample.passed and not sample.error else sample.note or "not finite"
    if stage.name == "pixels":
        share = 1.0 if error is None else error / 255
        return [share_bar(share, passed=sample.passed)], "identical" if sample.passed else f"off by {error or 0:g}"
    if stage.name == "tokens":
        return [], "identical" if sample.passed else f"{error or 0:g} ids off"
    return [], "agrees" if sample.passed and not sample.note else "tie" if sample.passed else "differs"


def _picture_card(report: ParityReport) -> Html:
    pixel_samples = {s.name: s for stage in report.stages if stage.name == "pixels" for s in stage.samples}
    figures = [
        _figure(index, note, pixel_samples.get(note.name))
        for index, note in enumerate(report.pictures)
        if note.thumbnail
    ]
    hidden = len(report.pictures) - len(figures)
    return el(
        "section",
        el("h2", "pictures"),
        el("p", "Each file, and beside it the crop the model sees.", class_="meaning"),
        el("div", figures, class_="pictures"),
        el("p", f"{hidden} more pictures are not shown", class_="note") if hidden else None,
    )


def _figure(index: int, note: PictureNote, sample: Sample | None) -> Html:
    scale = min(THUMB_HEIGHT_PX / note.height_px, THUMB_WIDTH_PX / note.width_px)
    size = {"width": max(1, round(note.width_px * scale)), "height": max(1, round(note.height_px * scale))}
    images = [el("img", src=note.thumbnail, alt=f"{note.name}, the file", loading="lazy", **size)]
    images.append(el("img", src=note.crop, alt=f"{note.name}, as the model sees it", class_="crop", loading="lazy"))
    if note.difference:
        alt = f"{note.name}, where the crop differs from the reference's"
        images.append(el("img", src=note.difference, alt=alt, class_="crop", loading="lazy"))
    state = None
    if sample:
        words = "pixels identical" if sample.passed else f"differs: {sample.note}"
        state = el("span", words, class_=f"value {_tone(sample.passed)}")
    caption = el(
        "figcaption",
        el("b", f"P{index + 1} "),
        note.name,
        el("span", f"{note.width_px} × {note.height_px}, {note.mode}", class_="gate"),
        state,
    )
    return el("figure", el("div", images, class_="pair"), caption)


def _map_card(report: ParityReport) -> Html:
    names = [note.name for note in report.pictures]
    maps = [("the reference's", cosine_map(report.reference_cosines, names, report.texts))]
    if report.cosines:
        maps.append(("ours, end to end", cosine_map(report.cosines, names, report.texts)))
        apart = drift_map(report.cosines, report.reference_cosines, report.gates.max_abs, names, report.texts)
        maps.append(("difference (logarithmic)", apart))
    blocks = [el("div", el("h3", name), el("div", plot, class_="scroll"), class_="mapbox") for name, plot in maps]
    cut = max(len(names), len(report.texts)) > MAP_LIMIT
    return el(
        "section",
        el("h2", "cosines"),
        el(
            "p",
            "A column a picture (P), a row a text (T); darker is nearer, a ring marks each picture's nearest text.",
            class_="meaning",
        ),
        el("div", blocks, class_="maps"),
        el("p", f"only the first {MAP_LIMIT} of each are drawn", class_="note") if cut else None,
        el("ol", [el("li", el("span", shown(text))) for text in report.texts[:MAP_LIMIT]], class_="texts"),
    )


def _version_card(report: ParityReport) -> Html:
    def table(versions: Mapping[str, str]) -> Sequence[Html]:
        return [el("div", el("dt", name), el("dd", version)) for name, version in versions.items()]

    return el(
        "section",
        el("h2", "versions"),
        el(
            "div",
            el("div", el("h3", "here"), el("dl", table(report.versions))),
            el("div", el("h3", "that made the reference"), el("dl", table(report.reference_versions))),
            class_="maps",
        ),
    )


def _mark(stage: Stage) -> Html:
    state = _state(stage)
    shown_as = {"pass": ("✓", "pass"), "fail": ("✗", "fail"), "skip": ("–", "not verified")}
    sign, title = shown_as[state]
    return el("span", sign, class_=f"mark {state}", title=title)


def _state(stage: Stage) -> str:
    return "skip" if stage.skipped else _tone(stage.passed)


def _tone(passed: bool) -> str:
    return "pass" if passed else "fail"
