"""Figures beside slow loops over sorted lists, and beside CLIP_benchmark's formulas where PyTorch is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from clipdeploy.evaluate import metrics
from clipdeploy.evaluate.metrics import (
    Ranked,
    classification,
    confusions,
    paired_bootstrap,
    per_class_recall,
    rank,
    retrieval,
    wilson,
)
from clipdeploy.evaluate.records import Confusion


def unit(random: np.random.Generator, count: int, width: int = 12) -> Any:
    rows = random.standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_order(query: Any, keys: Any) -> list[int]:
    """Keys from the best on, of equal scores the first one."""
    scores = keys @ query
    return sorted(range(len(keys)), key=lambda key: (-scores[key], key))


def retrieval_data(seed: int = 0, pictures: int = 40) -> tuple[Any, Any, list[tuple[int, ...]], list[tuple[int]]]:
    """Pictures, captions near them (0 to 4 more than one each), whose they are."""
    random = np.random.default_rng(seed)
    images = unit(random, pictures)
    own: list[tuple[int, ...]] = []
    owners: list[tuple[int]] = []
    texts = []
    for picture in range(pictures):
        count = 1 + int(random.integers(0, 5))
        own.append(tuple(range(len(owners), len(owners) + count)))
        owners += [(picture,)] * count
        texts.append(images[picture] + random.standard_normal((count, images.shape[1])) * 0.55)
    rows = np.concatenate(texts).astype(np.float32)
    return images, rows / np.linalg.norm(rows, axis=1, keepdims=True), own, owners


def test_ranks_are_those_of_a_sorted_list(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts, own, _ = retrieval_data()
    monkeypatch.setattr(metrics, "_SCORES_AT_ONCE", 3 * len(texts))  # several blocks, the last one short
    ranked = rank(images, texts, own)
    for row, query in enumerate(images):
        order = slow_order(query, texts)
        places = [order.index(key) for key in own[row]]
        scores = texts @ query
        others = [score for key, score in enumerate(scores) if key not in own[row]]
        assert ranked.rank[row] == min(places)
        assert ranked.answer[row] == order[0]
        assert ranked.truth[row] == order[min(places)]
        assert ranked.margin[row] == pytest.approx(scores[order[min(places)]] - max(others), abs=1e-6)


def test_of_equal_scores_the_first_key_comes_first() -> None:
    query, same = np.array([[1, 0]], np.float32), np.array([[1, 0]] * 6, np.float32)
    assert rank(query, same, [(3,)]).rank.tolist() == [3]
    assert rank(query, same, [(4, 2)]).rank.tolist() == [2]
    assert rank(query, same, [(4, 2)]).truth.tolist() == [2]
    assert not rank(query, same, [(3,)]).right[0]
    assert rank(query, same, [(0,)]).right[0]


def test_broken_embeddings_are_never_right() -> None:
    images = np.full((1, 2), np.nan, np.float32)
    ranked = rank(images, np.eye(2, dtype=np.float32), [(0,)])
    assert ranked.rank.tolist() == [2]
    assert not ranked.right[0]
    assert not ranked.within(5)[0]
    one_broken = rank(np.eye(2, dtype=np.float32)[:1], np.array([[1, 0], [np.nan, 0]], np.float32), [(0,)])
    assert not one_broken.right[0]


def test_a_single_key_is_right_and_has_a_finite_margin() -> None:
    ranked = rank(np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)[:1], [(0,)])
    assert ranked.right.all()
    assert ranked.margin.tolist() == [2.0]


def test_a_query_without_a_right_key_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="without a right key"):
        rank(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), [(0,), ()])


def slow_classification(images: Any, classes: Any, truths: Sequence[int]) -> dict[str, float]:
    orders = [slow_order(image, classes) for image in images]
    right = [order[0] == truth for order, truth in zip(orders, truths, strict=True)]
    five = [truth in order[:5] for order, truth in zip(orders, truths, strict=True)]
    recalls = []
    for name in sorted(set(truths)):
        own = [good for good, truth in zip(right, truths, strict=True) if truth == name]
        recalls.append(sum(own) / len(own))
    return {
        "acc1": sum(right) / len(right),
        "acc5": sum(five) / len(five),
        "mean_per_class_recall": sum(recalls) / len(recalls),
    }


def classification_data(seed: int = 1) -> tuple[Any, Any, list[int]]:
    """Uneven classes, the last of twelve without a picture."""
    random = np.random.default_rng(seed)
    classes = unit(random, 12)
    truths = [int(truth) for truth in np.minimum(random.geometric(0.25, 300) - 1, 10)]
    images = classes[truths] + random.standard_normal((300, classes.shape[1])) * 0.5
    return (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32), classes, truths


def test_classification_is_what_slow_loops_say() -> None:
    images, classes, truths = classification_data()
    expected = slow_classification(images, classes, truths)
    found = classification(rank(images, classes, [(truth,) for truth in truths]))
    assert list(found) == ["acc1", "acc5", "mean_per_class_recall"]
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.3 < found["acc1"] < found["acc5"] < 1
    assert abs(found["acc1"] - found["mean_per_class_recall"]) > 0.005


def test_below_five_classes_there_is_no_acc5() -> None:
    eye = np.eye(4, dtype=np.float32)
    assert classification(rank(eye, eye, [(0,), (1,), (2,), (2,)])) == {"acc1": 0.75, "mean_per_class_recall": 2.5 / 3}


def test_recall_of_each_class_and_confusions() -> None:
    answers = ranked_answers(truths=[0, 0, 0, 1, 1, 3], answers=[0, 1, 1, 1, 0, 1], keys=4)
    assert per_class_recall(answers) == (1 / 3, 0.5, None, 0.0)
    assert confusions(answers) == (Confusion(0, 1, 2), Confusion(1, 0, 1), Confusion(3, 1, 1))
    assert confusions(answers, most=1) == (Confusion(0, 1, 2),)


def ranked_answers(*, truths: Sequence[int], answers: Sequence[int], keys: int) -> Ranked:
    wrong = np.array(truths) != np.array(answers)
    return Ranked(wrong.astype(np.int64), np.array(answers), np.array(truths), np.zeros(len(truths), np.float32), keys)


def test_no_confusion_where_all_is_right() -> None:
    assert confusions(ranked_answers(truths=[0, 1], answers=[0, 1], keys=2)) == ()


def test_retrieval_is_what_slow_loops_say() -> None:
    images, texts, own, owners = retrieval_data()
    found = retrieval(rank(images, texts, own), rank(texts, images, owners))
    for k in (1, 5, 10):
        of_text = [owners[row][0] in slow_order(text, images)[:k] for row, text in enumerate(texts)]
        of_image = [not set(own[row]).isdisjoint(slow_order(image, texts)[:k]) for row, image in enumerate(images)]
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(sum(of_text) / len(of_text), abs=1e-12)
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(sum(of_image) / len(of_image), abs=1e-12)
    assert 0.2 < found["image_retrieval_recall@1"] < found["image_retrieval_recall@5"] < 1


def test_retrieval_is_what_clip_benchmark_computes() -> None:
    """Its `recall_at_k` counts true positives among `torch.topk` and takes more than none as found."""
    torch = pytest.importorskip("torch")
    images, texts, own, owners = retrieval_data(seed=3, pictures=90)
    found = retrieval(rank(images, texts, own), rank(texts, images, owners))
    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(texts)), [owner for (owner,) in owners]] = True

    def recall(scores: Any, positive: Any, k: int) -> float:
        true = positive.gather(1, torch.topk(scores, k, dim=1).indices).sum(dim=1)
        return float((true / positive.sum(dim=1) > 0).double().mean())

    for k in (1, 5, 10):
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(recall(scores, positive, k), abs=1e-12)
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(recall(scores.T, positive.T, k), abs=1e-12)


def test_classification_is_what_clip_benchmark_computes() -> None:
    """Its `accuracy` looks for the truth among `torch.topk` of the logits."""
    torch = pytest.importorskip("torch")
    images, classes, truths = classification_data(seed=5)
    logits = 100.0 * torch.from_numpy(images) @ torch.from_numpy(classes).T
    best = torch.topk(logits, 5, dim=1).indices
    found = classification(rank(images, classes, [(truth,) for truth in truths]))
    hits = best == torch.tensor(truths)[:, None]
    assert found["acc1"] == pytest.approx(float(hits[:, 0].double().mean()), abs=1e-12)
    assert found["acc5"] == pytest.approx(float(hits.any(dim=1).double().mean()), abs=1e-12)


def test_with_fewer_than_ten_pictures_recall_at_10_is_whole() -> None:
    eye = np.eye(3, dtype=np.float32)
    found = retrieval(rank(eye, eye, [(1,), (0,), (2,)]), rank(eye, eye, [(1,), (0,), (2,)]))
    assert found["image_retrieval_recall@10"] == 1.0
    assert found["text_retrieval_recall@1"] == pytest.approx(1 / 3)


def test_wilson_is_the_published_interval() -> None:
    # Newcombe (1998), table I, method 3: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    low, high = wilson(20, 20)
    assert (low, high) == pytest.approx((1 - 0.1611, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_is_paired() -> None:
    before = np.arange(400) % 2 == 0
    assert paired_bootstrap(before, before) == (0.0, 0.0)
    now = before.copy()
    now[:40] = False  # 20 pictures lost of 400
    low, high = paired_bootstrap(before, now)
    error = math.sqrt(0.05 * 0.95 / 400)
    assert low == pytest.approx(-0.05 - 1.96 * error, abs=0.004)
    assert high == pytest.approx(-0.05 + 1.96 * error, abs=0.004)
    assert paired_bootstrap(before, now) == (low, high)


def test_large_data_needs_little_memory() -> None:
    import tracemalloc

    random = np.random.default_rng(0)
    images, texts = unit(random, 2_000, 8), unit(random, 10_000, 8)
    tracemalloc.start()
    try:
        ranked = rank(images, texts, [range(row * 5, row * 5 + 5) for row in range(2_000)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ranked.rank) == 2_000
    assert peak < 60e6  # all scores at once would be 80 MB
