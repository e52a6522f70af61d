"""A transformers checkpoint: built, described, and answering as transformers does."""

from __future__ import annotations

from clipdeploy.errors import CheckpointError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.progress import Progress
from clipdeploy.request import CheckpointRequest


def load_transformers(
    source: TransformersSource, request: CheckpointRequest, hub: Hub, progress: Progress
) -> Checkpoint:
    """Load what `source` names; raises CheckpointError as `load_checkpoint` says."""
    raise CheckpointError(f"{source.label}: transformers checkpoints are not read yet", fix="use the open_clip version")
