"""The graphs as they came, as what golden samples are made from; and the logit scale that one of them may carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.errors import CheckpointError
from clipdeploy.importing import probes
from clipdeploy.importing.foreign import ForeignGraph, image_feeds, text_feeds
from clipdeploy.importing.graphs import import_onnx
from clipdeploy.importing.ports import image_port, inputs, outputs, text_port
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import ModelSpec, PixelSpec, TokenSpec

LIBRARIES = ("onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "Pillow")
"""What makes the samples."""

NOT_PYTORCH = "the imported graphs as they came, in ONNX Runtime; never compared with PyTorch"
"""What the golden samples say of where they come from."""

_LOGITS, _IMAGE, _TEXT = "logits_per_image", "image_embeds", "text_embeds"
_FIT = 1e-4  # of the largest logit, which float32 is far within
_SPREAD = 1e-2


@dataclass(frozen=True, eq=False)
class OriginalGraphs:
    """Two graphs of others, untouched, behind our own preprocessing and tokenizer: an `Original` for golden samples.

    What they give is divided by its length here, in float64, apart from what the import builds into the graphs.
    """

    spec: ModelSpec
    source: str
    weights_sha256: str
    image: probes.Run
    text: probes.Run
    images: ImageProcessor
    tokenizer: Tokenizer

    def reference_crop(self, image: Image.Image) -> NDArray[np.uint8]:
        """The picture after resize and crop: `(H, W, 3) uint8`, RGB."""
        return self.images.crop(image)

    def reference_pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """The picture as the image tower wants it: `(3, H, W) float32`."""
        return np.asarray(self.images.normalize(self.images.crop(image)[None])[0])

    def reference_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The ids of N texts: `(N, L) int64`."""
        return self.tokenizer(list(texts))

    def reference_image_embeds(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(N, 3, H, W) float32` to `(N, D) float32`, L2-normalised."""
        return probes.unit_length(self.image(pixels))

    def reference_text_embeds(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(N, L) int64` to `(N, D) float32`, L2-normalised."""
        return probes.unit_length(self.text(ids))


def measure_logits(
    path: Path,
    pixels: NDArray[np.float32],
    ids: NDArray[np.int64],
    image: PixelSpec,
    text: TokenSpec,
    *,
    masks: bool,
    biased: bool,
) -> tuple[float, float] | None:
    """Scale and bias of a graph that gives logits too: logits = scale * cosine + bias.

    Args:
        path: a graph that takes pictures and ids at once.
        pixels, ids: `(K, 3, H, W)` and `(K, L)`.
        masks: whether a mask over padding hides anything.
        biased: whether there is a bias.

    Returns:
        None where the graph does not give logits and both embeddings, or the cosines are too alike to tell.

    Raises:
        CheckpointError: its logits are no such line.
    """
    model = import_onnx().load(str(path), load_external_data=False)
    if not {_LOGITS, _IMAGE, _TEXT} <= {port.name for port in outputs(model)}:
        return None
    pictures = {port.name for port in inputs(model) if port.shape is not None and len(port.shape) == 4}
    picture_port = image_port(_taking(model, pictures, True), path.name)
    words_port = text_port(_taking(model, pictures, False), path.name)
    feeds = image_feeds(picture_port, pixels, image) | text_feeds(words_port, ids, text, masks=masks)
    logits, images, texts = (
        np.asarray(a, np.float64) for a in ForeignGraph(path, [_LOGITS, _IMAGE, _TEXT], None).run(feeds)
    )
    cosines = probes.unit_length(images).astype(np.float64) @ probes.unit_length(texts).astype(np.float64).T
    if np.ptp(cosines) < _SPREAD:
        return None
    columns = np.stack([cosines.reshape(-1), np.full(cosines.size, float(biased))], axis=1)
    scale, bias = np.linalg.lstsq(columns, logits.reshape(-1), rcond=None)[0]
    rest = float(np.abs(scale * cosines + bias - logits).max())
    if not rest <= _FIT * max(1.0, float(np.abs(logits).max())):
        raise CheckpointError(
            f"the logits of {path.name} are not scale * cosine{' + bias' if biased else ''}: they are {rest:.2g} off",
            fix="say --logit-scale, and --logit-bias for a checkpoint trained with a sigmoid",
        )
    return float(scale), float(bias)


def _taking(model: Any, names: set[str], wanted: bool) -> Any:
    """A model that is only its inputs: those of `names`, or the others."""
    light = type(model)()
    light.graph.input.extend(value for value in model.graph.input if (value.name in names) is wanted)
    return light
