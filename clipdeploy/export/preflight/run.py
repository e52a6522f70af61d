"""All checks in their order, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clipdeploy.errors import CheckpointError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.preflight import activation, logits, pixels, tokens, towers
from clipdeploy.export.preflight.probe import Probe
from clipdeploy.findings import Finding
from clipdeploy.progress import Progress, silent

CHECKS: dict[str, Callable[[Probe], Finding]] = {
    activation.CHECK: activation.activation,
    pixels.RESIZE: pixels.resize,
    pixels.CROP: pixels.crop_rounding,
    pixels.COLOURS: pixels.colour_modes,
    pixels.STATISTICS: pixels.channel_statistics,
    tokens.LENGTH: tokens.context_length,
    tokens.PADDING: tokens.padding,
    tokens.END: tokens.end_token,
    tokens.MASK: tokens.causal_mask,
    towers.PROJECTION: towers.projection,
    towers.BRANCHES: towers.branches,
    logits.CHECK: logits.logit_scale,
    towers.WEIGHTS: towers.weights,
    towers.NORMS: towers.batch_norm,
    towers.MODE: towers.evaluation_mode,
}
"""Name -> check, in the order they are run and shown."""


def preflight(checkpoint: Checkpoint, *, progress: Progress = silent) -> tuple[Finding, ...]:
    """One finding a check, in the order of CHECKS; the towers are run on a few tiny batches."""
    probe = Probe(checkpoint)
    findings: list[Finding] = []
    for index, (name, check) in enumerate(CHECKS.items()):
        progress("preflight", index, len(CHECKS))
        findings.append(_find(name, check, probe, findings))
    progress("preflight", len(CHECKS), len(CHECKS))
    return tuple(findings)


def require(findings: Sequence[Finding], *, label: str) -> None:
    """Raise CheckpointError naming all that is bad.

    Args:
        findings: as `preflight` gives them.
        label: the checkpoint, for the message.
    """
    bad = [finding for finding in findings if finding.state == "bad"]
    if not bad:
        return
    told = "; ".join(f"{finding.check}: {finding.message}" for finding in bad)
    fixes = [finding.fix for finding in bad if finding.fix]
    raise CheckpointError(f"{label}: {told}", fix="; ".join(dict.fromkeys(fixes)) or None)


def _find(name: str, check: Callable[[Probe], Finding], probe: Probe, earlier: Sequence[Finding]) -> Finding:
    """What a check finds; a tower that cannot answer is bad once, and leaves the checks behind it nothing to see."""
    try:
        return check(probe)
    except CheckpointError as error:
        if any(finding.message == error.message for finding in earlier):
            return Finding(name, "note", "not looked at, since a tower does not answer")
        return Finding(name, "bad", error.message, error.fix)
