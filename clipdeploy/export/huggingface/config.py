"""config.json: which of transformers' classes a checkpoint is, and what they are built with. No code of it is run."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers.utils import logging as chatter

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources.source import TransformersSource

CONFIG = "config.json"
Reading = Literal["end", "legacy_end", "last", "first"]


@dataclass(frozen=True)
class Family:
    """A kind of dual encoder.

    Attributes:
        kind: the library's class.
        reads: the position a text's embedding is read from: `end` is the first end token (`legacy_end`: where the
            configuration says 2, which is not true, the highest id), `last` the last place, `first` the class token.
        masks_padding: no token attends to the padding. CLIP's causal mask hides it anyway, SigLIP was trained with it.
        length: of a text, where the table of positions is longer than what was trained with.
    """

    kind: str
    reads: Reading
    masks_padding: bool = False
    length: int | None = None

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.reads in ("end", "legacy_end")


FAMILIES: dict[str, Family] = {
    "clip": Family("CLIPModel", "legacy_end"),
    "metaclip_2": Family("MetaClip2Model", "end"),
    "siglip": Family("SiglipModel", "last"),
    # 52 and 77 are the defaults of the code that these were trained with, cn_clip and FlagAI; their tables are longer.
    "chinese_clip": Family("ChineseCLIPModel", "first", masks_padding=True, length=52),
    "altclip": Family("AltCLIPModel", "first", masks_padding=True, length=77),
}
"""By `model_type` of config.json."""

_HALVES = {"CLIPVisionModelWithProjection": "CLIPTextModelWithProjection"}
_HALVES["MetaClip2VisionModelWithProjection"] = "MetaClip2TextModelWithProjection"
SUPPORTED = (*(family.kind for family in FAMILIES.values()), *(f"{a} with {b}" for a, b in _HALVES.items()))
_NAFLEX = "Siglip2Model"


@dataclass(frozen=True)
class Plan:
    """What is to be built.

    Attributes:
        family: of the whole model, or of the model the halves belong to.
        config: of the whole model, or of the image half.
        text_config: of the text half, None for a whole model.
        kinds: the class to build, or the classes of the image half and the text half.
    """

    family: Family
    config: Any
    text_config: Any | None
    kinds: tuple[str, ...]

    @property
    def vision(self) -> Any:
        """Configuration of the image encoder."""
        return self.config if self.text_config is not None else self.config.vision_config

    @property
    def text(self) -> Any:
        """Configuration of the text encoder."""
        return self.text_config if self.text_config is not None else self.config.text_config


def read_plan(source: TransformersSource) -> Plan:
    """What config.json of `source` asks for; raises CheckpointError where that is nothing that can be exported."""
    stated = read_json(source.folder / CONFIG, source.label)
    kind, model_type = _kind(stated, source.label), str(stated.get("model_type"))
    if kind in _HALVES:
        return _pair(source, stated, kind)
    _check_kind(kind, model_type, stated, source.label)
    if source.text_folder is not None:
        raise CheckpointError(
            f"{source.label} is a {kind}, which holds both encoders; a text encoder apart was given too",
            fix="drop --text-model",
        )
    return Plan(FAMILIES[model_type], _config(stated, model_type, source.label), None, (kind,))


def read_json(path: Path, label: str) -> dict[str, Any]:
    """A JSON object; raises CheckpointError where there is none, or where it asks for code of the checkpoint's own."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{label}: {path} does not exist", fix="copy the whole repository") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{label}: {path} cannot be read: {error}", fix="copy the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, expected an object", fix="copy the file again")
    if content.get("auto_map"):
        raise CheckpointError(
            f"{label}: {path.name} asks for Python code that comes with the checkpoint (auto_map), which is never run",
            fix="export a version of the checkpoint for one of transformers' own classes, or of open_clip",
        )
    return content


@contextmanager
def calm() -> Iterator[None]:
    """Keep transformers' logging and warnings from the user's screen; what matters of them is checked here."""
    before = chatter.get_verbosity()
    chatter.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(before)


def first_line(error: BaseException) -> str:
    """What an error says, short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _kind(stated: dict[str, Any], label: str) -> str:
    """The class that was saved; files that do not name it hold the whole model of their type."""
    named = stated.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    family = FAMILIES.get(str(stated.get("model_type")))
    if family is None:
        raise _not_supported(label, f"model_type {stated.get('model_type')!r}")
    return family.kind


def _check_kind(kind: str, model_type: str, stated: dict[str, Any], label: str) -> None:
    """Raise CheckpointError unless `kind` is the whole model of a family."""
    if kind == _NAFLEX or model_type == "siglip2":
        raise CheckpointError(
            f"{label} is a {_NAFLEX} (NaFlex): each picture's shape decides how many patches it has, "
            "which a graph of one image size cannot do",
            fix="export a fixed-resolution SigLIP 2 (patch16-224, patch16-256, ...), whose model_type is siglip",
        )
    if kind in _HALVES.values():
        image = next(a for a, b in _HALVES.items() if b == kind)
        raise CheckpointError(
            f"{label} is a {kind}, the text encoder alone",
            fix=f"give the folder of its {image} as the checkpoint, and this one as --text-model",
        )
    if f"{kind}WithProjection" in (*_HALVES, *_HALVES.values()):
        raise CheckpointError(
            f"{label} is a {kind}, whose output is not projected into the space that pictures and texts share",
            fix=f"save the model as {kind}WithProjection, or give the checkpoint of the whole model",
        )
    family = FAMILIES.get(model_type)
    if family is None or family.kind != kind:
        raise _not_supported(label, f"{kind} (model_type {stated.get('model_type')!r})")


def _not_supported(label: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{label} is a transformers checkpoint of {what}, which is not supported",
        fix=f"export one of {', '.join(SUPPORTED)}; or an open_clip version of the model",
    )


def _pair(source: TransformersSource, stated: dict[str, Any], kind: str) -> Plan:
    other = _HALVES[kind]
    if source.text_folder is None:
        raise CheckpointError(
            f"{source.label} is a {kind}, the image encoder alone",
            fix=f"name the folder or repository of its {other} with --text-model",
        )
    words = read_json(source.text_folder / CONFIG, source.label)
    found = _kind(words, source.label)
    if found != other:
        raise CheckpointError(
            f"{source.label}: --text-model is a {found}, expected a {other}", fix=f"save the text encoder as {other}"
        )
    image = _config(stated, str(stated.get("model_type")), source.label)
    text = _config(words, str(words.get("model_type")), source.label)
    if image.projection_dim != text.projection_dim:
        raise CheckpointError(
            f"{source.label}: the image encoder gives {image.projection_dim} values, the text encoder "
            f"{text.projection_dim}; they do not belong together",
            fix="give the text encoder that was trained with this image encoder",
        )
    family = FAMILIES["metaclip_2" if kind.startswith("Meta") else "clip"]
    return Plan(family, image, text, (kind, other))


def _config(stated: dict[str, Any], model_type: str, label: str) -> Any:
    """transformers' own record of a configuration, set to compute in float32 with explicit products."""
    try:
        with calm():
            config = transformers.AutoConfig.for_model(**{**stated, "model_type": model_type})
    except Exception as error:  # its validation raises classes of several libraries
        raise CheckpointError(
            f"{label}: transformers {transformers.__version__} cannot take config.json: {first_line(error)}",
            fix="correct config.json, or install the version of transformers it was written with",
        ) from error
    for part in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
        if part is not None:
            part._attn_implementation = "eager"
            part.dtype = "float32"
    return config
