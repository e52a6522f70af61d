"""What is asked of a baked bundle, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipdeploy.spec import FrameSpec, Target

LABELS_FILE = "labels.txt"
"""In a baked bundle: the labels as UTF-8, one a line, in the order of the outputs."""


@dataclass(frozen=True)
class BakeRequest:
    """What to fold into an image graph.

    Attributes:
        bundle: the bundle's folder.
        output: the baked bundle's folder; it must not exist, unless `overwrite`.
        labels: K distinct texts; None bakes none, so that the graph gives embeddings.
        templates: sentences with `{}` for the label, or the name of a set; empty takes the default.
        frame: camera frames that the graph takes; None has it take pixels that are ready for the model.
        precisions: of the encoder; each gives a graph.
        target: whose, of 8-bit graphs; None takes all. For `cpu` frames stay 8 bits for longer, which is quicker on
            processors and nothing that TensorRT reads.
        overwrite: replace a bundle that is already there.
    """

    bundle: Path
    output: Path
    labels: tuple[str, ...] | None
    templates: tuple[str, ...] = ()
    frame: FrameSpec | None = None
    precisions: tuple[str, ...] = ("fp32",)
    target: Target | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class BakedGraph:
    """A graph of a baked bundle.

    Attributes:
        name: of its file.
        precision: of the encoder in it.
        target: what it was made for, of 8-bit graphs.
        size_bytes: with the weights beside it.
        max_abs: how far it is from the unbaked graph in ONNX Runtime on the golden samples, as a cosine with a label,
            or a value of an embedding; None where that was not compared.
    """

    name: str
    precision: str
    target: Target | None
    size_bytes: int
    max_abs: float | None


@dataclass(frozen=True)
class BakeOutcome:
    """What was baked.

    Attributes:
        labels: in the order of the outputs; empty where the graph gives embeddings.
        templates: that they were put into.
        frame: what goes in; None for pixels.
        samples: golden samples in the new bundle.
        notes: what people should know.
    """

    bundle: Path
    output: Path
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    frame: FrameSpec | None
    graphs: tuple[BakedGraph, ...]
    samples: int
    size_bytes: int
    notes: tuple[str, ...]
    seconds: float
