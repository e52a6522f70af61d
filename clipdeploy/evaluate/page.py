"""The result as one self-contained page: the pairs, what fell and how it looks, classes, confusions, groups."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.evaluate import report
from clipdeploy.evaluate.limits import MAIN
from clipdeploy.evaluate.matrix import MATRIX_CSS, MOST_CLASSES, confusion_matrix
from clipdeploy.evaluate.records import Drop, EvaluateResult, PairFigures
from clipdeploy.pages.charts import CHART_CSS, Axis, Bar, Series, Stack, bar_chart, line_chart, stacked_bars
from clipdeploy.pages.markup import Html, el, page
from clipdeploy.pages.style import CSS
from clipdeploy.text import plural

_THUMBNAIL_PX, _QUALITY = 144, 82
_DROPS, _DROPS_OF_OTHERS, _BARS, _ROWS, _SKIPPED = 12, 6, 16, 12, 50

_MORE = """
table { border-collapse:collapse; width:100%; font-size:.88rem; margin-top:.6rem; }
th { text-align:left; color:var(--soft); font-weight:600; }
th, td { padding:.25rem .8rem .25rem 0; vertical-align:top; }
td { border-top:1px solid var(--line); font-variant-numeric:tabular-nums; }
td.number, th.number { text-align:right; white-space:nowrap; } tr.first td { font-weight:650; }
.drops { display:grid; grid-template-columns:repeat(auto-fill,minmax(150px,1fr)); gap:14px; margin-top:.8rem; }
.drops img { width:100%; max-width:180px; aspect-ratio:1; object-fit:contain; border-radius:6px; display:block;
  background:var(--track); }
.drops figcaption b { font-weight:650; } .drops .now { color:var(--bad); } .drops .was { color:var(--good); }
.drops .file { color:var(--soft); font-size:.78rem; }
.two { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr)); gap:18px; margin-top:.8rem; }
"""


def render(result: EvaluateResult, pictures: Mapping[int, str]) -> str:
    """The page as text.

    Args:
        result: what came of it.
        pictures: of the items that `shown_items` names, as data URIs of `thumbnail`.
    """
    worst = report.furthest(result)
    others = [pair for pair in result.pairs[1:] if pair is not worst and pair.drops]
    return page(
        f"{result.bundle} on {result.dataset}",
        CSS + CHART_CSS + MATRIX_CSS + _MORE,
        el(
            "main",
            _header(result),
            _pairs(result),
            _drops(result, worst, pictures, _DROPS) if worst.drops else None,
            _groups(result, worst),
            [_drops(result, pair, pictures, _DROPS_OF_OTHERS) for pair in others],
            _classes(result, worst) if result.classes else None,
            _confusions(result, worst) if result.classes else None,
            _skipped(result),
            _footer(result),
        ),
    )


def shown_items(result: EvaluateResult) -> tuple[int, ...]:
    """The items whose pictures the page shows."""
    worst = report.furthest(result)
    return tuple(
        dict.fromkeys(
            drop.item for pair in result.pairs for drop in pair.drops[: _DROPS if pair is worst else _DROPS_OF_OTHERS]
        )
    )


def thumbnail(crop: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 RGB, what the model sees, as the data URI of a small JPEG."""
    image = Image.fromarray(crop)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _header(result: EvaluateResult) -> Html:
    facts = [el("div", el("dt", name), el("dd", value)) for name, value in report.facts(result)]
    verdict = [el("p", el("span", miss, class_="verdict fail")) for miss in result.misses]
    return el(
        "header",
        el("p", "evaluation", class_="over"),
        el("h1", f"{result.bundle} on {result.dataset}"),
        verdict,
        el("dl", facts),
    )


def _pairs(result: EvaluateResult) -> Html:
    reference = result.pairs[0].name
    compared = any(pair.agreement is not None for pair in result.pairs)
    absent = [el("p", f"not run: {name}: {why}", class_="note") for name, why in result.absent.items()]
    return el(
        "section",
        el("h2", "backends and precisions", el("small", plural(result.count, "picture"))),
        _table(report.pair_head(result), report.pair_rows(result), strong_first=compared),
        el("p", f"lost, same answer and cosine are beside {reference}, on the same pictures.", class_="note")
        if compared
        else None,
        absent,
        _alone(result),
    )


def _alone(result: EvaluateResult) -> Html | None:
    """Answers that only one of the two has right: a loss that gains hide shows here."""
    first = result.pairs[0].name
    stacks = []
    for pair in result.pairs:
        beside = pair.agreement
        if beside is not None and beside.only_reference + beside.only_this:
            alone = {f"right in {first} only": 100 * beside.only_reference, "right here only": 100 * beside.only_this}
            stacks.append(Stack(pair.name, alone, shown=f"{sum(alone.values()):.2f} %"))
    if not stacks:
        return None
    chart = stacked_bars(stacks, x=Axis("answers", "%"), title="answers that only one of the two has right")
    return el("div", chart, class_="two")


def _groups(result: EvaluateResult, worst: PairFigures) -> Html | None:
    if not result.pairs[0].groups:
        return None
    head = ("group", "pictures", result.pairs[0].name, worst.name)
    sentences = [el("p", sentence) for sentence in report.gap_sentences(result)]
    return el(
        "section",
        el("h2", "groups", el("small", f"{report.SHORT[MAIN[result.task][0]]}, with 95 % intervals")),
        el(
            "p",
            "Intervals of few pictures are wide. A gap of groups may come from the pictures, the classes among them or "
            "their names; what is compared here is whether it grows beside the reference, on the same pictures.",
            class_="meaning",
        ),
        _table(head, report.group_rows(result, worst)),
        sentences,
    )


def _drops(result: EvaluateResult, pair: PairFigures, pictures: Mapping[int, str], count: int) -> Html:
    shown = pair.drops[:count]
    told = f"{len(shown)} of {len(pair.drops)}" if len(pair.drops) > len(shown) else plural(len(shown), "picture")
    return el(
        "section",
        el("h2", f"worst drops of {pair.name}", el("small", told)),
        el(
            "p",
            f"Right in {result.pairs[0].name} and wrong here: in green the answer there, in red the one here. "
            "The pictures as the model sees them.",
            class_="meaning",
        ),
        el("div", [_drop(drop, pictures) for drop in shown], class_="drops"),
    )


def _drop(drop: Drop, pictures: Mapping[int, str]) -> Html:
    before = now = truth = None
    if drop.chances is not None:
        before, now = f" {100 * drop.chances[0]:.1f} %", f" {100 * drop.chances[1]:.1f} %"
        truth = f"; {drop.words[0]} now has {report.share(drop.chances[2])}"
    told = f"margin {drop.margin_before:+.4f} to {drop.margin_now:+.4f}{truth or ''}"
    source = pictures.get(drop.item)
    return el(
        "figure",
        el("img", src=source, alt=drop.name, title=told, loading="lazy") if source else None,
        el(
            "figcaption",
            el("span", el("b", drop.words[1], class_="was"), before),
            el("span", el("b", drop.words[2], class_="now"), now),
            el("span", drop.name, class_="file"),
        ),
    )


def _classes(result: EvaluateResult, worst: PairFigures) -> Html:
    first = result.pairs[0]
    head = ("class", "pictures", first.name, worst.name)
    charts = [chart for chart in (_worst_classes(result, worst), _all_classes(result)) if chart is not None]
    return el(
        "section",
        el("h2", "classes", el("small", f"{len(result.classes)}")),
        el("p", "Recall: of the pictures of a class, the share that is called so.", class_="meaning"),
        el("div", charts, class_="two"),
        el(
            "details",
            el("summary", "as a table"),
            _table(head, report.class_rows(result, worst, range(len(result.classes)))),
        ),
    )


def _worst_classes(result: EvaluateResult, worst: PairFigures) -> Html | None:
    first = result.pairs[0]
    bars = []
    for index in report.weak_classes(result, worst)[:_BARS]:
        recall, before = worst.per_class[index] or 0.0, first.per_class[index]
        ceiling = 100 * before if before is not None and worst is not first else None
        bars.append(Bar(result.classes[index], 100 * recall, shown=f"{100 * recall:.1f} %", ceiling=ceiling))
    if not any(bar.value or bar.ceiling for bar in bars):
        return None
    told = f"{first.name}" if worst is not first else ""
    return bar_chart(bars, x=Axis("recall", "%"), title=f"worst classes of {worst.name}", ceiling=told)


def _all_classes(result: EvaluateResult) -> Html | None:
    """The recall of every class, under every pair, sorted for each."""
    series = []
    for pair in _distinct(result):
        recalls = sorted((100 * recall for recall in pair.per_class if recall is not None), reverse=True)
        tips = [f"{pair.name}: {recall:.1f} % for class {rank}" for rank, recall in enumerate(recalls, start=1)]
        series.append(Series(pair.name, list(enumerate(recalls, start=1)), tips=tips))
    if len(series[0].points) < 3:
        return None
    return line_chart(series, x=Axis("class, from the best"), y=Axis("recall", "%"), title="recall of all classes")


def _distinct(result: EvaluateResult) -> list[PairFigures]:
    """Pairs whose lines part: those that look the same are drawn once."""
    kept: dict[tuple[float | None, ...], PairFigures] = {}
    for pair in result.pairs:
        kept.setdefault(pair.per_class, pair)
    return list(kept.values())[:6]


def _confusions(result: EvaluateResult, worst: PairFigures) -> Html | None:
    first = result.pairs[0]
    mains = [first] if worst is first else [first, worst]
    rows = report.confusion_rows(result, worst, _ROWS)
    if not rows:
        return None
    small = 0 < sum(map(bool, result.class_counts)) <= MOST_CLASSES
    maps = [el("div", el("h3", pair.name), confusion_matrix(result, pair), class_="mapbox") for pair in mains]
    return el(
        "section",
        el("h2", "confusions", el("small", worst.name)),
        _table(("class", "taken for", first.name, worst.name), rows),
        el("div", maps, class_="maps") if small else None,
    )


def _skipped(result: EvaluateResult) -> Html | None:
    if not result.skipped:
        return None
    rows = list(result.skipped.items())
    more = f"and {len(rows) - _SKIPPED} more" if len(rows) > _SKIPPED else None
    return el(
        "section",
        el("h2", "skipped", el("small", plural(len(rows), "picture"))),
        _table(("picture", "why"), rows[:_SKIPPED]),
        el("p", more, class_="note") if more else None,
    )


def _footer(result: EvaluateResult) -> Html:
    made = ", ".join(f"{name} {version}" for name, version in result.environment.get("libraries", {}).items())
    return el("footer", f"clipdeploy evaluate, {result.created}, {result.seconds:.0f} s. {made}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, strong_first: bool = False) -> Html:
    """A table; columns whose cells are numbers are flushed right."""
    numbers = [all(row[column][:1] in "+-0123456789" or not row[column] for row in rows) for column in range(len(head))]
    looks = ["number" if number and column else None for column, number in enumerate(numbers)]
    body = [
        el(
            "tr",
            [el("td", [cell] if cell else [], class_=look) for cell, look in zip(row, looks, strict=True)],
            class_="first" if strong_first and index == 0 else None,
        )
        for index, row in enumerate(rows)
    ]
    top = el("tr", [el("th", [name] if name else [], class_=look) for name, look in zip(head, looks, strict=True)])
    return el("div", el("table", top, body), class_="scroll")
