"""FP16 and BF16: a strongly typed graph, decided by measured ranges.

    tensors_to_measure  what must be measured first
    to_half             the typed graph, and which nodes stay float32, and why
    emulated            the same graph with its rounding spelled out, for engines that compute it in float32

What a node may be typed as (`ports.py`), how large its tensors get (`bounds.py`), what must stay float32 (`rules.py`),
where the types then change (`plan.py`), and the rewriting itself (`rewrite.py`).
"""

from __future__ import annotations

from clipdeploy.calibration.half.convert import HalfResult, tensors_to_measure, to_half
from clipdeploy.calibration.half.emulation import emulated
from clipdeploy.calibration.half.formats import MARGIN

__all__ = ["MARGIN", "HalfResult", "emulated", "tensors_to_measure", "to_half"]
