"""clipdeploy takes a CLIP checkpoint to the edge.

    import clipdeploy

    clip = clipdeploy.load("bundle/")
    clip.classify("photo.jpg", ["a dog", "a cat"]).label

Importing this package costs next to nothing: numpy and Pillow come with the first use of the runtime,
PyTorch, ONNX and click never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipdeploy.bundle import Bundle
from clipdeploy.errors import (
    BackendError,
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleVersionError,
    CalibrationError,
    CheckpointError,
    ClipdeployError,
    EngineError,
    ExportError,
    ImageError,
    InputError,
    MissingExtraError,
    OutputError,
    ParityError,
    SourceError,
    TextError,
)
from clipdeploy.spec import Precision, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.asynchronous import AsyncClassifier, AsyncClip
    from clipdeploy.runtime.backends import BackendChoice
    from clipdeploy.runtime.baked import Baked, load_baked
    from clipdeploy.runtime.clip import Classification, Classified, Classifier, Clip, Embedded, load
    from clipdeploy.runtime.labels import TEMPLATES

__all__ = [
    "TEMPLATES",
    "AsyncClassifier",
    "AsyncClip",
    "BackendChoice",
    "BackendError",
    "Baked",
    "Bundle",
    "BundleCorruptError",
    "BundleError",
    "BundleNotFoundError",
    "BundleVersionError",
    "CalibrationError",
    "CheckpointError",
    "Classification",
    "Classified",
    "Classifier",
    "Clip",
    "ClipdeployError",
    "Embedded",
    "EngineError",
    "ExportError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "ParityError",
    "Precision",
    "SourceError",
    "TextError",
    "Tower",
    "__version__",
    "load",
    "load_baked",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The runtime's names, imported when first asked for, so that tools which never load a bundle stay quick."""
    if name in {"BackendChoice", "Classification", "Classified", "Classifier", "Clip", "Embedded", "load"}:
        from clipdeploy.runtime import clip

        return getattr(clip, name)
    if name in {"Baked", "load_baked"}:
        from clipdeploy.runtime import baked

        return getattr(baked, name)
    if name in {"AsyncClassifier", "AsyncClip"}:
        from clipdeploy.runtime import asynchronous

        return getattr(asynchronous, name)
    if name == "TEMPLATES":
        from clipdeploy.runtime.labels import TEMPLATES

        return TEMPLATES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
