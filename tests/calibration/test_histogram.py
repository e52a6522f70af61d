"""Histograms that grow, and the ranges by percentile and entropy that follow from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clipdeploy.calibration.entropy import _divergence, best_threshold, clip_bins
from clipdeploy.calibration.histogram import HALF, Histogram
from clipdeploy.calibration.statistics import Method, Observed, Statistics
from clipdeploy.errors import InputError

RNG = np.random.default_rng(0)


def histogram(*parts: np.ndarray) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part)
    return made


def statistics(values: np.ndarray) -> Statistics:
    made = histogram(values)
    return Statistics(1, {"x": Observed(made.low, made.high, made)})


def heavy(count: int = 200_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


def test_counts_are_those_of_numpy() -> None:
    values = heavy()
    made = histogram(values)
    assert made.width == 2.0 ** (made.exponent - math.log2(HALF))
    edges = (np.arange(2 * HALF + 1) - HALF) * made.width
    np.testing.assert_array_equal(made.counts, np.histogram(values.astype(np.float64), edges)[0])
    assert (made.low, made.high, made.count) == (values.min(), values.max(), values.size)
    assert 2.0 ** (made.exponent - 1) <= made.abs_max < 2.0**made.exponent


def test_neither_order_nor_batches_matter() -> None:
    values = np.concatenate([heavy(300_000), np.array([-4000.0, 1e-30, 0.0, 3.0e5], np.float32)])
    whole = histogram(values)
    for order in (np.sort(values), np.sort(values)[::-1], np.random.default_rng(1).permutation(values)):
        parts = histogram(*np.split(order, [1, 10, 1000, 170_000]))
        np.testing.assert_array_equal(parts.counts, whole.counts)
        assert (parts.exponent, parts.low, parts.high) == (whole.exponent, whole.low, whole.high)


@pytest.mark.parametrize("value", [1.0, -1.0, 2.0**-20, -(2.0**100), 3.4e38, 1e-45])
def test_a_single_value_has_its_bin(value: float) -> None:
    made = histogram(np.zeros((2, 3), np.float32), np.array([[value]], np.float32))
    (bins,) = np.nonzero(made.counts)
    assert made.count == 7
    assert made.counts[HALF] >= 6
    (place,) = set(bins.tolist()) - {HALF} or {HALF}
    assert (place - HALF) * made.width <= value < (place - HALF + 1) * made.width


def test_nothing_and_zeros() -> None:
    made = histogram(np.empty((0, 4), np.float32))
    assert (made.count, made.abs_max) == (0, 0.0)
    zeros = statistics(np.zeros(10, np.float32))
    for method in ("max", "percentile", "entropy"):
        assert zeros.range("x", method).high == zeros.range("x", method, symmetric=False).low == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_and_not_counted(bad: float) -> None:
    made = histogram(heavy(100))
    with pytest.raises(ValueError, match="not finite"):
        made.add(np.array([1.0, bad, 2.0], np.float32))
    assert made.count == 100


def test_a_strided_tensor_counts_alike() -> None:
    values = heavy(6000).reshape(10, 20, 30)
    np.testing.assert_array_equal(histogram(values.transpose(2, 0, 1)).counts, histogram(values).counts)


def test_it_goes_through_json_small() -> None:
    made = histogram(heavy())
    text = json.dumps(made.to_dict())
    assert len(text) < 40_000
    read = Histogram.from_dict(json.loads(text))
    np.testing.assert_array_equal(read.counts, made.counts)
    assert (read.exponent, read.low, read.high) == (made.exponent, made.low, made.high)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99, 100.0])
def test_percentiles_within_a_bin(percentile: float) -> None:
    values = heavy()
    seen = statistics(values)
    width = histogram(values).width
    symmetric = seen.range("x", "percentile", percentile=percentile)
    magnitudes = np.sort(np.abs(values))
    kept = math.ceil(values.size * percentile / 100 - 1e-6)
    assert symmetric.high == -symmetric.low == pytest.approx(magnitudes[kept - 1], abs=width)
    asymmetric = seen.range("x", "percentile", percentile=percentile, symmetric=False)
    cut = math.floor(values.size * (1 - percentile / 100) / 2 + 1e-6)
    assert asymmetric.low == pytest.approx(np.sort(values)[cut], abs=width)
    assert asymmetric.high == pytest.approx(np.sort(values)[-1 - cut], abs=width)


def test_ranges_hold_zero_and_reach_no_further_than_the_values() -> None:
    values = np.abs(heavy()) + np.float32(0.5)
    seen = statistics(values)
    methods: tuple[Method, ...] = ("max", "percentile", "entropy")
    for method in methods:
        both, one = seen.range("x", method), seen.range("x", method, symmetric=False)
        assert both.low == -both.high >= -values.max()
        assert one.low == 0.0 < one.high <= values.max()
    assert seen.range("x", "max").high == values.max()


def test_entropy_cuts_outliers_and_keeps_what_has_none() -> None:
    normal = RNG.standard_normal(400_000).astype(np.float32)
    with_outliers = np.concatenate([normal, np.linspace(-1000, 1000, 40, dtype=np.float32)])
    assert 3.5 < statistics(normal).range("x", "entropy").high <= np.abs(normal).max()
    assert 3.0 < statistics(with_outliers).range("x", "entropy").high < 25.0


def test_a_spike_of_zeros_moves_no_threshold() -> None:
    half = np.abs(RNG.standard_normal(200_000).astype(np.float32)) + np.float32(0.01)
    with_zeros = np.concatenate([half, np.zeros(2_000_000, np.float32)])
    assert statistics(with_zeros).range("x", "entropy") == statistics(half).range("x", "entropy")


@pytest.mark.parametrize("seed", range(3))
def test_the_coarse_search_finds_the_best_of_all_thresholds(seed: int) -> None:
    counts = histogram(heavy(seed=seed)).counts.reshape(-1, 16).sum(axis=1)
    half = counts.size // 2
    every = [_divergence(counts, half - kept, half + kept, 255) for kept in range(128, half + 1)]
    found = best_threshold(counts, 255, 0, counts.size)
    assert every[found - 128] <= min(every) * 1.02


def test_the_divergence_is_onnx_runtimes_where_its_steps_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime puts what the number of steps does not divide into the last step, and counts zero as a bin between
    the halves; where a step is a whole number of bins, both search the same function."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = RNG.laplace(size=2_000_000)
    levels, half, width = 15, 256, 16 / 256
    edges = (np.arange(2 * half + 2) - half - 0.5) * width
    counts = np.histogram(values, edges)[0]
    measured: list[float] = []
    own = calibrate.entropy
    monkeypatch.setattr(calibrate, "entropy", lambda p, q: measured.append(own(p, q)) or measured[-1])
    collector = calibrate.HistogramCollector("entropy", True, counts.size, levels, 99.99, "same")
    limit = np.float32(1e9)
    collector.get_entropy_threshold((counts, edges.astype(np.float32), -limit, limit, limit), levels)
    first = levels // 2
    even = [kept for kept in range(first, half + 1) if (2 * kept + 1) % levels == 0 and 2 * kept + 1 >= 45]
    theirs = [float(measured[kept - first]) for kept in even]
    ours = [_divergence(counts, half - kept, half + kept + 1, levels) for kept in even]
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    assert np.argmin(ours) == np.argmin(theirs)


def test_fewer_bins_than_steps() -> None:
    counts = np.zeros(2 * HALF, np.int64)
    counts[HALF - 3 : HALF + 3] = 5
    assert 1 <= clip_bins(counts) <= HALF
    assert 1 <= clip_bins(counts, first=HALF, last=HALF + 3) <= HALF


def test_wrong_questions_are_refused() -> None:
    seen = statistics(heavy(100))
    with pytest.raises(InputError, match="'y' was not observed"):
        seen.abs_max("y")
    with pytest.raises(InputError, match="channels of x were not observed"):
        seen.channel_abs_max("x")
    with pytest.raises(InputError, match=r"50 \.\. 100"):
        seen.range("x", "percentile", percentile=0.9999)
    with pytest.raises(InputError, match="unknown method 'mean'"):
        seen.range("x", "mean")  # type: ignore[arg-type]
    only = Statistics(1, {"x": Observed(-1.0, 2.0)})
    assert only.range("x", "max", symmetric=False).high == 2.0
    with pytest.raises(InputError, match="only the extremes"):
        only.range("x", "percentile")
