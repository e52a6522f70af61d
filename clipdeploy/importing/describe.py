"""The ModelSpec of two towers of others, as honest as their folder allows, and what does not fit together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.findings import Finding
from clipdeploy.importing.graphs import parameters
from clipdeploy.importing.looks import activation_of, normalises, precision
from clipdeploy.importing.original import measure_logits
from clipdeploy.importing.ports import ImagePort, TextPort
from clipdeploy.importing.records import ImportRequest, Probability, Stated
from clipdeploy.importing.tower import Found, Imported
from clipdeploy.spec import ModelSpec, PixelSpec, Precision, TensorSpec, TokenSpec, Tower, TowerSpec

UNKNOWN = "unknown"


def describe(
    request: ImportRequest,
    stated: Stated,
    image: Imported,
    text: Imported,
    pixels: PixelSpec,
    tokens: TokenSpec,
    samples: NDArray[np.float32],
    ids: NDArray[np.int64],
) -> ModelSpec:
    """The record of two towers.

    Args:
        samples, ids: what the towers were run on.

    Raises:
        CheckpointError: the towers share no space, or the logits are not stated; the fix names the flag.
    """
    width = image.embeds.shape[1]
    if text.embeds.shape[1] != width:
        raise CheckpointError(
            f"the image tower gives {width} numbers, the text tower {text.embeds.shape[1]}: they share no space",
            fix="name the projected embeddings: --image-output NAME, --text-output NAME, or the towers of one model",
        )
    scale, bias, probability = _logits(request, stated, pixels, tokens, samples, ids, masks=text.masks)
    families = {Tower.IMAGE: stated.image_family, Tower.TEXT: stated.text_family}
    inputs = {
        Tower.IMAGE: TensorSpec("pixel_values", "float32", ("batch", 3, pixels.height, pixels.width)),
        Tower.TEXT: TensorSpec("input_ids", "int64", ("batch", tokens.context_length)),
    }
    names = {Tower.IMAGE: "image_embeds", Tower.TEXT: "text_embeds"}
    records = {
        one.found.tower: TowerSpec(
            tower=one.found.tower,
            architecture=families[one.found.tower],
            parameters=parameters(one.found.model),
            input=inputs[one.found.tower],
            output=TensorSpec(names[one.found.tower], "float32", ("batch", width)),
        )
        for one in (image, text)
    }
    seen = [kind for one in (image, text) if (kind := activation_of(one.found.model))]
    try:
        return ModelSpec(
            name=stated.name,
            embed_dim=width,
            image=records[Tower.IMAGE],
            text=records[Tower.TEXT],
            pixels=pixels,
            tokens=tokens,
            activation="+".join(dict.fromkeys(seen)) or stated.activation or UNKNOWN,
            logit_scale=scale,
            logit_bias=bias,
            probability=probability,
        )
    except InputError as error:
        raise CheckpointError(f"{request.folder}: {error.message}", fix="say --logit-scale") from error


def same_precision(image: Found, text: Found) -> Precision:
    """The number format of both towers; raises CheckpointError where they differ."""
    ours, theirs = precision(image.model), precision(text.model)
    if ours is not theirs:
        raise CheckpointError(
            f"{image.label} computes in {ours.value}, {text.label} in {theirs.value}; a bundle's towers share a format",
            fix="name two graphs of one format: --variant NAME, or --image-graph and --text-graph",
        )
    return ours


def stated_findings(
    stated: Stated, image: Found, text: Found, pixels: PixelSpec, tokens: TokenSpec, model: ModelSpec
) -> list[Finding]:
    """Where the folder's words and its graphs part."""
    found = []
    if stated.embed_dim is not None and stated.embed_dim != model.embed_dim:
        message = f"the graphs give {model.embed_dim} numbers, the configuration says {stated.embed_dim}"
        fix = "name the projected embeddings: --image-output NAME, --text-output NAME"
        found.append(Finding("width", "bad", message, fix))
    else:
        found.append(Finding("width", "good", f"both towers give {model.embed_dim} numbers"))
    assert isinstance(text.port, TextPort)
    fixed, said = text.port.length, stated.context_length
    if fixed is not None and said is not None and fixed != said:
        message = f"{text.name}: takes {fixed} ids a text, the configuration says {said}"
        fix = f"export the text tower again with {said} ids, or correct the configuration"
        found.append(Finding("text length", "bad", message, fix))
    else:
        found.append(Finding("text length", "good", f"{tokens.context_length} ids a text"))
    assert isinstance(image.port, ImagePort)
    twice = normalises(image.model, image.port.port.name) and image.port.port.dtype != "uint8"
    if twice and (pixels.mean != (0.0,) * 3 or pixels.std != (1.0,) * 3):
        message = f"{image.name}: normalises pixels itself, so that they are normalised twice"
        fix = "say --preprocessing mobileclip, which gives it plain 0..1, if that is what it takes"
        found.append(Finding("normalisation", "bad", message, fix))
    if model.probability == "softmax" and stated.pixels is not None and pixels.resize == "squash":
        message = f"{stated.pixels.where} squashes pictures; most CLIPs trained with a softmax crop the centre"
        found.append(Finding("resize", "note", message, "say --preprocessing openai if this one does"))
    counted = f"{model.image.parameters / 1e6:.1f} M and {model.text.parameters / 1e6:.1f} M parameters"
    found.append(Finding("weights", "good", f"image and text tower have {counted}"))
    return found


def _logits(
    request: ImportRequest,
    stated: Stated,
    pixels: PixelSpec,
    tokens: TokenSpec,
    samples: NDArray[np.float32],
    ids: NDArray[np.int64],
    *,
    masks: bool,
) -> tuple[float, float, Probability]:
    """Scale, bias, and how logits become probabilities: from flags, else measured where a graph gives logits."""
    sigmoid = request.logit_bias is not None or stated.probability == "sigmoid"
    scale, bias = request.logit_scale, request.logit_bias
    if stated.scored is not None and (scale is None or (sigmoid and bias is None)):
        measured = measure_logits(stated.scored, samples, ids, pixels, tokens, masks=masks, biased=sigmoid)
        if measured is not None:
            scale = measured[0] if scale is None else scale
            bias = measured[1] if bias is None else bias
    if scale is None:
        raise CheckpointError(
            "nothing states the logit scale, without which similarities give no probabilities",
            fix="say --logit-scale as the checkpoint has it, exponentiated (100 for most trained CLIPs)",
        )
    if sigmoid and bias is None:
        raise CheckpointError(
            "a checkpoint trained with a sigmoid needs its logit bias, which nothing states",
            fix="say --logit-bias as the checkpoint has it (near -10 to -17 for SigLIP)",
        )
    return scale, bias or 0.0, "sigmoid" if sigmoid else "softmax"
