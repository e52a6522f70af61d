"""Whether a baked engine, as it runs here, answers as the bundle did that it was baked from.

golden/baked.json   names of the pictures, and the budget of each quantised graph (`BakedIndex`)
golden/baked.npz    crops (S, h, w, 3) uint8; per graph, under its name, what the unbaked runtime answered in ONNX
                    Runtime with the graph that this one was made of, (S, K) float32; `reference` likewise, in fp32.
                    One that ONNX Runtime does not compute has no answers of its own, and the reference may be missing.

Camera frames are made of the crops when they are needed: see `golden_frames`.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, BundleCorruptError, InputError
from clipdeploy.manifest import COPY_AGAIN
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.selftest.gates import ENGINE_COSINE, gates_of
from clipdeploy.runtime.selftest.golden import BAKED_ARRAYS, BAKED_INDEX
from clipdeploy.runtime.selftest.golden_frames import golden_frames
from clipdeploy.runtime.selftest.measure import drift, spread_kept
from clipdeploy.runtime.session import Session
from clipdeploy.spec import BakedSpec, ModelSpec, Precision, Tower, from_dict

if TYPE_CHECKING:
    from clipdeploy.runtime.chosen import Chosen

FORMAT = 1
REFERENCE = "reference"
FRAME_MAX_ABS, FRAME_COSINE = 1e-3, 0.9999
"""What a fp32 engine may be off where it makes the pixels itself: another order of sums may round one value in a
thousand to another level of 255, which is 5e-4 of the pixels' length; half of it is left for the encoder to make of
that. Without frames the gates are those of any fp32 engine."""


@dataclass(frozen=True)
class BakedIndex:
    """The content of baked.json.

    Attributes:
        pictures: S names.
        cosine_min: of each quantised graph, the least cosine to fp32 that its budget allows.
    """

    format: int
    pictures: tuple[str, ...]
    cosine_min: dict[str, float]


@dataclass(frozen=True, eq=False)
class BakedSamples:
    """The golden samples of a baked bundle.

    Attributes:
        index: what they are.
        crops: (S, h, w, 3) uint8 RGB.
        answers: of each graph, and of the reference, (S, K) float32: logits, or embeddings where nothing is labelled.
    """

    index: BakedIndex
    crops: NDArray[np.uint8]
    answers: dict[str, NDArray[np.float32]]


def read_baked(bundle: Bundle) -> BakedSamples:
    """The golden samples of a baked bundle; raises BundleCorruptError where they are not what was written."""
    shape = (bundle.model.pixels.height, bundle.model.pixels.width, 3)
    columns = bundle.model.image.output.shape[1]
    try:
        index = from_dict(BakedIndex, json.loads(bundle.path(BAKED_INDEX).read_text(encoding="utf-8")))
        with bundle.path(BAKED_ARRAYS).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        crops = arrays.pop("crops")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # InputError is a ValueError
        raise _corrupt(bundle, f"cannot be read: {error}") from error
    count = len(index.pictures)
    fit = crops.shape == (count, *shape) and crops.dtype == np.uint8 and index.format == FORMAT and count
    if not fit or any(a.shape != (count, columns) or a.dtype != np.float32 for a in arrays.values()):
        raise _corrupt(bundle, "are not those of this bundle")
    return BakedSamples(index, crops, arrays)


def feeds_of(crops: NDArray[np.uint8], baked: BakedSpec, model: ModelSpec) -> NDArray[Any]:
    """What a baked graph is given that shows these crops: frames (S, ...) uint8, or pixels (S, 3, h, w) float32."""
    if baked.frame is not None:
        return golden_frames(crops, baked.frame, model.pixels)
    return ImageProcessor(model.pixels, workers=1).normalize(crops)


def hold_baked(chosen: Chosen, session: Session, several: int) -> tuple[int, float]:
    """Hold a baked engine against what the unbaked bundle answered: one sample alone, then all in batches.

    Returns:
        how many samples were compared, and the least cosine, over the labels or within the embeddings, to the nearest
        thing to its own answers that was recorded.

    Raises:
        BackendError: it is further off than the gates of its precision allow.
        BundleCorruptError: the samples are not what was written.
    """
    bundle, graph = chosen.bundle, chosen.graph(Tower.IMAGE)
    samples = read_baked(bundle)
    recorded = {
        what: samples.answers[name]
        for what, name in ((f"ONNX Runtime with {graph.name}", graph.name), ("fp32", REFERENCE))
        if name in samples.answers
    }
    count = len(samples.crops)
    rows = [np.arange(1)] + [np.arange(start, start + several) % count for start in range(0, count, several)]
    answers = np.concatenate([_answers(chosen, session, samples, some) for some in rows])
    picked = np.concatenate(rows)
    least = 1.0
    for what, expected in recorded.items():
        own = what != "fp32"
        cosine = _judge(chosen, session, samples, own, what, picked, answers, expected[picked])
        least = min(least, cosine) if own or len(recorded) == 1 else least
    return count, least


def _judge(
    chosen: Chosen,
    session: Session,
    samples: BakedSamples,
    own: bool,
    what: str,
    rows: NDArray[np.intp],
    answers: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> float:
    """Raise BackendError where answers are too far from those recorded; gives the least cosine."""
    bundle, graph = chosen.bundle, chosen.graph(Tower.IMAGE)
    baked = _baked(bundle)
    cosine, max_abs = limits(graph.precision, own, samples.index.cosine_min.get(graph.name), baked)
    ours, theirs = (scaled(each, baked, bundle.model) for each in (answers, expected))
    off = drift(ours, theirs)
    failing = ~(off.max_abs <= max_abs)
    if not baked.labels:
        failing |= ~(off.cosine >= cosine) | ~(np.abs(off.norm - 1) <= gates_of(graph.precision).unit_norm)
    if failing.any():
        worst = int(np.argmax(np.where(failing, 1 + off.max_abs, 0.0)))
        kind = "cosine with a label" if baked.labels else "value"
        numbers = f"a {kind} is off by {off.max_abs[worst]:.3g} (at most {max_abs:.3g})"
        numbers += "" if baked.labels else f", cosine {off.cosine[worst]:.5f} (at least {cosine:g})"
        raise _refused(
            chosen,
            session,
            f"drifts from {what} on {len(np.unique(rows[failing]))} of {len(samples.crops)} golden samples; worst is "
            f"{samples.index.pictures[rows[worst]]}: {numbers}",
        )
    kept = spread_kept(ours, theirs, max(4 * max_abs, gates_of(graph.precision).distinct))
    if kept is not None and not kept[0] >= gates_of(graph.precision).spread:
        first, second = (samples.index.pictures[rows[index]] for index in kept[1:])
        raise _refused(chosen, session, f"does not tell golden samples apart, such as {first} and {second}")
    return float(off.cosine.min())


def limits(precision: Precision, own: bool, cosine_min: float | None, baked: BakedSpec) -> tuple[float, float]:
    """The least cosine of an embedding, and how far one of its values, or a cosine with a label, may be off.

    Unit vectors of cosine c are sqrt(2 - 2c) apart, and neither a value nor a cosine with a third unit vector differs
    by more.

    Args:
        precision: of the engine.
        own: whether what it is held to was computed with the very graph, in another engine.
        cosine_min: the budget of a quantised graph.
        baked: what it answers.
    """
    gates = gates_of(precision)
    if precision is Precision.FP32:
        if baked.frame is None:
            return gates.cosine, gates.max_abs
        return FRAME_COSINE, FRAME_MAX_ABS
    cosine = ENGINE_COSINE[precision] if own else gates.cosine if cosine_min is None else cosine_min
    if own and baked.frame is not None:
        cosine = min(cosine, FRAME_COSINE)
    return cosine, float(np.sqrt(2 - 2 * cosine))


def scaled(answers: NDArray[np.float32], baked: BakedSpec, model: ModelSpec) -> NDArray[np.float32]:
    """Logits as the cosines that they were made of; embeddings as they are."""
    return (answers - np.float32(model.logit_bias)) / np.float32(model.logit_scale) if baked.labels else answers


def _answers(chosen: Chosen, session: Session, samples: BakedSamples, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    bundle = chosen.bundle
    feeds = feeds_of(samples.crops[rows], _baked(bundle), bundle.model)
    try:
        answers = session.run(feeds)
    except InputError as error:
        raise _refused(chosen, session, f"takes no {feeds.dtype} of shape {feeds.shape}: {error.message}") from error
    expected = (len(rows), bundle.model.image.output.shape[1])
    if answers.shape != expected or answers.dtype != np.float32:
        raise _refused(chosen, session, f"gives {answers.dtype} {answers.shape}, expected float32 {expected}")
    if not np.isfinite(answers).all():
        name = samples.index.pictures[int(rows[int((~np.isfinite(answers).all(axis=1)).argmax())])]
        raise _refused(chosen, session, f"gives something that is not finite for golden samples, such as {name}")
    return answers


def _baked(bundle: Bundle) -> BakedSpec:
    assert bundle.manifest.baked is not None
    return bundle.manifest.baked


def _refused(chosen: Chosen, session: Session, what: str) -> BackendError:
    graph = chosen.graph(Tower.IMAGE)
    return BackendError(
        f"the baked engine {graph.name} in {graph.precision.value} on {session.name} does not pass its self-test: "
        f"it {what}",
        fix="do not serve with it: load another backend or precision; self_test=False loads it all the same",
    )


def _corrupt(bundle: Bundle, why: str) -> BundleCorruptError:
    return BundleCorruptError(f"bundle {bundle.folder}: the golden samples in {BAKED_ARRAYS} {why}", fix=COPY_AGAIN)
