"""What was measured, for people: tables that fit 100 columns, what wins, and what the figures cannot tell.

The tables themselves, as rows of text, serve the page too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clipdeploy.benchmark.judge import milliseconds, moved, percent, winners
from clipdeploy.benchmark.records import STAGES, BatchFigures, BenchResult, BoardSample, Candidate
from clipdeploy.benchmark.tegrastats import total_mw
from clipdeploy.text import one_line, pairs, size, table, width

WIDTH = 100
"""Columns of a terminal."""

_NOTHING = "-"
_SPEED_ALONE = "These are times alone: what a precision costs in accuracy, clipdeploy evaluate measures."


@dataclass(frozen=True)
class Table:
    """Rows about candidates.

    Attributes:
        title: what they are.
        head: names of the columns; the first is the candidate's, and text; the others are numbers.
        groups: a candidate's name -> its rows, without that name.
        note: what the columns mean.
    """

    title: str
    head: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    note: str = ""


def text_table(result: BenchResult) -> str:
    """All of it as text."""
    parts = [pairs(summary(result), indent=0)]
    parts += [f"{one.title}\n{_text(one)}" + (f"\n{_wrapped(one.note)}" if one.note else "") for one in tables(result)]
    if result.absent:
        lines = [f"  {pair}: {why}" for pair, why in absent(result)]
        parts.append("Not measured\n" + "\n".join(_wrapped(line, hanging="    ") for line in lines))
    parts.append("Fastest\n" + "\n".join(_wrapped(f"  {winner}", hanging="    ") for winner in winners(result)))
    parts.append("\n".join(_wrapped(sentence) for sentence in cautions(result)))
    return "\n\n".join(part for part in parts if part)


def summary(result: BenchResult) -> list[tuple[str, str]]:
    """What was measured, where and how, as (name, value)."""
    found = [("bundle", f"{result.bundle} ({result.model})"), ("machine", machine(result))]
    if result.board:
        held = {True: "clocks held", False: "clocks not held", None: "clocks unknown"}[result.board.clocks_held]
        found.append(("power mode", f"{result.board.power_mode or 'unknown'}, {held}"))
    asked = result.conditions
    how = [f"{asked[name]} {name}" for name in ("rounds", "threads") if asked.get(name) is not None]
    return [*found, ("measured", ", ".join([result.created, *how, f"{result.seconds:.0f} s in all"]))]


def machine(result: BenchResult) -> str:
    """The machine in a line."""
    known = result.environment
    processor = known.get("processor") or {}
    parts = [(known.get("jetson") or {}).get("board"), processor.get("name")]
    cores = processor.get("cores")
    parts += [f"{cores} cores" if cores else None, *(gpu.get("name") for gpu in known.get("gpus") or [])]
    return ", ".join(str(part) for part in parts if part) or "unknown"


def absent(result: BenchResult) -> list[tuple[str, str]]:
    """What could not be measured, and why; pairs that fail for the same reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in result.absent:
        reasons.setdefault((one.backend, one.why), []).append(one.precision)
    return [(f"{backend} {', '.join(precisions)}", why) for (backend, why), precisions in reasons.items()]


def cautions(result: BenchResult) -> list[str]:
    """How far the figures can be trusted, in sentences."""
    found = []
    movement = moved(result)
    if movement is not None:
        found.append(f"{str(movement)[:1].upper()}{str(movement)[1:]}.")
        if movement.restless:
            found.append(
                f"WARNING: This machine did not stand still. Differences below {percent(movement.typical)} mean "
                "nothing here: close what else runs, hold the clocks, and measure again."
            )
    if result.board and result.board.clocks_held is False:
        found.append("WARNING: The clocks were not held, so they followed the load. To hold them: sudo jetson_clocks")
    held_back = sorted({why for gpu in result.environment.get("gpus") or [] for why in gpu.get("held_back_by") or []})
    held_back = [why for why in held_back if why != "idle"]
    if held_back:
        found.append(f"WARNING: The GPU's clocks were held back: {', '.join(held_back)}.")
    return [*found, _SPEED_ALONE]


def tables(result: BenchResult) -> list[Table]:
    """Those that have rows."""
    made = [
        _batches("Image encoder", result.candidates, lambda candidate: candidate.images),
        _texts(result.candidates),
        _stages(result.candidates),
        _starts(result.candidates),
        _memory(result.candidates),
        _board(result),
        _rails(result),
    ]
    return [_known(one) for one in made if one.groups]


def _known(made: Table) -> Table:
    """Without the columns of which nothing is known."""
    rows = [row for _, group in made.groups for row in group]
    kept = [column for column in range(len(made.head) - 1) if any(row[column] != _NOTHING for row in rows)]
    groups = tuple((name, tuple(tuple(row[i] for i in kept) for row in group)) for name, group in made.groups)
    return replace(made, head=(made.head[0], *(made.head[i + 1] for i in kept)), groups=groups)


def _batches(
    title: str, candidates: Sequence[Candidate], figures: Callable[[Candidate], Sequence[BatchFigures]]
) -> Table:
    head = ("", "batch", "p50", "p90", "p99", "fastest", "per second", "rounds moved")
    groups = [(one.name, tuple(_batch_row(each) for each in figures(one))) for one in candidates if figures(one)]
    return Table(f"{title}, ms of one run", head, tuple(groups))


def _texts(candidates: Sequence[Candidate]) -> Table:
    """Those that run one and the same text graph are measured once."""
    made = _batches("Text encoder", [one for one in candidates if not one.texts_of], lambda one: one.texts)
    same: dict[str, list[str]] = {}
    for one in candidates:
        if one.texts_of:
            same.setdefault(one.texts_of, []).append(one.name)
    return replace(made, note=" ".join(f"As {name}: {', '.join(others)}." for name, others in same.items()))


def _batch_row(figures: BatchFigures) -> tuple[str, ...]:
    times = figures.latency
    shown = [milliseconds(value) for value in (times.p50_ms, times.p90_ms, times.p99_ms, times.fastest_ms)]
    moved_by = percent(times.spread) if len(times.rounds_ms) > 1 else _NOTHING
    return (str(figures.batch), *shown, milliseconds(figures.per_second), moved_by)


def _stages(candidates: Sequence[Candidate]) -> Table:
    known = [candidate for candidate in candidates if candidate.stages]
    used = [name for name in STAGES if any(name in candidate.stages for candidate in known)]
    groups = []
    for candidate in known:
        parts = [_ms(candidate.stages[name].p50_ms if name in candidate.stages else None) for name in used]
        whole = candidate.file_to_label
        row = (*parts, _ms(whole.p50_ms if whole else None), _ms(candidate.folder_per_second))
        groups.append((candidate.name, (row,)))
    return Table(
        "One picture from file to label, ms",
        ("", *used, "in one go", "folder/s"),
        tuple(groups),
        "Each stage by itself, then all in one go as an app calls it; folder/s: pictures a second of a folder, read "
        "ahead while the encoder runs.",
    )


def _starts(candidates: Sequence[Candidate]) -> Table:
    groups = []
    for candidate in candidates:
        start = candidate.cold_start
        steps = (start.process_s, start.import_s, start.load_s, start.first_image_s, start.first_text_s, start.whole_s)
        row = (*(_s(value) for value in steps), _s(start.first_ever_s), _ms(start.second_image_ms))
        groups.append((candidate.name, (row,)))
    return Table(
        "Cold start, s",
        ("", "process", "import", "load", "picture", "text", "whole", "first ever", "2nd picture, ms"),
        tuple(groups),
        "A fresh process to its first answers. First ever: on a machine that remembers nothing of the bundle, with "
        "the self-tests and what an engine compiles once.",
    )


def _memory(candidates: Sequence[Candidate]) -> Table:
    groups = []
    for candidate in candidates:
        memory = candidate.memory
        cells = [size(count) for count in (memory.imported, memory.loaded, memory.peak)]
        gpu = _NOTHING if memory.gpu is None else size(memory.gpu)
        groups.append((candidate.name, ((*cells, gpu, size(sum(candidate.files.values()))),)))
    return Table(
        "Memory of the process, and files",
        ("", "imported", "loaded", "peak", "GPU", "files"),
        tuple(groups),
    )


def _board(result: BenchResult) -> Table:
    rates = {(one.name, each.batch): each.per_second for one in result.candidates for each in one.images}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for sample in result.board.samples if result.board else ():
        row = _board_row(sample, rates.get((sample.candidate, sample.batch)))
        groups.setdefault(sample.candidate, []).append(row)
    return Table(
        "The board meanwhile, by tegrastats",
        ("", "batch", "GPU MHz", "GPU %", "memory MHz", "RAM", "hottest", "board W", "mJ a picture"),
        tuple((name, tuple(rows)) for name, rows in groups.items()),
    )


def _board_row(sample: BoardSample, per_second: float | None) -> tuple[str, ...]:
    counts = [
        _NOTHING if value is None else f"{value:,}" for value in (sample.gpu_mhz, sample.gpu_load, sample.emc_mhz)
    ]
    ram = _NOTHING if sample.ram_mb is None else size(sample.ram_mb * 1_000_000)
    hottest = f"{max(sample.temperature_c.values()):.0f} °C" if sample.temperature_c else _NOTHING
    total = total_mw(sample.power_mw)
    watts = _NOTHING if total is None else f"{total / 1000:.1f}"
    each = _NOTHING if total is None or not per_second else milliseconds(total / per_second)
    return (str(sample.batch), *counts, ram, hottest, watts, each)


def _rails(result: BenchResult) -> Table:
    samples = result.board.samples if result.board else ()
    rails = list(dict.fromkeys(rail for sample in samples for rail in sample.power_mw))
    groups: dict[str, list[tuple[str, ...]]] = {}
    for sample in samples:
        if sample.power_mw:
            drew = [f"{sample.power_mw[rail] / 1000:.1f}" if rail in sample.power_mw else _NOTHING for rail in rails]
            groups.setdefault(sample.candidate, []).append((str(sample.batch), *drew))
    return Table("Power by rail, W", ("", "batch", *rails), tuple((name, tuple(rows)) for name, rows in groups.items()))


def _text(made: Table) -> str:
    """A table of text; where names make it too wide, each stands in a line of its own above its rows."""
    right = range(1, len(made.head))
    rows = [(name if not i else "", *row) for name, group in made.groups for i, row in enumerate(group)]
    beside = table(made.head, rows, right=right)
    if max(map(width, beside.splitlines())) <= WIDTH:
        return beside
    cells = table(made.head, [("", *row) for _, group in made.groups for row in group], right=right).splitlines()
    lines, after = [cells[0]], iter(cells[1:])
    for name, group in made.groups:
        lines += [one_line(name), *(next(after) for _ in group)]
    return "\n".join(lines)


def _wrapped(text: str, *, hanging: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def _ms(value: float | None) -> str:
    return _NOTHING if value is None else milliseconds(value)


def _s(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"
