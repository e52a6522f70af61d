"""A transformers checkpoint: built, described, and answering as transformers does."""

from __future__ import annotations

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.huggingface.build import build_model
from clipdeploy.export.huggingface.config import read_plan
from clipdeploy.export.huggingface.describe import describe
from clipdeploy.export.huggingface.encoders import take_apart
from clipdeploy.export.huggingface.image_size import image_sizes, set_image_size
from clipdeploy.export.huggingface.pictures import read_pictures
from clipdeploy.export.huggingface.words import read_words
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.export.weights.fit import hash_weights
from clipdeploy.progress import Progress
from clipdeploy.request import CheckpointRequest


def load_transformers(
    source: TransformersSource, request: CheckpointRequest, hub: Hub, progress: Progress
) -> Checkpoint:
    """Load what `source` names; raises CheckpointError as `load_checkpoint` says.

    Everything that can be refused without the weights is looked at before they are read.
    """
    plan = read_plan(source)
    own_size, size = image_sizes(plan, request.image_size, label=source.label)
    pictures = read_pictures(source.folder, request.preprocessing, own_size=own_size, size=size, label=source.label)
    words = read_words(source, request, plan)
    model = build_model(source, plan, request.seed, progress)
    if size != own_size:
        set_image_size(model, size)
    encoders = take_apart(
        model,
        plan.family,
        pooling=words.spec.pooling,
        end_id=words.spec.end_id,
        pad_id=words.spec.pad_id,
        label=source.label,
    )
    return Checkpoint(
        model=model,
        image_encoder=encoders.image_encoder,
        text_encoder=encoders.text_encoder,
        encode_image=encoders.encode_image,
        encode_text=encoders.encode_text,
        spec=describe(
            model,
            encoders,
            plan,
            name=source.name,
            label=source.label,
            pixels=pictures.spec,
            tokens=words.spec,
            logit_scale=request.logit_scale,
        ),
        crop=pictures.crop,
        transform=pictures.transform,
        tokenize=words.tokenize,
        source=source.label,
        weights_sha256=hash_weights(model),
        licence=source.licence,
        tokenizer_json=words.to_json,
        trained=not source.random_weights,
        causal=plan.family.causal,
    )
