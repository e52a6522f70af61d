"""Banks in a bundle: the embeddings of labels, so that a device needs no text encoder.

    banks/ID.json   embedding space, templates, and the labels in the order of the rows, by what made them (`BankIndex`)
    banks/ID.npz    embeddings (K, D) float32, L2-normalised: a row a label

A bank holds the labels of one list of templates; its ID is made of that list and the embedding space.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.spec import Precision, from_dict

FORMAT = 1
KIND = "bank"
UNIT_NORM = 1e-5
"""Largest distance of a row's length from 1; float32 leaves a hundredth of it."""

_FIX = "make the bank anew where the text encoder is: clipdeploy bank; or copy the bundle again, whole"


@dataclass(frozen=True)
class BankPart:
    """Labels that one run embedded.

    Attributes:
        precision: of the text encoder that made the rows.
        backend: the engine that ran it.
        graph_sha256: of its graph.
        created: UTC, ISO 8601.
        labels: in the order of the rows.
    """

    precision: Precision
    backend: str
    graph_sha256: str
    created: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class BankIndex:
    """What a bank holds: the labels of its parts, one part after the other, in the order of the rows."""

    format: int
    embedding_space: str
    templates: tuple[str, ...]
    parts: tuple[BankPart, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for part in self.parts for label in part.labels)


@dataclass(frozen=True)
class BankInfo:
    """A bank, as it is shown.

    Attributes:
        id: of its files.
        templates: a row is the mean over them.
        labels: in the order of the rows.
        made_by: the text encoders that made the rows, such as `fp32 on onnxruntime`.
        size_bytes: of its files.
    """

    id: str
    templates: tuple[str, ...]
    labels: tuple[str, ...]
    made_by: tuple[str, ...]
    size_bytes: int


def bank_id(templates: tuple[str, ...], embedding_space: str) -> str:
    """16 hex digits over a list of templates and an embedding space."""
    return hashlib.sha256(json.dumps([embedding_space, list(templates)]).encode()).hexdigest()[:16]


def index_name(identity: str) -> str:
    return f"banks/{identity}.json"


def rows_name(identity: str) -> str:
    return f"banks/{identity}.npz"


def bank_ids(bundle: Bundle) -> list[str]:
    """The banks that the manifest names."""
    files = [PurePosixPath(name) for name, entry in bundle.manifest.files.items() if entry.kind == KIND]
    return sorted(file.stem for file in files if file.suffix == ".json")


def banks_of(bundle: Bundle) -> tuple[BankInfo, ...]:
    """The banks of a bundle; raises BundleCorruptError as `read_index`."""
    return tuple(_info(bundle, identity) for identity in bank_ids(bundle))


def _info(bundle: Bundle, identity: str) -> BankInfo:
    index = read_index(bundle, identity)
    return BankInfo(
        id=identity,
        templates=index.templates,
        labels=index.labels,
        made_by=tuple(dict.fromkeys(f"{part.precision.value} on {part.backend}" for part in index.parts)),
        size_bytes=sum(
            entry.size_bytes
            for name, entry in bundle.manifest.files.items()
            if name in (index_name(identity), rows_name(identity))
        ),
    )


def read_index(bundle: Bundle, identity: str) -> BankIndex:
    """What a bank holds.

    Raises:
        BundleCorruptError: it is altered, or of another embedding space than the bundle.
    """
    name = index_name(identity)
    content = _content(bundle, name)
    try:
        index = from_dict(BankIndex, json.loads(content), where=name)
    except (ValueError, InputError) as error:
        raise _unreadable(bundle, name, str(error)) from error
    if index.format != FORMAT:
        raise _unreadable(bundle, name, f"it has format {index.format}, expected {FORMAT}")
    space = bundle.manifest.embedding_space
    if index.embedding_space != space:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: the bank {name} is of embedding space {index.embedding_space}, the bundle of "
            f"{space}; their vectors do not compare",
            fix=f"make it anew for this model: clipdeploy bank {bundle.folder}",
        )
    labels = index.labels
    if identity != bank_id(index.templates, space) or not index.templates or len(set(labels)) != len(labels):
        raise _unreadable(bundle, name, "its templates or labels are not those that it was written with")
    return index


def read_rows(bundle: Bundle, identity: str, index: BankIndex) -> NDArray[np.float32]:
    """The rows of a bank, (K, D) float32, read-only; raises BundleCorruptError where they are not what was written."""
    name = rows_name(identity)
    content = _content(bundle, name)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            rows: NDArray[np.float32] = stored["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(bundle, name, repr(error)) from error
    shape = (len(index.labels), bundle.model.embed_dim)
    if rows.shape != shape or rows.dtype != np.float32:
        raise _unreadable(bundle, name, f"it holds {rows.shape} {rows.dtype}, expected {shape} float32")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_NORM))  # what is not finite is wrong too
    if len(wrong):
        label = index.labels[wrong[0]]
        raise _unreadable(bundle, name, f"the row of {label!r:.60} has length {lengths[wrong[0]]:.6g}, expected 1")
    rows.setflags(write=False)
    return rows


def _content(bundle: Bundle, name: str) -> bytes:
    """The bytes of a file, which must be those that the manifest names."""
    try:
        content = bundle.path(name).read_bytes()
    except OSError as error:
        raise _unreadable(bundle, name, str(error)) from error
    actual, expected = hashlib.sha256(content).hexdigest(), bundle.manifest.files[name].sha256
    if actual != expected:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: {name} is altered: sha256 {actual[:12]}..., expected {expected[:12]}...", fix=_FIX
        )
    return content


def _unreadable(bundle: Bundle, name: str, why: str) -> BundleCorruptError:
    return BundleCorruptError(f"bundle {bundle.folder}: the bank {name} cannot be used: {why}", fix=_FIX)
