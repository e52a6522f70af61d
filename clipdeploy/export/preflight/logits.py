"""What the classifier multiplies cosines with."""

from __future__ import annotations

from clipdeploy.export.preflight.probe import Probe
from clipdeploy.findings import Finding

CHECK = "logit scale"

_LOW, _HIGH, _ABSURD = 1.0, 200.0, 1e4


def logit_scale(probe: Probe) -> Finding:
    """Scale and bias of the logits lie where trained CLIPs have them, and are not exponentiated twice or never."""
    spec = probe.spec
    said = f"{spec.logit_scale:.4g}" + (f", bias {spec.logit_bias:.4g}" if spec.probability == "sigmoid" else "")
    if spec.logit_scale > _ABSURD:
        return Finding(
            CHECK,
            "bad",
            f"{said}: the checkpoint stores the logarithm, and e to the power of it is no scale of a classifier",
            "store the logarithm in logit_scale, 4.6052 for a scale of 100",
        )
    if not _LOW < spec.logit_scale <= _HIGH:
        return Finding(
            CHECK,
            "note",
            f"{said}, where trained CLIPs have between {_LOW:g} and {_HIGH:g}: probabilities will be flat or all or "
            "nothing; embeddings are not affected",
            "check logit_scale in the weights: it holds the logarithm",
        )
    if spec.probability == "sigmoid" and spec.logit_bias >= 0.0:
        return Finding(
            CHECK,
            "note",
            f"{said}: a sigmoid without a negative bias answers yes to nearly everything; SigLIP has -10 or less",
            "check logit_bias in the weights",
        )
    return Finding(CHECK, "good", f"{said}, {spec.probability}")
