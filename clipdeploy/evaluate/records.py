"""What is evaluated of a bundle, and what came of it. Shares are 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Target

ALL = "all"
Task: TypeAlias = Literal["zeroshot_classification", "zeroshot_retrieval"]
"""As CLIP_benchmark calls them."""


@dataclass(frozen=True)
class Item:
    """A picture of a dataset.

    Attributes:
        name: unique in the dataset: its path in the folder, or `shard.tar/member`.
        open: gives what the runtime takes as a picture: a path, or the bytes of a file in an archive.
        truth: (zero-shot) index of its class; (retrieval) -1.
        captions: (retrieval) indices of its captions.
    """

    name: str
    open: Callable[[], Path | bytes]
    truth: int = -1
    captions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Pictures with the truth about them.

    Attributes:
        name: of the folder or file.
        task: what can be asked of it.
        layout: as it was found: `folders`, `names` (of the files), `webdataset`, `csv`, `json`, `jsonl`, `flickr`,
            `coco`, `karpathy`.
        items: in a fixed order.
        classes: (zero-shot) their names, as words for the text encoder.
        templates: (zero-shot) that came with it; empty for none.
        captions: (retrieval) all of them.
        notes: what was left out, and other things worth telling.
    """

    name: str
    task: Task
    layout: str
    items: Sequence[Item]
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluateRequest:
    """What to evaluate.

    Attributes:
        bundle: the bundle's folder.
        data: a folder of a folder a class, of webdataset shards, or a file of pictures and captions.
        backends, precisions: names; `all` for every pair that runs here.
        target: whose 8-bit graphs; None takes those made for each engine.
        classnames: file with a name a line for the classes, in the order of their folders or labels; or a JSON object
            from folder to name.
        templates: of the texts; empty takes the dataset's own, and else `a photo of a {}.`.
        groups: CSV file of `picture,group`.
        checkpoint: PyTorch's answers to the same data; None leaves them out.
        limit: pictures at most, spread evenly over the dataset; None takes all.
        batch_size: pictures of one run.
        threads: None takes what the machine has.
        output: in CLIP_benchmark's form, an object for each pair: a `.json` file of all, or a folder of a file each;
            None writes none.
        html: page with the pictures; None writes none.
        at_least: metric and the share that every pair must reach.
        max_drop: how far the first metrics of a pair may lie below the reference's; None asks nothing.
    """

    bundle: Path
    data: Path
    backends: tuple[str, ...] = (ALL,)
    precisions: tuple[str, ...] = (ALL,)
    target: Target | None = None
    classnames: Path | None = None
    templates: tuple[str, ...] = ()
    groups: Path | None = None
    checkpoint: CheckpointRequest | None = None
    limit: int | None = None
    batch_size: int = 32
    threads: int | None = None
    output: Path | None = None
    html: Path | None = None
    at_least: tuple[tuple[str, float], ...] = ()
    max_drop: float | None = None


@dataclass(frozen=True)
class GroupFigures:
    """One group of pictures under one pair.

    Attributes:
        group: its name; count: its pictures.
        metrics: as those of the whole.
        interval: 95 % interval of the first metric (Wilson).
    """

    group: str
    count: int
    metrics: dict[str, float]
    interval: tuple[float, float]


@dataclass(frozen=True)
class Gap:
    """How far groups lie apart under one pair, beside the reference.

    Attributes:
        metric: which.
        best, worst: names of groups.
        gap: best less worst; reference_gap: the same for the reference.
        widened_by: `gap - reference_gap`; interval: its 95 % interval over resampled pictures (bootstrap).
        verdict: `widens` or `narrows` when the interval lies on one side of 0, else `no difference shown`.
    """

    metric: str
    best: str
    worst: str
    gap: float
    reference_gap: float
    widened_by: float
    interval: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class Drop:
    """A picture that the reference had right and this pair has not.

    Attributes:
        item: its index in the dataset.
        truth, before, now: class indices; for retrieval, caption indices.
        margin_before, margin_now: cosine of the truth less the best other's; large before and low now is worst.
        name: of the picture.
        words: the classes or captions `truth`, `before` and `now`.
        chances: (zero-shot) probability of `before` in the reference, of `now` and of `truth` here.
    """

    item: int
    truth: int
    before: int
    now: int
    margin_before: float
    margin_now: float
    name: str = ""
    words: tuple[str, str, str] = ("", "", "")
    chances: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Confusion:
    """Pictures of class `truth` that were called `answer`."""

    truth: int
    answer: int
    count: int


@dataclass(frozen=True)
class Agreement:
    """One pair beside a reference, on the same pictures.

    Attributes:
        reference: `PyTorch`, or the name of the pair.
        same_answer: share of pictures with the same top-1; for retrieval, of both directions.
        cosine_mean, cosine_least: of the picture embeddings.
        both_right, only_reference, only_this, both_wrong: shares.
    """

    reference: str
    same_answer: float
    cosine_mean: float
    cosine_least: float
    both_right: float
    only_reference: float
    only_this: float
    both_wrong: float


@dataclass(frozen=True)
class PairFigures:
    """One backend and precision on the dataset.

    Attributes:
        backend, precision: what ran; `PyTorch`, `fp32` for the checkpoint.
        reason: what the runtime says of it.
        metrics: zero-shot `acc1`, `acc5`, `mean_per_class_recall`; retrieval `image_retrieval_recall@K` and
            `text_retrieval_recall@K` for 1, 5, 10: the names of CLIP_benchmark.
        per_class: (zero-shot) recall of each class; None for a class without pictures.
        confusions: most frequent first.
        agreement: beside the reference; None for the reference itself.
        drops: worst first.
        groups, gap: where groups were given.
        seconds: of encoding pictures and texts.
    """

    backend: str
    precision: str
    reason: str
    metrics: dict[str, float]
    per_class: tuple[float | None, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    agreement: Agreement | None = None
    drops: tuple[Drop, ...] = ()
    groups: tuple[GroupFigures, ...] = ()
    gap: Gap | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Such as `openvino int8`."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class EvaluateResult:
    """What came of it.

    Attributes:
        bundle: its folder's name; model, pretrained: as the manifest names them.
        dataset, task, layout, classes, templates, captions: of the data; `captions` is how many.
        count: pictures that were answered.
        pairs: the reference first: PyTorch, where a checkpoint was given, else the bundle in fp32.
        absent: `backend precision` -> why it could not run.
        skipped: name -> why, of pictures that could not be read.
        notes: of the dataset and of the pairs.
        environment: the machine and the libraries.
        class_counts: (zero-shot) pictures of each class.
        misses: sentences, one for each pair and limit of the request that it does not keep.
    """

    bundle: str
    model: str
    pretrained: str
    dataset: str
    task: Task
    layout: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    captions: int
    count: int
    pairs: tuple[PairFigures, ...]
    absent: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    class_counts: tuple[int, ...] = ()
    misses: tuple[str, ...] = ()
