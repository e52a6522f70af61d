"""Golden samples of a baked bundle: pictures of the bundle's own, and what its unbaked graphs answer to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, MissingExtraError
from clipdeploy.progress import Progress
from clipdeploy.runtime.backends import ONNXRUNTIME, open_session
from clipdeploy.runtime.choose import GraphChoice
from clipdeploy.runtime.framed import frame_pixels, frames_at_once
from clipdeploy.runtime.selftest.baked import FORMAT, REFERENCE, BakedIndex, feeds_of
from clipdeploy.runtime.selftest.golden import has_samples, read_samples
from clipdeploy.runtime.selftest.recorded import read_recorded
from clipdeploy.spec import BakedSpec, Precision, Tower, to_dict

MOST = 8
"""Pictures that are taken over, evenly among the bundle's."""
_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class Samples:
    """What a baked bundle will be tested with.

    Attributes:
        index: the content of baked.json.
        crops: (S, h, w, 3) uint8 RGB.
        answers: as `BakedSamples` has them.
        notes: what could not be computed.
    """

    index: BakedIndex
    crops: NDArray[np.uint8]
    answers: dict[str, NDArray[np.float32]]
    notes: tuple[str, ...]

    def write(self, index: Path, arrays: Path) -> None:
        """Write both files."""
        index.write_text(json.dumps(to_dict(self.index), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with arrays.open("wb") as file:
            arrays_of: dict[str, Any] = {"crops": self.crops, **self.answers}
            np.savez_compressed(file, **arrays_of)


def make_samples(
    bundle: Bundle,
    baked: BakedSpec,
    rows: NDArray[np.float32] | None,
    graphs: Mapping[str, GraphChoice],
    front: Path | None,
    progress: Progress,
) -> Samples | None:
    """The golden samples of a baked bundle; None where the bundle has none to make them of.

    Args:
        bundle: that is baked.
        baked: what will be answered.
        rows: (K, D) of the labels, None for embeddings.
        graphs: of the image encoder, by name; those that are baked.
        front: the graph that makes pixels of frames.
        progress: told how far it is.

    Raises:
        BackendError: ONNX Runtime cannot run the float32 graph.
        BundleCorruptError: the bundle's golden samples are not what was written.
    """
    if not has_samples(bundle):
        return None
    golden = read_samples(bundle)
    picks = np.unique(np.linspace(0, len(golden.crops) - 1, min(MOST, len(golden.crops))).round().astype(np.intp))
    crops = golden.crops[picks]
    answers: dict[str, NDArray[np.float32]] = {}
    notes, wanted = [], dict(graphs)
    if Precision.FP32 in bundle.precisions(Tower.IMAGE):
        name = bundle.graph_name(Tower.IMAGE)
        wanted = {REFERENCE: GraphChoice(name, bundle.path(name), Precision.FP32, None), **graphs}
    pixels = _pixels(crops, bundle, baked, front)
    for index, (name, graph) in enumerate(wanted.items()):
        if graph.precision is Precision.FP32 and name != REFERENCE:
            answers[name] = answers[REFERENCE]
            continue
        progress(f"golden samples, {graph.precision.value}", index, len(wanted))
        try:
            embeds = _embeds(graph, pixels)
        except (BackendError, MissingExtraError) as error:
            if graph.precision is Precision.FP32:
                raise
            notes.append(f"{name}: ONNX Runtime does not compute it here, so it is held to fp32 alone: {error.message}")
            continue
        answers[name] = _answers(embeds, rows, bundle)
    recorded = {name: read_recorded(bundle, {Tower.IMAGE: graph}).get(Tower.IMAGE) for name, graph in graphs.items()}
    index_ = BakedIndex(
        FORMAT,
        tuple(golden.index.pictures[pick].name for pick in picks),
        {name: budget.cosine_min for name, budget in recorded.items() if budget is not None},
    )
    return Samples(index_, crops, answers, tuple(notes)) if answers else None


def _pixels(
    crops: NDArray[np.uint8], bundle: Bundle, baked: BakedSpec, front: Path | None
) -> list[NDArray[np.float32]]:
    """What the encoder is given, in batches."""
    starts = range(0, len(crops), _AT_ONCE)
    if front is None:
        return [feeds_of(crops[start : start + _AT_ONCE], baked, bundle.model) for start in starts]
    session = open_session(front, backend=ONNXRUNTIME)
    try:
        rows = frames_at_once(session)
        batches = (feeds_of(crops[start : start + _AT_ONCE], baked, bundle.model) for start in starts)
        return [frame_pixels(session, batch, rows) for batch in batches]
    finally:
        session.close()


def _embeds(graph: GraphChoice, pixels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    session = open_session(
        graph.path, backend=ONNXRUNTIME, precision=graph.precision, as_written=graph.target == "tensorrt"
    )
    try:
        return np.concatenate([session.run(batch) for batch in pixels])
    finally:
        session.close()


def _answers(embeds: NDArray[np.float32], rows: NDArray[np.float32] | None, bundle: Bundle) -> NDArray[np.float32]:
    """Logits, as `Clip.classify` computes them; or the embeddings."""
    if rows is None:
        return embeds
    spec = bundle.model
    logits = embeds.astype(np.float64) @ (spec.logit_scale * rows.astype(np.float64)).T + spec.logit_bias
    answers: NDArray[np.float32] = logits.astype(np.float32)
    return answers
