"""Which source a request names."""

from __future__ import annotations

from clipdeploy.export.sources import open_clip
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.source import Source
from clipdeploy.request import CheckpointRequest


def resolve(request: CheckpointRequest, hub: Hub) -> Source:
    """Find the files that `request` names.

    Raises:
        CheckpointError: nothing of that name, an ambiguity, a mismatch of activations, or no network where needed.
    """
    return open_clip.resolve(request.model, request.pretrained, random_weights=request.random_weights, hub=hub)
