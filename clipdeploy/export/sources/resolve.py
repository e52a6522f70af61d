"""Which source a request names, told apart by what is there and never by a guess."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip as library

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources import huggingface, open_clip, openai, published
from clipdeploy.export.sources.hub import CONFIG, Hub
from clipdeploy.export.sources.place import FOLDER, HUB, Folder, Place, folder, names_repository, repository
from clipdeploy.export.sources.source import OpenClipSource, Source
from clipdeploy.request import CheckpointRequest

_PAIR = ("image_encoder", "text_encoder")  # as diffusers names them
_GRAPHS = ("vision_model.onnx", "onnx/vision_model.onnx", "visual.onnx", "visual/model.onnx")


def resolve(request: CheckpointRequest, hub: Hub) -> Source:
    """Find the files that `request` names.

    `request.model` is, in this order: `hf-hub:` or `local-dir:` when it begins so; an architecture of open_clip; a
    folder; a file; a repository when it has the form ORG/NAME. Of a folder or repository, `open_clip_config.json`
    makes it open_clip's, else `config.json` makes it transformers'; `request.library` says it where both are there.

    Raises:
        CheckpointError: nothing of that name, an ambiguity, a mismatch of activations, no network where needed, or
            an option that has nothing to say of such a checkpoint.
    """
    model = request.model
    if request.pretrained is not None and request.random_weights:
        raise CheckpointError(
            f"{model}: both weights ({request.pretrained}) and random weights are asked for", fix="drop one"
        )
    if request.entry is not None and request.random_weights:
        raise CheckpointError(f"{model}: of random weights there is no entry {request.entry!r}", fix="drop --entry")
    source = _resolve(model, request, hub)
    _check_options(source, request)
    return source


def _resolve(model: str, request: CheckpointRequest, hub: Hub) -> Source:
    if model.startswith(HUB):
        _check_own_weights(request)
        return _of_place(repository(model, hub), request, hub)
    if model.startswith(FOLDER):
        _check_own_weights(request)
        return _of_place(folder(model), request, hub)
    if model.replace("/", "-") in library.list_models():
        return _of_architecture(model, request, hub)
    path = Path(model).expanduser()
    if path.is_dir():
        _check_own_weights(request)
        return _of_place(folder(model), request, hub)
    if path.is_file():
        _check_own_weights(request)
        return _of_file(model, request)
    if not names_repository(model):
        raise published.unknown_architecture(model)
    _check_own_weights(request)
    try:
        return _of_place(repository(model, hub), request, hub)
    except CheckpointError as error:
        near = published.near(model.replace("/", "-"), cutoff=0.8)
        raise CheckpointError(
            f"{model!r} is no architecture and no folder or file; as a repository: {error.message}",
            fix=(f"did you mean {', '.join(near)}? Else " if near else "check the path; or ") + str(error.fix),
        ) from error


def _of_architecture(model: str, request: CheckpointRequest, hub: Hub) -> Source:
    if request.library == "transformers":
        raise CheckpointError(
            f"{model} is an architecture of open_clip, and --library transformers contradicts that",
            fix="drop --library, or name a folder or repository of transformers",
        )
    try:
        return open_clip.from_architecture(model, request.pretrained, random_weights=request.random_weights, hub=hub)
    except CheckpointError as error:
        if request.pretrained is not None or not Path(model).exists():
            raise
        raise CheckpointError(
            error.message, fix=f"{error.fix}; or, if the folder of this name is meant, {FOLDER}{model}"
        ) from error


def _of_file(model: str, request: CheckpointRequest) -> Source:
    if request.library == "transformers":
        raise CheckpointError(
            f"{model} is a file, and a transformers checkpoint is a folder", fix="name the folder that holds it"
        )
    if request.random_weights:
        raise CheckpointError(
            f"{model} is a weights file, and random weights are asked for", fix="name its architecture instead"
        )
    return openai.from_file(model, request.entry)


def _of_place(place: Place, request: CheckpointRequest, hub: Hub) -> Source:
    if request.library == "open_clip" or (request.library is None and _has_open_clip(place)):
        return open_clip.from_place(place, random_weights=request.random_weights)
    text = None if request.text_model is None else _text_place(request.text_model, hub)
    if huggingface.read_config(place) is None:
        found = _inside(place, text)
        if found is None and request.library is None:
            raise _nothing_there(place)
        place, text = found or (place, text)
    return huggingface.from_place(place, text, random_weights=request.random_weights)


def _has_open_clip(place: Place) -> bool:
    try:
        return place.get(CONFIG) is not None
    except CheckpointError as error:  # not to be asked, and another program may have filled the cache
        raise CheckpointError(
            error.message, fix=f"{error.fix}; if the cache holds it as transformers does, --library transformers"
        ) from error


def _text_place(model: str, hub: Hub) -> Place:
    """Where a text encoder is that stands apart."""
    if model.startswith(FOLDER) or (not model.startswith(HUB) and Path(model).expanduser().is_dir()):
        return folder(model)
    if not model.startswith(HUB) and not names_repository(model):
        raise CheckpointError(f"--text-model {model} is no folder", fix="check the path, or write hf-hub:ORG/NAME")
    return repository(model, hub)


def _inside(place: Place, text: Place | None) -> tuple[Place, Place | None] | None:
    """The folders of a sentence-transformers model or a diffusers pipeline that are a CLIP; None for neither."""
    modules = place.get("modules.json")
    if modules is not None:
        return place.sub(_sentence_transformers(modules, place)), text
    pipeline = place.get("model_index.json") is not None
    if text is None and (pipeline or isinstance(place, Folder)):
        halves = [place.sub(name) for name in _PAIR]
        there = [half.get(huggingface.CONFIG) is not None for half in halves]
        if all(there):
            return halves[0], halves[1]
        if pipeline:
            lacking = " and ".join(name for name, found in zip(_PAIR, there, strict=True) if not found)
            raise CheckpointError(
                f"{place.label} is a diffusers pipeline without {lacking}, so no CLIP of two encoders",
                fix="name the CLIP it was built with; or, for an image encoder alone, its folder with --text-model "
                "FOLDER",
            )
    return None


def _sentence_transformers(modules: Path, place: Place) -> str:
    """The sub-folder of the CLIP in a sentence-transformers model."""
    try:
        kinds = {str(part["path"]): str(part["type"]).rpartition(".")[2] for part in json.loads(modules.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{modules} cannot be read: {error}", fix="download or copy it again") from error
    clips = [path for path, kind in kinds.items() if kind == "CLIPModel" and path]
    rest = [kind for kind in kinds.values() if kind not in ("CLIPModel", "Normalize")]
    if len(clips) != 1 or rest:
        raise CheckpointError(
            f"{place.label} is a sentence-transformers model of {', '.join(kinds.values())}, which is no CLIP with an "
            "image and a text encoder",
            fix="name a sentence-transformers model of one CLIPModel, such as sentence-transformers/clip-ViT-B-32",
        )
    return clips[0]


def _nothing_there(place: Place) -> CheckpointError:
    """The error for a place that states no model."""
    fix = (
        f"name the folder or repository that holds {CONFIG} or {huggingface.CONFIG} beside the weights; if these are "
        "weights of a known architecture, name that instead and give the file with --pretrained FILE"
    )
    if isinstance(place, Folder):
        if place.get("manifest.json") is not None:
            return CheckpointError(f"{place.label} is a bundle already", fix="name the checkpoint it was made from")
        if any(place.get(name) is not None for name in _GRAPHS):
            fix = f"make a bundle of these graphs: clipdeploy import {place.path}"
            return CheckpointError(f"{place.label} holds exported graphs, not a checkpoint", fix=fix)
    return CheckpointError(
        f"{place.label} has no {CONFIG} and no {huggingface.CONFIG}, so nothing says which model it is", fix=fix
    )


def _check_own_weights(request: CheckpointRequest) -> None:
    if request.pretrained is not None:
        raise CheckpointError(
            f"{request.model} brings its own weights, and --pretrained {request.pretrained} names others",
            fix="drop --pretrained, or name an architecture instead",
        )


def _check_options(source: Source, request: CheckpointRequest) -> None:
    """Raise CheckpointError for an option that would have no effect on such a checkpoint."""
    if isinstance(source, OpenClipSource):
        idle = {"--text-model": request.text_model, "--logit-scale": request.logit_scale}
        why = "an open_clip checkpoint, which brings its own"
    else:
        idle = {"--entry": request.entry}
        why = "a transformers checkpoint, whose files hold one set of weights"
    for flag, value in idle.items():
        if value is not None:
            raise CheckpointError(f"{flag} {value} is given, but {source.label} is {why}", fix=f"drop {flag}")
