"""A CLIP checkpoint, loaded so that it means what it says: every doubt is an error with its fix."""

from __future__ import annotations

from dataclasses import replace

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.openclip.load import load_open_clip
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.resolve import resolve
from clipdeploy.export.sources.source import OpenClipSource
from clipdeploy.export.towers.build import takes_any_length
from clipdeploy.progress import Progress, silent
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import LENGTH_AXIS


def load_checkpoint(request: CheckpointRequest, *, progress: Progress = silent) -> Checkpoint:
    """Load a CLIP checkpoint.

    A weights file of an architecture states neither its preprocessing nor, unless it is OpenAI's own, its activation:
    the activation is the architecture's, the preprocessing the one that all published weights of the architecture
    share, or `request.preprocessing`.

    Args:
        request: which checkpoint, and what it does not state.
        progress: called while weights are downloaded and read.

    Raises:
        CheckpointError: it cannot be found or read, or something about it is not certain: missing, unexpected,
            misshapen or non-finite weights, an activation that is not the one trained with, a preprocessing or
            tokenizer that is not known or not implemented, anything the library would only warn of.
    """
    hub = Hub(progress)
    source = resolve(request, hub)
    if isinstance(source, OpenClipSource):
        return _with_free_length(load_open_clip(source, request, hub, progress))
    from clipdeploy.export.huggingface.load import load_transformers  # transformers takes seconds to import

    return _with_free_length(load_transformers(source, request, hub, progress))


def _with_free_length(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, the length of its texts left open where its text encoder allows it."""
    spec, text = checkpoint.spec, checkpoint.spec.text
    if not spec.tokens.pooling.startswith("eot_") or not takes_any_length(checkpoint.text_encoder):
        return checkpoint
    free = replace(text.input, shape=(text.input.shape[0], LENGTH_AXIS))
    return replace(checkpoint, spec=replace(spec, text=replace(text, input=free)))
