"""The accuracy budget: what it measures, the samples it is measured with, and the search for a recipe that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

from clipdeploy.calibration.accuracy import Accuracy, Budget, budget_of, compare
from clipdeploy.calibration.budget import Recipe, Search, Trial, search
from clipdeploy.calibration.split import HELD_OUT_FROM, MEASURED, SENSED, Rows, split
from clipdeploy.errors import InputError
from clipdeploy.spec import Precision

PERFECT = Accuracy(1.0, 1.0, 1.0, decided=10, samples=10)


def unit(values: object) -> np.ndarray:
    rows = np.asarray(values, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_and_top1() -> None:
    bank = unit([[1, 0], [0, 1]])
    expected = unit([[1, 0.1], [0.1, 1], [1, 1.0005]])
    found = unit([[1, 0.1], [1, 0.1], [1, 0.9]])
    accuracy = compare(found, expected, bank)
    assert (accuracy.decided, accuracy.samples, accuracy.top1) == (2, 3, 0.5)  # the third is a tie of the reference
    assert accuracy.cosine_min == pytest.approx(float(found[1] @ expected[1]), abs=1e-6)
    assert accuracy.missed(Budget()) == (
        f"mean cosine {accuracy.cosine_mean:.4f} < 0.99",
        f"least cosine {accuracy.cosine_min:.4f} < 0.97",
        "top-1 agreement 0.5000 < 0.99",
    )


def test_what_is_not_finite_is_outside_every_budget() -> None:
    expected = unit([[1, 0], [0, 1]])
    accuracy = compare(np.array([[np.nan, 0], [0, 1]], np.float32), expected, expected)
    assert accuracy.cosine_min == -1.0
    assert not accuracy.holds(Budget(0.0, 0.0, 0.0))


def test_budgets() -> None:
    assert (budget_of(Precision.INT8), budget_of(Precision.FP8)) == (Budget(), Budget(0.99, 0.97, 0.99))
    assert budget_of(Precision.FP16).cosine_mean > budget_of(Precision.BF16).cosine_mean > Budget().cosine_mean
    with pytest.raises(InputError, match="impossible"):
        Budget(cosine_mean=1.2)


def test_a_quarter_measures_that_did_not_calibrate() -> None:
    parts = split([], 512)
    assert (parts.calibrate.count, parts.measure.count, parts.held_out) == (384, MEASURED, 128)
    assert not set(parts.calibrate.picked) & set(parts.measure.picked)
    assert max(np.diff(parts.measure.picked)) <= 5  # spread evenly
    assert parts.sense.count == SENSED and set(parts.sense.picked) <= set(parts.measure.picked)
    some = split([], 100)
    assert (some.calibrate.count, some.measure.count, some.held_out) == (75, 100, 25)
    few = split([], HELD_OUT_FROM - 1)
    assert (few.calibrate.count, few.measure.count, few.held_out) == (63, 63, 0)


def test_rows_of_batches() -> None:
    batches = [{"x": np.arange(0, 5)}, {"x": np.arange(5, 9)}]
    picked = Rows(batches, (1, 4, 5, 8), size=3)
    for _ in range(2):
        assert [feed["x"].tolist() for feed in picked] == [[1, 4, 5], [8]]


def outcome(
    needed: Recipe | int, *, blocks: int = 12, smoothable: bool = True, budget: Budget | None = None
) -> tuple[Search, list[Recipe], list[str]]:
    """A search in which a recipe, or so many blocks given back, are enough."""
    built: list[Recipe] = []
    alone: list[str] = []

    def build(recipe: Recipe) -> Trial:
        built.append(recipe)
        good = len(recipe.kept) >= needed if isinstance(needed, int) else recipe == needed
        cosine = 0.995 if good else 0.9 + 0.001 * len(recipe.kept) + 0.01 * recipe.smooth
        return Trial(recipe, blocks - len(recipe.kept), 100 + len(recipe.kept), replace(PERFECT, cosine_mean=cosine))

    def lone(recipe: Recipe, block: str) -> float:
        alone.append(block)
        return float(block.removeprefix("b"))

    def remedies(trials: Sequence[Trial]) -> Recipe | None:
        all_of = [Recipe("percentile"), *([Recipe("percentile", smooth=True)] if smoothable else []), Recipe("max")]
        return all_of[len(trials)] if len(trials) < len(all_of) else None

    names = [f"b{i}" for i in range(blocks)]
    found = search(build, lone, remedies=remedies, blocks=names, budget=budget or Budget())
    assert [trial.recipe for trial in found.trials] == built
    return found, built, alone


def test_what_holds_as_asked_is_kept() -> None:
    found, built, alone = outcome(0)
    assert (found.held, built, alone) == (True, [Recipe("percentile")], [])


def test_cheap_remedies_come_before_blocks() -> None:
    found, built, alone = outcome(Recipe("max"))
    assert found.chosen.recipe == Recipe("max")
    assert built == [Recipe("percentile"), Recipe("percentile", smooth=True), Recipe("max")]
    assert not alone


@pytest.mark.parametrize("needed", range(1, 12))
def test_the_fewest_blocks_go_back_the_most_sensitive_first(needed: int) -> None:
    found, built, alone = outcome(needed)
    assert found.held
    assert found.chosen.recipe.smooth  # on the best of the remedies
    assert found.chosen.recipe.kept == {f"b{i}" for i in range(12 - needed, 12)}
    assert len(alone) == 12 and found.sensitivity["b3"] == 3.0
    steps = [len(recipe.kept) for recipe in built if recipe.kept]
    assert steps[: min(needed, 4)] == list(range(1, min(needed, 4) + 1))
    assert len(steps) <= 9


def test_when_nothing_is_left_the_best_is_told() -> None:
    found, _, _ = outcome(99)
    assert not found.held
    assert len(found.chosen.recipe.kept) == 11  # all twelve would quantise nothing
    assert found.chosen.accuracy.cosine_mean == max(trial.accuracy.cosine_mean for trial in found.trials)


def test_one_block_cannot_be_given_back() -> None:
    found, built, alone = outcome(99, blocks=1)
    assert not found.held and not alone
    assert not any(recipe.kept for recipe in built)


def test_recipes_in_words() -> None:
    assert str(Recipe()) == "as it is"
    assert str(Recipe("entropy", smooth=True, kept=frozenset("a"))) == "entropy ranges, smoothed, 1 block given back"
    assert str(Recipe("max", kept=frozenset("ab"))) == "max ranges, 2 blocks given back"
