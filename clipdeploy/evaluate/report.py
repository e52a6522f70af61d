"""The result as text for a terminal, and the tables and sentences that the page shows as well."""

from __future__ import annotations

from collections.abc import Sequence

from clipdeploy.evaluate.limits import MAIN
from clipdeploy.evaluate.records import EvaluateResult, Gap, GroupFigures, PairFigures
from clipdeploy.text import pairs as told
from clipdeploy.text import plural, table

SHORT = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "per class",
    **{f"image_retrieval_recall@{k}": f"image R@{k}" for k in (1, 5, 10)},
    **{f"text_retrieval_recall@{k}": f"text R@{k}" for k in (1, 5, 10)},
}
"""Names of metrics in tables."""

_CLASSES, _CONFUSIONS, _DROPS = 8, 8, 5


def text_report(result: EvaluateResult) -> str:
    """The whole report."""
    blocks = [told(facts(result)), pair_text(result)]
    worst = furthest(result)
    if result.classes:
        blocks += [_classes(result, worst), _confusions(result, worst)]
    if worst.drops:
        blocks.append(_drops(worst))
    if result.pairs[0].groups:
        blocks.append(_groups(result, worst))
    return "\n\n".join(block for block in blocks if block)


def facts(result: EvaluateResult) -> list[tuple[str, str]]:
    """What was evaluated on what, as (name, value)."""
    if result.classes:
        asked = f"{plural(result.count, 'picture')} of {_classes_of(result)}"
    else:
        asked = f"{plural(result.count, 'picture')}, {plural(result.captions, 'caption')}"
    rows = [("bundle", f"{result.bundle}, {result.model}"), ("data", f"{result.dataset}, {result.layout}: {asked}")]
    if len(result.templates) > 1:
        rows.append(
            ("templates", f"{len(result.templates)}, the mean of their embeddings; first: {result.templates[0]}")
        )
    elif result.templates:
        rows.append(("template", result.templates[0]))
    if result.skipped:
        rows.append(("skipped", f"{plural(len(result.skipped), 'picture')} that cannot be read"))
    return [*rows, *(("note", note) for note in result.notes)]


def furthest(result: EvaluateResult) -> PairFigures:
    """The pair that lies furthest below the reference; the reference itself where it is alone."""
    main = MAIN[result.task]

    def loss(pair: PairFigures) -> tuple[float, float]:
        beside = pair.agreement
        lost = sum(result.pairs[0].metrics[name] - pair.metrics[name] for name in main)
        return lost, 0.0 if beside is None else 1.0 - beside.same_answer

    return max(result.pairs[1:], key=loss, default=result.pairs[0])


def metric_names(result: EvaluateResult) -> list[str]:
    """The metrics that this dataset has, in their order."""
    return [name for name in SHORT if name in result.pairs[0].metrics]


def pair_head(result: EvaluateResult) -> tuple[str, ...]:
    """The header of the table of pairs."""
    beside = ("lost", "same answer", "cosine mean", "least") if _compared(result) else ()
    return ("", *(SHORT[name] for name in metric_names(result)), *beside, "seconds")


def pair_rows(result: EvaluateResult) -> list[tuple[str, ...]]:
    """The table of pairs: a row each, the reference first."""
    rows = []
    for pair in result.pairs:
        cells = [share(pair.metrics[name]) for name in metric_names(result)]
        if _compared(result):
            cells += _beside(result, pair)
        rows.append((pair.name, *cells, f"{pair.seconds:.1f}"))
    return rows


def pair_text(result: EvaluateResult) -> str:
    """The table of pairs for a terminal, with what the reference is, and what could not run."""
    head = pair_head(result)
    lines = [table(head, pair_rows(result), right=range(1, len(head)))]
    if _compared(result):
        lines.append(f"lost, same answer and cosine: beside {result.pairs[0].name}")
    lines += [f"not run: {name}: {why}" for name, why in result.absent.items()]
    return "\n".join(lines)


def weak_classes(result: EvaluateResult, pair: PairFigures) -> list[int]:
    """The classes that a pair or the reference does not have all right, the worst first."""
    first = result.pairs[0]
    known = [index for index, recall in enumerate(pair.per_class) if recall is not None]
    weak = [index for index in known if min(pair.per_class[index] or 0.0, first.per_class[index] or 0.0) < 1.0]
    return sorted(weak, key=lambda index: (pair.per_class[index] or 0.0, -(first.per_class[index] or 0.0)))


def class_rows(result: EvaluateResult, pair: PairFigures, indices: Sequence[int]) -> list[tuple[str, ...]]:
    """Some classes: name, pictures, recall in the reference, recall here."""
    first = result.pairs[0]
    return [
        (
            result.classes[index],
            str(result.class_counts[index]) if result.class_counts else "",
            share(first.per_class[index]),
            share(pair.per_class[index]),
        )
        for index in indices
    ]


def confusion_rows(result: EvaluateResult, pair: PairFigures, count: int) -> list[tuple[str, ...]]:
    """What a pair takes for what most often: class, answer, how often in the reference, how often here."""
    before = {(one.truth, one.answer): one.count for one in result.pairs[0].confusions}
    return [
        (
            result.classes[one.truth],
            result.classes[one.answer],
            str(before.get((one.truth, one.answer), 0)),
            str(one.count),
        )
        for one in pair.confusions[:count]
    ]


def gap_sentence(pair: PairFigures, gap: Gap, reference: str) -> str:
    """How far the groups lie apart under a pair, and whether that is further than in the reference."""
    low, high = (f"{100 * end:+.1f}" for end in gap.interval)
    meaning = {
        "widens": "wider than in the reference",
        "narrows": "narrower than in the reference",
    }.get(gap.verdict, "no difference shown: the interval holds 0")
    return (
        f"{pair.name}: {SHORT.get(gap.metric, gap.metric)} is best for {gap.best} and worst for {gap.worst}, "
        f"{points(gap.gap)} apart; {points(gap.reference_gap)} under {reference}. "
        f"Change {100 * gap.widened_by:+.1f} (95 %: {low} to {high}): {meaning}"
    )


def gap_sentences(result: EvaluateResult) -> list[str]:
    """A sentence for every pair beside the reference; one for all whose groups answer just as there."""
    reference = result.pairs[0]
    sentences, same = [], []
    for pair in result.pairs[1:]:
        if pair.gap is None:
            continue
        if [group.metrics for group in pair.groups] == [group.metrics for group in reference.groups]:
            same.append(pair.name)
        else:
            sentences.append(gap_sentence(pair, pair.gap, reference.name))
    return [*sentences, *([f"every group just as under {reference.name}: {', '.join(same)}"] if same else [])]


def group_cell(group: GroupFigures, metric: str) -> str:
    """Such as `91.7 % (61.5 to 98.5)`."""
    low, high = group.interval
    return f"{share(group.metrics[metric])} ({100 * low:.1f} to {100 * high:.1f})"


def group_rows(result: EvaluateResult, pair: PairFigures) -> list[tuple[str, ...]]:
    """Every group under the reference and under a pair, with 95 % intervals."""
    metric = MAIN[result.task][0]
    here = {group.group: group for group in pair.groups}
    return [
        (group.group, str(group.count), group_cell(group, metric), group_cell(here[group.group], metric))
        for group in result.pairs[0].groups
    ]


def share(value: float | None) -> str:
    """`91.67 %`; a dash for what is not known."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


def points(value: float) -> str:
    """A difference of shares."""
    return f"{100 * value:.1f} points"


def _compared(result: EvaluateResult) -> bool:
    return any(pair.agreement is not None for pair in result.pairs)


def _beside(result: EvaluateResult, pair: PairFigures) -> list[str]:
    if pair.agreement is None:
        return ["", "", "", ""]
    main = MAIN[result.task]
    lost = max(result.pairs[0].metrics[name] - pair.metrics[name] for name in main)
    same = pair.agreement
    return [f"{100 * lost:+.2f}", share(same.same_answer), f"{same.cosine_mean:.6f}", f"{same.cosine_least:.6f}"]


def _classes_of(result: EvaluateResult) -> str:
    empty = sum(not count for count in result.class_counts)
    text = f"{len(result.classes)} classes"
    return f"{text}, {empty} of them without pictures" if empty else text


def _columns(result: EvaluateResult, pair: PairFigures) -> tuple[str, ...]:
    return (result.pairs[0].name, pair.name)


def _classes(result: EvaluateResult, pair: PairFigures) -> str:
    head = ("class", "pictures", *_columns(result, pair))
    rows = class_rows(result, pair, weak_classes(result, pair)[:_CLASSES])
    return "worst classes\n" + table(head, rows, right=(1, 2, 3)) if rows else ""


def _confusions(result: EvaluateResult, pair: PairFigures) -> str:
    rows = confusion_rows(result, pair, _CONFUSIONS)
    head = ("class", "taken for", *_columns(result, pair))
    return "most frequent confusions\n" + table(head, rows, right=(2, 3)) if rows else ""


def _drops(pair: PairFigures) -> str:
    head = ("picture", "is", f"{pair.name} says", "before", "now", "margin")
    rows = [
        (
            drop.name,
            _short(drop.words[0]),
            _short(drop.words[2]),
            share(drop.chances[0]) if drop.chances else "",
            share(drop.chances[1]) if drop.chances else "",
            f"{drop.margin_before:+.4f} to {drop.margin_now:+.4f}",
        )
        for drop in pair.drops[:_DROPS]
    ]
    more = f" ({_DROPS} of {len(pair.drops)})" if len(pair.drops) > _DROPS else ""
    return f"worst drops: right before, wrong now{more}\n" + table(head, rows, right=(3, 4))


def _groups(result: EvaluateResult, pair: PairFigures) -> str:
    head = ("group", "pictures", *_columns(result, pair))
    rows: Sequence[tuple[str, ...]] = group_rows(result, pair)
    name = SHORT[MAIN[result.task][0]]
    return "\n".join([f"groups, {name} with 95 % intervals", table(head, rows, right=(1,)), *gap_sentences(result)])


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
