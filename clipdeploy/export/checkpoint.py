"""A CLIP checkpoint, loaded so that it means what it says: every doubt is an error with its fix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from torch import nn

from clipdeploy.bundle import write_text
from clipdeploy.errors import CheckpointError, OutputError
from clipdeploy.export import preprocessing
from clipdeploy.export.describe import describe
from clipdeploy.export.hub import Hub
from clipdeploy.export.quiet import no_complaints
from clipdeploy.export.sources import Source, check_origin, resolve
from clipdeploy.export.tokenizer_json import token_facts
from clipdeploy.export.weights import check_finite, hash_weights, load_weights, read_weights
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import ModelSpec

_CHUNK = 16


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint, and the reference that everything made from it is measured against.

    The `reference_*` methods do what open_clip itself does, on the CPU in float32.

    Attributes:
        model: open_clip's CLIP, CustomTextCLIP or CoCa; eval, float32, on the CPU, without gradients.
        spec: what it takes and gives.
        transform: its own transform, PIL picture to `(3, H, W) float32`.
        tokenize: its own tokenizer, N texts to `(N, L) int64`.
        source: the name, tag or path the user gave.
        weights_sha256: over the sorted names, dtypes, shapes and values of all weights.
        licence: as the model card states it, None when it does not.
    """

    model: nn.Module
    spec: ModelSpec
    transform: preprocessing.Transform
    tokenize: Callable[[list[str]], torch.Tensor]
    source: str
    weights_sha256: str
    licence: str | None
    _tokenizer_json: Callable[[], str] = field(repr=False)

    def reference_crop(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The picture after the transform's resize, crop and conversion: `(H, W, 3) uint8`, RGB."""
        picture: Any = image
        for step in self.transform.transforms[:-2]:  # type: ignore[attr-defined]
            picture = step(picture)
        return np.array(picture, dtype=np.uint8)

    def reference_pixels(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """The picture after the whole transform: `(3, H, W) float32`, RGB, normalised."""
        return self.transform(image).numpy()

    def reference_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """The ids of N texts: `(N, L) int64`."""
        return self.tokenize(list(texts)).numpy().astype(np.int64, copy=False)

    def reference_image_embeds(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`(N, 3, H, W) float32` to `(N, D) float32`, L2-normalised, by the model's own encode_image."""
        return self._encode(self.model.encode_image, pixels)

    def reference_text_embeds(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`(N, L) int64` to `(N, D) float32`, L2-normalised, by the model's own encode_text."""
        return self._encode(self.model.encode_text, ids)

    def write_tokenizer(self, path: Path) -> None:
        """Write `tokenizer.json`, whole or not at all; raises OutputError when it cannot be written."""
        try:
            write_text(path, self._tokenizer_json())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}", fix="free space or choose another folder") from error

    def _encode(self, encode: Any, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        rows = torch.from_numpy(np.ascontiguousarray(batch))
        with torch.inference_mode():
            chunks = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
            parts = [encode(chunk, normalize=True).numpy() for chunk in chunks]
        return np.concatenate(parts) if parts else np.zeros((0, self.spec.embed_dim), np.float32)


def load_checkpoint(
    model: str | Path,
    *,
    pretrained: str | Path | None = None,
    random_weights: bool = False,
    seed: int = 0,
    preprocessing_family: str | None = None,
    progress: Progress = silent,
) -> Checkpoint:
    """Load a CLIP checkpoint.

    Args:
        model: an open_clip architecture (`ViT-B-32`), `hf-hub:ORG/REPO`, `local-dir:PATH`, or a folder that holds
            open_clip_config.json and weights.
        pretrained: for an architecture, a tag of published weights or a weights file. A file states neither its
            preprocessing nor, unless it is OpenAI's own, its activation: the activation is the architecture's, the
            preprocessing the one that all published weights of the architecture share, or `preprocessing_family`.
        random_weights: take no weights, but the values that open_clip gives the architecture after
            `torch.manual_seed(seed)`.
        seed: of the random weights.
        preprocessing_family: a name of `preprocessing.FAMILIES`, for weights that state none.
        progress: called while weights are downloaded.

    Raises:
        CheckpointError: it cannot be found or read, or something about it is not certain: missing, unexpected,
            misshapen or non-finite weights, an activation that is not the one trained with, a preprocessing or
            tokenizer that is not known or not implemented, anything open_clip would only warn of.
    """
    hub = Hub(progress)
    given = None if pretrained is None else str(pretrained)
    source = resolve(str(model), given, random_weights=random_weights, hub=hub)
    config = _preprocess_config(source, preprocessing_family)
    module, embed_dim, tokenizer = _build(source, seed, hub)
    if source.weights is not None:
        progress("reading weights", 0, 0)
        weights = read_weights(source.weights)
        check_origin(source, weights)
        load_weights(module, weights, label=source.label)
    else:
        check_finite(module, label=source.label)
    module.eval().requires_grad_(False)
    pixels = preprocessing.pixel_spec(config, image_size=module.visual.image_size, label=source.label)  # type: ignore[union-attr]
    facts = token_facts(tokenizer, name=source.label)
    return Checkpoint(
        model=module,
        spec=describe(module, name=source.name, embed_dim=embed_dim, pixels=pixels, facts=facts),
        transform=preprocessing.make_transform(pixels, label=source.label),
        tokenize=tokenizer,
        source=source.label,
        weights_sha256=hash_weights(module),
        licence=source.licence,
        _tokenizer_json=facts.to_json,
    )


def _preprocess_config(source: Source, family: str | None) -> dict[str, Any]:
    named = preprocessing.family(family) if family is not None else None
    if source.stated is None and named is None:
        raise CheckpointError(
            f"{source.label}: nothing states how pictures were prepared for these weights",
            fix=f"name it with --preprocessing, one of {', '.join(preprocessing.FAMILIES)}; or put the weights into a "
            "folder with an open_clip_config.json that has preprocess_cfg",
        )
    if source.stated is not None and named is not None and not preprocessing.same(source.stated, named):
        raise CheckpointError(
            f"{source.label} states another preprocessing than {family!r}: {source.stated}", fix="drop --preprocessing"
        )
    return source.stated if source.stated is not None else named or {}


def _build(source: Source, seed: int, hub: Hub) -> tuple[nn.Module, int, Any]:
    """The architecture with seeded values, its D, and the tokenizer."""
    config = open_clip.get_model_config(source.model)
    asked = [config["text_cfg"][key] for key in ("hf_tokenizer_name", "hf_model_name") if config["text_cfg"].get(key)]
    try:
        with (
            no_complaints(source.label),
            hub.session() if asked else nullcontext(),
            torch.random.fork_rng(devices=[]),
        ):
            tokenizer = open_clip.get_tokenizer(source.tokenizer)
            torch.manual_seed(seed)
            module = open_clip.create_model(source.model, load_weights=False, pretrained_text=False)
    except (OSError, TypeError, ValueError, KeyError, RuntimeError, AssertionError, ImportError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if asked and isinstance(error, (OSError, ValueError)):
            raise CheckpointError(
                f"{source.label} needs a tokenizer or text model of the Hugging Face hub ({', '.join(asked)}), "
                f"which cannot be had: {hub.unreachable or why}",
                fix="run once where the network is, which fills the cache; or put tokenizer.json and "
                "tokenizer_config.json into a folder with open_clip_config.json and the weights: local-dir:FOLDER",
            ) from error
        raise CheckpointError(
            f"{source.label}: open_clip {open_clip.__version__} cannot build the architecture: {why}",
            fix="correct model_cfg in open_clip_config.json, or install the open-clip-torch it was written for",
        ) from error
    return module, int(config["embed_dim"]), tokenizer
