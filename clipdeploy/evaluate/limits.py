"""What a pair must reach: shares, and how far it may lie below the reference. For a gate in CI."""

from __future__ import annotations

from collections.abc import Sequence

from clipdeploy.errors import InputError
from clipdeploy.evaluate.records import EvaluateRequest, PairFigures, Task

METRICS: dict[Task, tuple[str, ...]] = {
    "zeroshot_classification": ("acc1", "acc5", "mean_per_class_recall"),
    "zeroshot_retrieval": tuple(f"{side}_retrieval_recall@{k}" for k in (1, 5, 10) for side in ("image", "text")),
}
"""The metrics of a task, by CLIP_benchmark's names."""

MAIN: dict[Task, tuple[str, ...]] = {
    "zeroshot_classification": ("acc1",),
    "zeroshot_retrieval": ("text_retrieval_recall@1", "image_retrieval_recall@1"),
}
"""Those that `max_drop` is asked of; the first is of pictures, and told of groups."""


def check_limits(request: EvaluateRequest, task: Task, *, has_reference: bool) -> None:
    """Raise InputError for limits that cannot be asked of this task."""
    for metric, least in request.at_least:
        if metric not in METRICS[task]:
            raise InputError(f"no metric {metric!r} here; there are {', '.join(METRICS[task])}", fix="name one of them")
        if not 0.0 <= least <= 1.0:
            raise InputError(f"{metric} is a share from 0 to 1, {least} was asked for", fix="such as acc1=0.6")
    if request.max_drop is not None and not 0.0 <= request.max_drop <= 1.0:
        raise InputError(f"a drop is a share from 0 to 1, got {request.max_drop}", fix="such as 0.01, one point")
    if request.max_drop is not None and not has_reference:
        raise InputError(
            "there is no reference to measure a drop from: nothing runs the bundle in fp32 here",
            fix="name the checkpoint, or leave the drop away",
        )


def find_misses(request: EvaluateRequest, task: Task, pairs: Sequence[PairFigures]) -> tuple[str, ...]:
    """A sentence for each pair and limit that it does not keep; the reference is the first pair."""
    misses = []
    for pair in pairs:
        for metric, least in request.at_least:
            value = pair.metrics.get(metric)
            if value is None or not value >= least:  # what is not a number misses too
                misses.append(f"{pair.name}: {metric} is {_share(value)}, {least:.2%} was asked for")
        if request.max_drop is None or pair is pairs[0]:
            continue
        for metric in MAIN[task]:
            before, now = pairs[0].metrics[metric], pair.metrics[metric]
            if not before - now <= request.max_drop + 1e-12:
                misses.append(
                    f"{pair.name}: {metric} is {now:.2%}, {before - now:.2%} below {pairs[0].name}; "
                    f"{request.max_drop:.2%} was allowed"
                )
    return tuple(misses)


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2%}"
