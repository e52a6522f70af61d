"""The rows of labels that are baked: from the bundle's banks, and else from its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import TextError
from clipdeploy.runtime.backends import choose_backend
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, resolve_templates
from clipdeploy.runtime.text_bank import TextBank
from clipdeploy.spec import Precision, Tower


def all_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The sentences that `given` means, each a sentence or the name of a set; the default where there are none."""
    return tuple(one for template in given or (DEFAULT_TEMPLATE,) for one in resolve_templates(template))


def check_lines(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels, once they are fit to be told apart and to stand in a file of lines; raises TextError."""
    checked = check_labels(labels)
    for label in checked:
        if len(label.splitlines()) > 1:
            raise TextError(
                f"the label {label!r} has several lines", fix="write it in one line, or bake several labels"
            )
    return checked


def label_rows(bundle: Bundle, labels: tuple[str, ...], templates: tuple[str, ...]) -> NDArray[np.float32]:
    """(K, D) float32, L2-normalised, as `Clip.encode_labels` gives them.

    Raises:
        TextError: a label is too long for the model; or unknown to a bundle without a text encoder.
        BundleCorruptError: a bank is altered or of another embedding space.
        MissingExtraError, BackendError: no engine runs the text encoder.
    """
    precisions = bundle.precisions(Tower.TEXT)
    if not precisions:
        return TextBank(bundle, None).labels(labels, templates)
    from clipdeploy.runtime.clip import load

    precision = Precision.FP32 if Precision.FP32 in precisions else precisions[0]
    with load(_texts_only(bundle), precision=precision, backend=choose_backend().name, check_hashes=False) as clip:
        return clip.encode_labels(labels, templates)


def _texts_only(bundle: Bundle) -> Bundle:
    """The bundle as if it had no image encoder, so that what is asked for is asked of the text encoder."""
    files = bundle.manifest.files
    stay = {name: entry for name, entry in files.items() if (entry.kind, entry.tower) != ("graph", Tower.IMAGE)}
    return Bundle(bundle.folder, replace(bundle.manifest, files=stay))
