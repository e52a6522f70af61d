"""A bank in its bundle: read as it is now, added to, and taken out of, while other processes do the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle, NewFile, write_text
from clipdeploy.errors import BundleCorruptError, OutputError
from clipdeploy.progress import Progress
from clipdeploy.runtime.stored_banks import (
    FORMAT,
    KIND,
    BankIndex,
    BankPart,
    bank_id,
    bank_ids,
    index_name,
    read_index,
    read_rows,
    rows_name,
)
from clipdeploy.spec import to_dict

Rows = NDArray[np.float32]


def as_now(bundle: Bundle, templates: tuple[str, ...]) -> tuple[Bundle, BankIndex, Rows]:
    """The bundle and its bank of these templates as they are now; a bank without parts where there is none.

    Raises:
        OutputError: another model has taken the bundle's place.
        BundleCorruptError: the bank cannot be used.
    """
    space = bundle.manifest.embedding_space
    identity = bank_id(templates, space)
    while True:
        stamp, now = bundle.stamp(), bundle.as_now()
        if now.manifest.embedding_space != space:
            raise OutputError(
                f"bundle {now.folder} has been made anew meanwhile: it is of embedding space "
                f"{now.manifest.embedding_space}, the labels are of {space}",
                fix="run the command again",
            )
        try:
            if identity not in bank_ids(now):
                empty = np.empty((0, now.model.embed_dim), dtype=np.float32)
                return now, BankIndex(FORMAT, space, templates, ()), empty
            index = read_index(now, identity)
            return now, index, read_rows(now, identity, index)
        except BundleCorruptError:
            if bundle.stamp() == stamp:
                raise
            # Another process has written the bank between two looks: look again.


def merge(bundle: Bundle, templates: tuple[str, ...], part: BankPart, rows: Rows, progress: Progress) -> int:
    """Add rows to a bank, behind those that other processes have added meanwhile; how many it holds then.

    Raises:
        OutputError: the bundle cannot be written to, or is another one by now.
    """
    while True:
        bundle, index, before = as_now(bundle, templates)
        held = set(index.labels)
        fresh = [row for row, label in enumerate(part.labels) if label not in held]
        after = _with(index, replace(part, labels=tuple(part.labels[row] for row in fresh)))
        if not fresh or write(bundle, after, np.concatenate([before, rows[fresh]]), progress):
            return len(after.labels)


def without(index: BankIndex, leaving: Collection[str]) -> BankIndex:
    """A bank less some labels."""
    stay = [replace(part, labels=tuple(one for one in part.labels if one not in leaving)) for part in index.parts]
    return replace(index, parts=tuple(part for part in stay if part.labels))


def write(bundle: Bundle, index: BankIndex, rows: Rows, progress: Progress) -> bool:
    """Put a bank into its place, or take it out where nothing is left of it; False where it has changed meanwhile."""
    identity = bank_id(index.templates, index.embedding_space)
    names = (index_name(identity), rows_name(identity))
    made = ", ".join(dict.fromkeys(f"{part.precision.value} text encoder on {part.backend}" for part in index.parts))
    try:
        if not index.parts:
            bundle.add_all([], without=names, unchanged=names, progress=progress)
            return True
        with tempfile.TemporaryDirectory(prefix="clipdeploy-") as scratch:
            about, arrays = Path(scratch) / "bank.json", Path(scratch) / "bank.npz"
            write_text(about, json.dumps(to_dict(index), indent=2, ensure_ascii=False) + "\n")
            np.savez(arrays, embeddings=rows)
            files = [NewFile(name, file, KIND, made) for name, file in zip(names, (about, arrays), strict=True)]
            bundle.add_all(files, unchanged=names, progress=progress)
    except OutputError:
        before, now = bundle.manifest, bundle.as_now().manifest
        same_model = (before.embedding_space, before.provenance) == (now.embedding_space, now.provenance)
        if same_model and any(before.files.get(name) != now.files.get(name) for name in names):
            return False
        raise
    return True


def _with(index: BankIndex, part: BankPart) -> BankIndex:
    """A bank with one part more; labels of one run stay one part."""
    if not part.labels:
        return index
    *others, last = index.parts or (replace(part, labels=()),)
    if replace(last, labels=()) != replace(part, labels=()):
        return replace(index, parts=(*index.parts, part))
    return replace(index, parts=(*others, replace(last, labels=last.labels + part.labels)))
