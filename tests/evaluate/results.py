"""A result made by hand: three pairs, the last of which lost a picture."""

from __future__ import annotations

from typing import Any

from clipdeploy.evaluate.records import Agreement, Confusion, Drop, EvaluateResult, PairFigures

RIGHT = {"acc1": 0.75, "acc5": 1.0, "mean_per_class_recall": 0.75}
LESS = {"acc1": 0.5, "acc5": 1.0, "mean_per_class_recall": 0.5}
SAME = Agreement("PyTorch fp32", 1.0, 1.0, 1.0, 0.75, 0.0, 0.0, 0.25)
APART = Agreement("PyTorch fp32", 0.75, 0.99, 0.95, 0.5, 0.25, 0.0, 0.25)


def pair(backend: str, precision: str, metrics: dict[str, float], **more: Any) -> PairFigures:
    """The figures of one pair."""
    return PairFigures(backend, precision, "asked for by name", metrics, **more)


def made(*, metrics: dict[str, float] = RIGHT, drops: tuple[Drop, ...] | None = None, **more: Any) -> EvaluateResult:
    """Two classes of two pictures; dogs are told well, cats less so."""
    drop = Drop(1, 0, 0, 1, 0.02, -0.01, "cat/1.jpg", ("cat", "cat", "dog"), (0.9, 0.6, 0.3))
    one, two = (Confusion(0, 1, 1),), (Confusion(0, 1, 2),)
    pairs = (
        pair("PyTorch", "fp32", metrics, per_class=(0.5, 1.0, None), confusions=one, seconds=1.5),
        pair("onnxruntime", "fp32", metrics, per_class=(0.5, 1.0, None), confusions=one, agreement=SAME),
        pair(
            "openvino",
            "int8",
            LESS,
            per_class=(0.0, 1.0, None),
            confusions=two,
            agreement=APART,
            drops=(drop,) if drops is None else drops,
        ),
    )
    content: dict[str, Any] = {
        "bundle": "b32",
        "model": "ViT-B-32",
        "pretrained": "laion2b",
        "dataset": "shapes",
        "task": "zeroshot_classification",
        "layout": "folders",
        "classes": ("cat", "dog", "fox"),
        "templates": ("a photo of a {}.",),
        "captions": 0,
        "count": 4,
        "pairs": pairs,
        "class_counts": (2, 2, 0),
    }
    return EvaluateResult(**{**content, **more})
