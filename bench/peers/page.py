"""Tables and verdicts of a record, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from bench.common import table
from bench.peers import verdicts
from bench.peers.standings import (
    ENCODER_GFLOP,
    WORKS,
    Contest,
    Figures,
    contests,
    each_run,
    figures,
    moved,
    share_of_ceiling,
)
from bench.peers.steady import SLOW

_WIDTH = 120
_OF_ROUNDS = tuple(work.name for work in WORKS[:3])

_HEAD = """## Beside the peers

`{command}`: every package that installs here and embeds with CLIP, each in an environment and a process of its own, on
one {model} with seeded random weights, written in each one's own format. {pictures} JPEGs of 1920x1080 ({jpeg_kb:.0f}
kB) to embeddings, {batch} at a time; one JPEG by itself; {texts:,} short texts; import and first answer in a fresh
process; memory of that process; bytes that pip installs. All have {threads} threads and take turns in {rounds} rounds,
each after a rest and, as far as waiting helps, at the machine's full speed; those in float32 first and then those in
fewer bits{again}. Slow ones are asked for fewer pictures
and texts a turn. How each is used stands in `bench/peers/hosts`, one short script each."""

_GATES = """The gates are cosines to open_clip in float32, file to embedding, on the same files: `float32` passes with
0.9999 at least, `few bits` with a mean of 0.99 and 0.98 at least. Who passes neither is listed and wins nothing.
`of ceiling`: the encoder's {gflop} GFLOP in the time of a picture of the folder, as a share of what this machine does
in one large product at that precision, right before: {ceiling}. That time holds reading the picture too."""

_INSTALLED = """What is installed, in bytes of files as pip unpacks them, without pip itself and before Python compiles
any. PyTorch is the one of PyPI, which brings CUDA's libraries; PyTorch's own index has a smaller one for processors:"""


def peers_parts(record: dict[str, Any]) -> list[str]:
    """The section of docs/benchmarks.md: Markdown, to be joined by empty lines."""
    rows = figures(record)
    parts = [
        _head(record),
        _machine(record),
        block(figures_table(rows, record)),
        _gates(record),
        block(contests_table(rows)),
        _points(verdicts.bars(rows, record)),
    ]
    better = verdicts.where_peers_are_better(rows, record)
    parts += ["Where a peer is better:", _points(better)] if better else []
    parts += ["How much the figures move:", _points(_movement(record))]
    parts += [_wrapped(_INSTALLED), block(installed_table(record))]
    absent = [f"{one['name']}: {one['why']}." for one in [*_absent(record), *record["not_taken"]]]
    return [*parts, "Who takes no part, and why:", _points(absent)]


def report(record: dict[str, Any]) -> str:
    """The same for the terminal: tables and verdicts."""
    rows = figures(record)
    lines = [*verdicts.bars(rows, record), *verdicts.where_peers_are_better(rows, record), *_movement(record)]
    absent = [f"not measured: {one['name']}: {one['why']}" for one in _absent(record)]
    return "\n\n".join(
        [figures_table(rows, record), contests_table(rows), installed_table(record), "\n".join([*lines, *absent])]
    )


def _points(lines: Sequence[str]) -> str:
    return "\n".join(_wrapped(f"- {line}", indent="  ") for line in lines)


def _wrapped(text: str, indent: str = "") -> str:
    """A paragraph in lines of the page's width."""
    whole = " ".join(text.split())
    return textwrap.fill(whole, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def block(text: str) -> str:
    """A table as Markdown keeps it."""
    return f"```text\n{text}\n```"


def figures_table(rows: Sequence[Figures], record: dict[str, Any]) -> str:
    """Every row, the fastest at a folder first."""
    head = (
        "peer, mode",
        "folder, /s",
        "of ceiling",
        "one JPEG, ms",
        "texts/s",
        "first, s",
        "memory, MB",
        "cosine",
        "gate",
    )
    return table(head, [_row(row, record) for row in sorted(rows, key=lambda row: row.folder_ms)])


def _row(row: Figures, record: dict[str, Any]) -> tuple[str, ...]:
    share = share_of_ceiling(row, record["ceiling"])
    return (
        row.name,
        f"{1e3 / row.folder_ms:.1f}",
        "" if share is None else f"{share:.0%}",
        _or_empty(row.single_ms, "{:.1f}"),
        "" if row.text_ms is None else f"{1e3 / row.text_ms:.0f}",
        _or_empty(row.first_s, "{:.2f}"),
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        _or_empty(row.cosine, "{:.5f}"),
        row.gate or "none",
    )


def contests_table(rows: Sequence[Figures]) -> str:
    """The best of ours beside the best peer at each work and gate."""
    head = ("work, gate", "best of ours", "", "best peer", "", "x best peer")
    texts = {work.name: work for work in WORKS}
    lines = []
    for one in contests(rows):
        work = texts[one.work]
        told = [
            ("nobody", "") if of is None else (work.name_of(of), work.text(work.value(of)))  # type: ignore[arg-type]
            for of in (one.ours, one.theirs)
        ]
        lines.append((f"{one.work}, {one.gate}", *told[0], *told[1], _times(one)))
    return table(head, lines)


def _times(contest: Contest) -> str:
    return "" if contest.times is None else f"{contest.times:.2f}x"


def installed_table(record: dict[str, Any]) -> str:
    """What each peer brings."""
    head = ("peer", "MB", "largest parts, MB", "")
    rows = []
    for peer in sorted(record["peers"], key=lambda one: one["installed_bytes"]):
        parts = [f"{name} {count / 1e6:.0f}" for name, count in list(peer["largest"].items())[:3] if count >= 1e6]
        versions = [f"{name} {version}" for name, version in peer["versions"].items()]
        rows.append((peer["name"], f"{peer['installed_bytes'] / 1e6:.1f}", ", ".join(parts), ", ".join(versions[:4])))
    return table(head, rows)


def _head(record: dict[str, Any]) -> str:
    work, env = record["work"], record["environment"]
    again = "; all of it twice" if len(record["runs"]) > 1 else ""
    jpeg_kb = work["jpeg_bytes"] / 1e3
    given = {**work, "command": record["command"], "model": record["model"], "jpeg_kb": jpeg_kb}
    title, text = _HEAD.split("\n\n")
    return f"{title}\n\n{_wrapped(text.format(**given, threads=env['threads'], again=again))}"


def _machine(record: dict[str, Any]) -> str:
    env = record["environment"]
    created = record["runs"][0]["created"][:10]
    return f"{env['cpu']}, {env['threads']} threads of {env['cores']} cores, Python {env['python']}; {created}."


def _gates(record: dict[str, Any]) -> str:
    ceiling = record["ceiling"]
    told = [f"{ceiling[name]:.0f} GFLOP/s in {name}" for name in ("fp32", "bf16", "int8") if name in ceiling]
    if "copy_gb_per_second" in ceiling:
        told.append(f"and it copies {ceiling['copy_gb_per_second']:.1f} GB/s of memory")
    return _wrapped(_GATES.format(gflop=ENCODER_GFLOP, ceiling=", ".join(told)))


def _movement(record: dict[str, Any]) -> list[str]:
    """How much the figures move: between two runs, and the machine within one."""
    lines = []
    for key, name in (("folder_ms", "a folder"), ("single_ms", "one JPEG"), ("text_ms", "texts")):
        found = moved(record, key)
        if found:
            lines.append(
                f"Run twice, {name}: the medians of a row differ by {statistics.median(found):.1%} in the middle,"
                f" {max(found):.1%} at most."
            )
    alone = [
        f"{one.work}, {one.gate} gate {times[0]:.2f}x and {times[1]:.2f}x"
        for one, times in each_run(record)
        if one.work in _OF_ROUNDS
    ]
    if alone:
        lines.append(f"Ours beside the best peer in each run alone: {'; '.join(alone)}.")
    spreads = [max(row["folder_ms"]) / min(row["folder_ms"]) - 1 for run in record["runs"] for row in run["rows"]]
    probes = [ms for run in record["runs"] for row in run["rows"] for ms in row["probe_ms"]]
    lines.append(
        f"Between the rounds of one run a row's folder differs by {statistics.median(spreads):.0%} in the middle; the"
        f" machine's own probe took {min(probes):.1f} ms at best, {statistics.median(probes):.1f} in the middle,"
        f" {max(probes):.1f} at worst."
    )
    again = sum(row.get("turns_again", 0) for run in record["runs"] for row in run["rows"])
    if again:
        lines.append(
            f"{again} of {again + len(probes)} turns were taken again, as the probe took over {SLOW:g} times its best"
            " right after them."
        )
    return lines


def _absent(record: dict[str, Any]) -> list[dict[str, str]]:
    """Of all runs, each name once."""
    return list({one["name"]: one for run in record["runs"] for one in run["absent"]}.values())


def _or_empty(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
