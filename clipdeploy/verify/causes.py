"""From the shape of a drift to its likely cause. A guess, said as one, by trying the known mistakes one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.selftest.measure import Floats, drift
from clipdeploy.spec import TokenSpec, Tower

EXPORT_AGAIN = "export the checkpoint again with this version of clipdeploy, then verify"


@dataclass(frozen=True)
class Cause:
    """What probably went wrong, and what to do."""

    cause: str
    fix: str


def of_crops(
    ours: Sequence[NDArray[np.uint8] | None],
    reference: NDArray[np.uint8],
    names: Sequence[str],
    versions: tuple[Mapping[str, str], Mapping[str, str]],
) -> Cause:
    """Why crops differ; None in `ours` stands for a crop of another size."""
    if any(crop is None for crop in ours):
        return Cause("the image size in the manifest is not the checkpoint's", EXPORT_AGAIN)
    crops = [crop.astype(np.int16) for crop in ours if crop is not None]
    bad = [i for i, crop in enumerate(crops) if not np.array_equal(crop, reference[i])]
    theirs = reference.astype(np.int16)

    def most(explains: Any) -> bool:
        return sum(bool(explains(crops[i], theirs[i])) for i in bad) * 2 > len(bad)

    if most(lambda a, b: np.array_equal(a[..., ::-1], b)):
        return Cause("red and blue are swapped", "hand frames to the runtime with color='bgr' where they are BGR")
    if most(_is_shifted):
        return Cause(
            "the crop lies a pixel aside: its offset is floored where the checkpoint rounds it",
            "use the runtime's ImageProcessor unchanged; torchvision's offset is round((size - crop) / 2)",
        )
    ours_pillow, their_pillow = (v.get("Pillow", "unknown") for v in versions)
    pillows = f"Pillow here is {ours_pillow}, the reference's {their_pillow}"
    if {PurePath(names[i]).suffix.lower() for i in bad} <= {".jpg", ".jpeg"} and len(bad) < len(names):
        return Cause(
            f"only JPEG pictures differ: the JPEG decoder here is not the reference's ({pillows})",
            "install the Pillow wheel of the version the reference was made with",
        )
    if max(int(np.abs(crops[i] - theirs[i]).max()) for i in bad) <= 2:
        return Cause(
            f"the resize rounds otherwise: not Pillow's own, or another version of it ({pillows})",
            "install the Pillow version the reference was made with; do not resize with OpenCV or torch",
        )
    return Cause(
        "resize mode (shortest side and crop, or squash), interpolation, or colour conversion is not the checkpoint's",
        "compare `pixels` in manifest.json with the checkpoint's preprocessing, and export again",
    )


def _is_shifted(ours: NDArray[np.int16], reference: NDArray[np.int16]) -> bool:
    """Whether moving ours by one pixel makes its inside identical to the reference's."""
    inside = reference[1:-1, 1:-1]
    height, width = inside.shape[:2]
    moves = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    return any(np.array_equal(ours[dy : dy + height, dx : dx + width], inside) for dy, dx in moves)


def of_tokens(ours: NDArray[np.int64], reference: NDArray[np.int64], spec: TokenSpec) -> Cause:
    """Why token ids of the same shape (T, L) differ."""
    wrong = ours != reference
    bad = wrong.any(axis=1)
    ends = reference == spec.end_id
    full = ~ends.any(axis=1) | (ends.argmax(axis=1) == reference.shape[1] - 1)  # cut, or exactly as long as fits
    offsets = np.unique((ours - reference)[wrong])
    behind_end = np.cumsum(ends, axis=1) - ends > 0
    if not (wrong & ~behind_end).any():
        return Cause("texts are padded with another id", f"pad with {spec.pad_id} behind the end token")
    if not bad[~full].any():
        return Cause(
            "only texts that are too long differ: they are cut otherwise", "keep the end token in the last place"
        )
    if len(offsets) == 1 and bad.all():
        return Cause(f"every id is off by {offsets[0]}: another vocabulary", EXPORT_AGAIN)
    if bad.all():
        return Cause("tokenizer.json is of another tokenizer, or start and end ids are not added", EXPORT_AGAIN)
    return Cause(
        f"some texts differ: cleaning (entities, case, accents, white space) is not the checkpoint's {spec.cleaning!r}",
        "install ftfy in the version the checkpoint's tokenizer uses, or export again",
    )


def of_tower(
    tower: Tower,
    together: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    batch_drift: float | None,
    max_abs_gate: float,
    kept: float | None,
    same_weights: bool | None,
) -> Cause:
    """Why a tower's embeddings (N, D) drift.

    Args:
        batch_drift: largest difference between batches and one at a time, None where not finite.
        kept: share of its distance that the most squeezed pair keeps, None where none is distinct.
    """
    if not np.isfinite(together).all():
        return Cause(
            "values overflow or a norm is zero inside the graph (fp16 attention, -inf masks, epsilon lost)",
            "run fp32 or bf16; if fp32 is not finite either, export again and report the model",
        )
    if len(np.unique(together.round(6), axis=0)) == 1:
        return Cause("every input gives the same embedding: the tower ignores its input", EXPORT_AGAIN)
    if _rows_are_moved(together, reference):
        return Cause("the embeddings are right but in another order: rows of the batch are mixed up", EXPORT_AGAIN)
    if batch_drift is None or batch_drift > max_abs_gate:
        return Cause(
            "a sample's embedding depends on its batch: the batch axis was fixed when the graph was traced",
            "export with a batch of two or more as example, or change the engine",
        )
    seen = drift(together, reference)
    if np.abs(seen.norm - 1).max() > 1e-3 and seen.cosine.min() > 0.9999:
        return Cause("the direction is right but the length is not: the L2 norm is missing in the graph", EXPORT_AGAIN)
    if same_weights is False:
        return Cause("the bundle was made from other weights than this reference", "verify against the same checkpoint")
    if seen.cosine.min() > 0.999:
        return Cause(
            "close, but beyond what the precision explains: a fused or approximated operator (GELU, softmax, norm)",
            "try another engine or fewer graph optimisations; compare the graph before and after simplifying",
        )
    if kept is not None and kept < 0.01:
        return Cause("distinct inputs fall together: part of the input does not reach the output", EXPORT_AGAIN)
    own = "its patch embedding or class token" if tower is Tower.IMAGE else "EOT pooling or the causal mask"
    return Cause(f"another function: the activation (GELU or QuickGELU), {own}, or the weights differ", EXPORT_AGAIN)


def _rows_are_moved(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> bool:
    """Whether every row of ours is close to some row of the reference, and not all in their own place."""
    cosines = ours.astype(np.float64) @ reference.astype(np.float64).T
    nearest = cosines.argmax(axis=1)
    all_there = (cosines.max(axis=1) > 0.99999).all() and len(np.unique(nearest)) == len(ours)
    return bool(all_there and (nearest != np.arange(len(ours))).any())


def of_similarity(earlier: Sequence[str]) -> Cause:
    """Why the whole drifts, given the names of the earlier stages that fail."""
    if earlier:
        return Cause(f"follows from {', '.join(earlier)}", f"mend {earlier[0]} first")
    return Cause(
        "each seam holds alone but the whole does not: state kept between calls, or inputs handed over wrongly",
        "open the bundle anew and verify again; if it stays, report it with this report",
    )


def of_top1(earlier: Sequence[str], margin: float, error: Floats) -> Cause:
    """Why an answer flips: the reference prefers its own by `margin`, the cosines drift by `error`."""
    if earlier:
        return Cause(f"follows from {', '.join(earlier)}", f"mend {earlier[0]} first")
    return Cause(
        f"a close call: the reference decides by {margin:.1e}, drift of up to {np.abs(error).max():.1e} turns it over",
        "a more exact precision or engine keeps it; or accept it by a lower top-1 gate",
    )


def of_quantised(*, engine_holds: bool) -> Cause:
    """Whose fault it is that a quantised encoder drifts: ONNX Runtime ran the same graph when it was made."""
    if engine_holds:
        return Cause(
            "the quantiser: ONNX Runtime answers the same with this graph, so the graph itself has lost it",
            "quantise again with --overwrite: more calibration data like these samples, or a tighter budget",
        )
    return Cause(
        "the engine: ONNX Runtime answered otherwise with the same graph when it was quantised",
        "try another backend or another version of this one; the graph itself kept its budget",
    )
