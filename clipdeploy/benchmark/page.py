"""What was measured as one page: who wins, the figures as charts, all of them as tables, the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipdeploy.benchmark.judge import winners
from clipdeploy.benchmark.records import STAGES, BatchFigures, BenchResult, Candidate
from clipdeploy.benchmark.report import Table, absent, cautions, summary, tables
from clipdeploy.benchmark.tegrastats import total_mw
from clipdeploy.pages.chart_style import COLOURS
from clipdeploy.pages.charts import CHART_CSS, Axis, Bar, Series, Stack, bar_chart, line_chart, stacked_bars
from clipdeploy.pages.markup import Html, el, page
from clipdeploy.pages.style import CSS
from clipdeploy.pages.tables import TABLE_CSS, grouped_table, table
from clipdeploy.text import size
from clipdeploy.writing import write_text

_MORE = """
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr)); gap:22px 28px;
  margin-top:1rem; align-items:start; }
.wins { margin:.2rem 0 0; padding-left:1.2rem; } .wins li { margin:.2rem 0; }
main > header { margin-bottom:1rem; }
"""
_WARNING = "WARNING: "
_HEIGHT_PX, _NAME_PX = 290, 16

Figures = Callable[[Candidate], Sequence[BatchFigures]]


def write_html(result: BenchResult, path: Path) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(result))


def render(result: BenchResult) -> str:
    """The page as text: one file, no scripts, nothing fetched."""
    made = {one.title.split(",")[0]: one for one in tables(result)}
    candidates = result.candidates
    sections = [
        _fastest(result),
        _section("Image encoder", _by_batch(candidates, lambda one: one.images, "picture"), made),
        _section("One picture from file to label", _whole_way(candidates), made),
        _section(
            "Text encoder", _by_batch(candidates, lambda one: one.texts if not one.texts_of else (), "text"), made
        ),
        _section("Cold start", _starts(candidates), made),
        _section("Memory of the process", [_memory(candidates), _files(candidates)], made),
        _section("The board meanwhile", [_power(result)], made),
        _section("Power by rail", [], made),
        _absent(result),
        _environment(result),
    ]
    header = el(
        "header",
        el("p", "benchmark", class_="over"),
        el("h1", result.model),
        el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in summary(result)]),
    )
    title = f"{result.model} · benchmark"
    return page(
        title, CSS + CHART_CSS + TABLE_CSS + _MORE, el("main", header, sections, el("footer", "clipdeploy bench"))
    )


def _fastest(result: BenchResult) -> Html:
    told = cautions(result)
    warnings = [el("p", text.removeprefix(_WARNING), class_="finding") for text in told if text.startswith(_WARNING)]
    notes = [el("p", text, class_="note") for text in told if not text.startswith(_WARNING)]
    wins = el("ul", [el("li", str(winner)) for winner in winners(result)], class_="wins")
    return el("section", el("h2", "Fastest"), wins, warnings, notes)


def _section(title: str, charts: Sequence[Html | None], made: Mapping[str, Table]) -> Html | None:
    one = made.get(title)
    if one is None:
        return None
    drawn = [chart for chart in charts if chart is not None]
    return el(
        "section",
        el("h2", title),
        el("p", one.note, class_="meaning") if one.note else None,
        el("div", drawn, class_="charts") if drawn else None,
        el("details", el("summary", f"All figures: {one.title}"), grouped_table(one.head, one.groups)),
    )


def _by_batch(candidates: Sequence[Candidate], figures: Figures, noun: str) -> list[Html | None]:
    """Time and rate against the batch; as bars where there is one batch only."""
    shown = [(index, one) for index, one in enumerate(candidates) if figures(one)]
    batches = sorted({each.batch for _, one in shown for each in figures(one)})
    if not shown:
        return []
    if len(batches) == 1:
        of = f"one {noun}" if batches[0] == 1 else f"{batches[0]} {noun}s"
        bars = [Bar(one.name, figures(one)[0].latency.p50_ms, colour=index) for index, one in shown]
        return [bar_chart(bars, x=Axis(of, "ms"), title=f"Time of one run: {of}")]
    x = Axis("batch", log=True, ticks=tuple(batches))
    height = max(_HEIGHT_PX, 90 + _NAME_PX * len(shown))
    times = [
        Series(
            one.name,
            [(each.batch, each.latency.p50_ms) for each in figures(one)],
            spans=[(each.batch, min(each.latency.rounds_ms), max(each.latency.rounds_ms)) for each in figures(one)],
            colour=index,
            dashed=index >= COLOURS,
        )
        for index, one in shown
    ]
    rates = [
        Series(
            one.name,
            [(each.batch, each.per_second) for each in figures(one)],
            colour=index,
            dashed=index >= COLOURS,
        )
        for index, one in shown
    ]
    return [
        line_chart(times, x=x, y=Axis("one run", "ms", log=True), title="Time by batch", height=height),
        line_chart(rates, x=x, y=Axis(f"{noun}s a second"), title="Rate by batch", height=height),
    ]


def _whole_way(candidates: Sequence[Candidate]) -> list[Html | None]:
    """Where the time of one picture goes, and what is left of it where many are read ahead."""
    stacks = [
        Stack(one.name, {name: times.p50_ms for name, times in one.stages.items()}) for one in candidates if one.stages
    ]
    rates = [(index, one, one.folder_per_second) for index, one in enumerate(candidates)]
    bars = [Bar(one.name, rate, colour=index) for index, one, rate in rates if rate is not None]
    return [
        stacked_bars(stacks, x=Axis("one picture", "ms"), title="One picture, stage by stage", order=STAGES)
        if stacks
        else None,
        bar_chart(bars, x=Axis("pictures a second"), title="A folder, read ahead") if bars else None,
    ]


def _starts(candidates: Sequence[Candidate]) -> list[Html | None]:
    """A start that the machine knows, and the first of all."""
    stacks = []
    for one in candidates:
        start = one.cold_start
        steps = {
            "process": start.process_s,
            "import": start.import_s,
            "load": start.load_s,
            "first picture": start.first_image_s,
            "first text": start.first_text_s,
        }
        stacks.append(Stack(one.name, {name: taken for name, taken in steps.items() if taken is not None}))
    first = [(index, one, one.cold_start.first_ever_s) for index, one in enumerate(candidates)]
    bars = [Bar(one.name, taken, colour=index) for index, one, taken in first if taken is not None]
    return [
        stacked_bars(stacks, x=Axis("cold start", "s"), title="A fresh process to its first answers"),
        bar_chart(bars, x=Axis("first start ever", "s"), title="The first start on this machine") if bars else None,
    ]


def _memory(candidates: Sequence[Candidate]) -> Html:
    bars = [
        Bar(one.name, one.memory.peak / 1e6, shown=size(one.memory.peak), colour=index)
        for index, one in enumerate(candidates)
    ]
    return bar_chart(bars, x=Axis("resident at most", "MB"), title="Memory")


def _files(candidates: Sequence[Candidate]) -> Html:
    sizes = [sum(one.files.values()) for one in candidates]
    bars = [
        Bar(one.name, count / 1e6, shown=size(count), colour=index)
        for index, (one, count) in enumerate(zip(candidates, sizes, strict=True))
    ]
    return bar_chart(bars, x=Axis("files that it loads", "MB"), title="Files")


def _power(result: BenchResult) -> Html | None:
    """What the whole board drew; None where no rail carries all of it."""
    drew = [(one, total_mw(one.power_mw)) for one in (result.board.samples if result.board else ())]
    bars = [Bar(f"{one.candidate}, batch {one.batch}", power / 1000) for one, power in drew if power is not None]
    return bar_chart(bars, x=Axis("power of the board", "W"), title="Power") if bars else None


def _absent(result: BenchResult) -> Html | None:
    if not result.absent:
        return None
    return el("section", el("h2", "Not measured"), table(("what", "why"), absent(result)))


def _environment(result: BenchResult) -> Html:
    told = [(name, _told(value)) for name, value in {**result.environment, **result.conditions}.items()]
    facts = el("dl", [el("div", el("dt", name.replace("_", " ")), el("dd", value)) for name, value in told if value])
    return el("section", el("h2", "Machine and conditions"), facts)


def _told(value: Any) -> str:
    """Anything that JSON can hold, for people; nothing of what is not known."""
    if value is None or value == {} or value == []:
        return ""
    if isinstance(value, Mapping):
        told = ((name.replace("_", " "), _told(inner)) for name, inner in value.items())
        return "; ".join(f"{name}: {text}" for name, text in told if text)
    if isinstance(value, (list, tuple)):
        return ", ".join(_told(inner) for inner in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
