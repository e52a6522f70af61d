"""One pair beside the reference, on the same pictures: the same answers, right together, close together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipdeploy.evaluate.metrics import Ranked, Rows
from clipdeploy.evaluate.records import Agreement


def compare(
    reference: str, before: Sequence[Ranked], now: Sequence[Ranked], images_before: Rows, images_now: Rows
) -> Agreement:
    """How far one pair is from the reference.

    Args:
        reference: its name.
        before, now: what the reference and the pair answer, question by question.
        images_before, images_now: (N, D) float32, L2-normalised, of the same pictures.
    """
    same = np.concatenate([one.answer == other.answer for one, other in zip(before, now, strict=True)])
    was = np.concatenate([one.right for one in before])
    is_ = np.concatenate([one.right for one in now])
    cosines = np.einsum("nd,nd->n", images_before, images_now, dtype=np.float64)
    return Agreement(
        reference=reference,
        same_answer=float(same.mean()),
        cosine_mean=float(cosines.mean()),
        cosine_least=float(cosines.min()),
        both_right=float((was & is_).mean()),
        only_reference=float((was & ~is_).mean()),
        only_this=float((~was & is_).mean()),
        both_wrong=float((~was & ~is_).mean()),
    )
