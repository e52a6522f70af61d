"""What a bundle records of its typed graphs: the budget they hold, and what they answered when they were made."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError
from clipdeploy.spec import Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.choose import GraphChoice


@dataclass(frozen=True, eq=False)
class Recorded:
    """What quantising a graph left in the bundle.

    Attributes:
        cosine_mean, cosine_min, top1: the budget that it holds.
        note: in a line, what it kept of the float32 graph's answers, and on how many samples.
        inputs_sha256: over the inputs that `embeds` belong to.
        embeds: (K, D) what the graph answered to the golden samples in ONNX Runtime, rounding as its types do.
    """

    cosine_mean: float
    cosine_min: float
    top1: float
    note: str
    inputs_sha256: str
    embeds: NDArray[np.float32]


def report_name(graph: str) -> str:
    """Name of the record of how a graph was quantised, such as `report/quantize_visual_int8.json`."""
    return f"report/quantize_{PurePosixPath(graph).stem}.json"


def answers_name(graph: str) -> str:
    """Name of the file with what a graph answered to the golden samples, such as `golden/visual_int8.npz`."""
    return f"golden/{PurePosixPath(graph).stem}.npz"


def inputs_sha256(inputs: NDArray[Any]) -> str:
    """Over pixels or token ids, in order."""
    return hashlib.sha256(np.ascontiguousarray(inputs, inputs.dtype.newbyteorder("<")).tobytes()).hexdigest()


def read_recorded(bundle: Bundle, graphs: Mapping[Tower, GraphChoice]) -> dict[Tower, Recorded]:
    """What the bundle records of those of `graphs` that clipdeploy quantised.

    Raises:
        BundleCorruptError: a record is not what was written.
    """
    return {
        tower: _read(bundle, graph.name)
        for tower, graph in graphs.items()
        if report_name(graph.name) in bundle.manifest.files
    }


def _read(bundle: Bundle, graph: str) -> Recorded:
    try:
        record = json.loads(bundle.path(report_name(graph)).read_text(encoding="utf-8"))
        with bundle.path(answers_name(graph)).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            embeds, inputs = stored["embeds"], str(stored["inputs_sha256"])
        budget, accuracy, samples = record["budget"], record["accuracy"], record["samples"]
        held_out = "all" if samples["held_out"] == samples["measured"] else f"{samples['held_out']} of them"
        note = (
            f"quantised: mean cosine {accuracy['cosine_mean']:.5f}, least {accuracy['cosine_min']:.5f} to fp32 on "
            f"{samples['measured']} samples, {held_out} held out"
        )
        return Recorded(note=note, inputs_sha256=inputs, embeds=embeds, **budget)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: what it records of {graph} cannot be read: {error!r}",
            fix="copy the bundle again, whole, or quantise again with --overwrite",
        ) from error
