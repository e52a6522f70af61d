"""What a checkpoint is, and what preflight finds of it, without exporting it."""

from __future__ import annotations

from dataclasses import dataclass

from clipdeploy.errors import CheckpointError
from clipdeploy.findings import Finding
from clipdeploy.progress import Progress, silent
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import ModelSpec

LOADING = "loading"
"""The name of the finding that tells why a checkpoint was refused before it could be looked at."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    Attributes:
        source: as the user gave it.
        model: None when loading refuses it.
        weights_sha256: over names, dtypes, shapes and values; None when loading refuses it.
        licence: as the model card states it, None when it does not.
        findings: what preflight finds; of a refused checkpoint, why it is refused.
    """

    source: str
    model: ModelSpec | None
    weights_sha256: str | None
    licence: str | None
    findings: tuple[Finding, ...]


def inspect_checkpoint(request: CheckpointRequest, *, progress: Progress = silent) -> CheckpointInfo:
    """Load a checkpoint as the export does, and look at it.

    Raises:
        MissingExtraError: PyTorch or another library of the extra `export` is not installed.
    """
    from clipdeploy.export.load import load_checkpoint
    from clipdeploy.export.preflight.run import preflight

    progress(f"loading {request.model}", 0, 0)
    try:
        checkpoint = load_checkpoint(request, progress=progress)
    except CheckpointError as error:
        refused = Finding(LOADING, "bad", error.message, error.fix)
        return CheckpointInfo(request.model, None, None, None, (refused,))
    return CheckpointInfo(
        checkpoint.source,
        checkpoint.spec,
        checkpoint.weights_sha256,
        checkpoint.licence,
        preflight(checkpoint, progress=progress),
    )
