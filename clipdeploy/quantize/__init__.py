"""Typed graphs for a bundle: FP16, BF16, INT8 and FP8 from calibration data, inside an accuracy budget."""

from __future__ import annotations

from clipdeploy.quantize.job import QuantizeOutcome, QuantizeRequest, quantize_bundle

__all__ = ["QuantizeOutcome", "QuantizeRequest", "quantize_bundle"]
