"""The search for a typed graph inside the accuracy budget: cheap remedies first, then blocks given back.

1. As asked.
2. SmoothQuant folded into the norms.
3. Other ranges.
4. Blocks given back to higher precision, the most sensitive first, until the budget holds or no block is left: one at
   a time up to `SINGLE_STEPS`, then in growing steps and from the first that holds back to the fewest that do.

Every candidate is built and measured; what was tried stands in the result, whether it held or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clipdeploy.calibration.accuracy import Accuracy, Budget
from clipdeploy.calibration.statistics import Method
from clipdeploy.progress import Progress, silent

SINGLE_STEPS = 4
GROWTH = 1.5


@dataclass(frozen=True)
class Recipe:
    """How a typed graph is made.

    Attributes:
        method: where the ranges of activations come from; None where the recipe needs none.
        smooth: SmoothQuant first.
        kept: blocks left in higher precision.
    """

    method: Method | None = None
    smooth: bool = False
    kept: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = [f"{self.method} ranges"] if self.method else []
        parts += ["smoothed"] if self.smooth else []
        parts += [f"{len(self.kept)} block{'s' * (len(self.kept) > 1)} given back"] if self.kept else []
        return ", ".join(parts) or "as it is"


@dataclass(frozen=True)
class Trial:
    """A recipe that was built and measured.

    Attributes:
        layers: how many layers have the asked precision.
        size_bytes: of its graph.
    """

    recipe: Recipe
    layers: int
    size_bytes: int
    accuracy: Accuracy


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        chosen: the trial to keep: the one inside the budget, else the most accurate of all.
        held: whether it is inside.
        trials: all of them, in order.
        sensitivity: block -> 1 - mean cosine with that block alone in the asked precision; empty where no block had to
            go back.
    """

    chosen: Trial
    held: bool
    trials: tuple[Trial, ...]
    sensitivity: dict[str, float]


def search(
    build: Callable[[Recipe], Trial],
    alone: Callable[[Recipe, str], float],
    *,
    remedies: Callable[[Sequence[Trial]], Recipe | None],
    blocks: Sequence[str],
    budget: Budget,
    progress: Progress = silent,
) -> Search:
    """Find a recipe inside the budget.

    Args:
        build: builds a recipe's graph and measures it.
        alone: 1 - mean cosine with one block of a recipe in the asked precision and all others left alone.
        remedies: the next recipe without any block given back, after those tried; None when there is no other.
        blocks: those that may be given back.
        budget: what must hold.
        progress: told of each step.
    """
    trials: list[Trial] = []

    def tried(recipe: Recipe) -> Trial:
        progress(f"trying {recipe}", 0, 0)
        trials.append(build(recipe))
        return trials[-1]

    while (recipe := remedies(trials)) is not None:
        if tried(recipe).accuracy.holds(budget):
            return Search(trials[-1], True, tuple(trials), {})
    base = max(trials, key=_quality).recipe
    sensitivity = {}
    for index, block in enumerate(blocks if len(blocks) > 1 else ()):
        progress("measuring the blocks' sensitivity", index, len(blocks))
        sensitivity[block] = alone(base, block)
    order = sorted(sensitivity, key=lambda block: -sensitivity[block])
    found = _fewest(lambda count: tried(replace(base, kept=frozenset(order[:count]))), len(order) - 1, budget)
    return Search(found or max(trials, key=_quality), found is not None, tuple(trials), sensitivity)


def _fewest(given_back: Callable[[int], Trial], most: int, budget: Budget) -> Trial | None:
    """The trial with the fewest blocks given back that holds; None where even `most` do not."""
    failed, count = 0, 1
    while count <= most:
        trial = given_back(count)
        if trial.accuracy.holds(budget):
            break
        failed = count
        count = count + 1 if count < SINGLE_STEPS else max(count + 1, int(count * GROWTH))
        if failed < most < count:
            count = most
    else:
        return None
    while count - failed > 1:
        middle = (failed + count) // 2
        attempt = given_back(middle)
        if attempt.accuracy.holds(budget):
            trial, count = attempt, middle
        else:
            failed = middle
    return trial


def _quality(trial: Trial) -> tuple[float, float]:
    return trial.accuracy.cosine_mean, trial.accuracy.top1
