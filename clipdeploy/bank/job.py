"""The stage: labels to rows in a bundle's bank, and out of it again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bank.files import as_now, merge, without, write
from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError, TextError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, fill_templates, resolve_templates
from clipdeploy.runtime.stored_banks import BankIndex, BankInfo, BankPart, bank_id, bank_ids, banks_of
from clipdeploy.runtime.text_bank import check_lengths, embed_labels
from clipdeploy.spec import Target, Tower

SAVE_EVERY_S = 30.0
"""What an interruption loses at most, besides the labels at work."""
_BATCH_SIZE = 32
_LABELS_AT_ONCE = 32
_NAMED = 5


@dataclass(frozen=True)
class BankRequest:
    """Which labels to embed, and with what.

    Attributes:
        bundle: the bundle's folder.
        labels: at least one, each once.
        templates: sentences with `{}` for the label, or the name of a set; empty takes the default.
        precision: of the text encoder.
        backend: which engine runs it.
        target: whose, of 8-bit graphs; None takes those made for the engine.
    """

    bundle: Path
    labels: tuple[str, ...]
    templates: tuple[str, ...] = ()
    precision: str = "fp32"
    backend: str = "auto"
    target: Target | None = None


@dataclass(frozen=True)
class BankOutcome:
    """What became of a bank.

    Attributes:
        bank: its id.
        added: labels that were embedded now.
        present: labels that were asked for and were there already.
        count: labels that the bank holds now.
        precision: of the text encoder that ran, and
        backend: its engine; None where nothing had to be embedded.
    """

    bundle: Path
    bank: str
    templates: tuple[str, ...]
    added: tuple[str, ...]
    present: tuple[str, ...]
    count: int
    precision: str | None
    backend: str | None
    seconds: float


@dataclass(frozen=True)
class BankRemoved:
    """Labels that left a bank, and how many it still holds; without any it is gone."""

    bundle: Path
    bank: str
    templates: tuple[str, ...]
    removed: tuple[str, ...]
    count: int


def bank_labels(request: BankRequest, *, progress: Progress = silent) -> BankOutcome:
    """Embed those labels that the bank of these templates does not hold, and add them to it.

    All are checked before the first is embedded. Run again after an interruption, it goes on where it was. Several
    processes may add at once, and each finds its labels there afterwards.

    Raises:
        TextError: a label or template is empty, given twice, or too long for the model.
        InputError: the bundle has no text encoder.
        BundleError, BackendError, MissingExtraError: the bundle or the engine cannot be used.
        OutputError: the bundle cannot be written to.
    """
    started = time.perf_counter()
    labels, templates = check_labels(request.labels), all_templates(request.templates)
    bundle = Bundle.open(request.bundle)
    bundle.check_unbaked("bank labels in")
    held = set(as_now(bundle, templates)[1].labels)
    new = tuple(label for label in labels if label not in held)
    part, count = None, len(held)
    if new:
        for part, rows in _embedded(bundle, request, new, templates, progress):
            count = merge(bundle, templates, part, rows, progress)
    return BankOutcome(
        bundle=request.bundle,
        bank=bank_id(templates, bundle.manifest.embedding_space),
        templates=templates,
        added=new,
        present=tuple(label for label in labels if label in held),
        count=count,
        precision=part.precision.value if part else None,
        backend=part.backend if part else None,
        seconds=time.perf_counter() - started,
    )


def remove_labels(
    folder: Path, labels: Sequence[str] | None, templates: Sequence[str] = (), *, progress: Progress = silent
) -> BankRemoved:
    """Take labels out of the bank of these templates, all of them where `labels` is None.

    Raises:
        TextError: the bank does not hold a label.
        InputError: there is no such bank.
        OutputError: the bundle cannot be written to.
    """
    bundle, sentences = Bundle.open(folder), all_templates(templates)
    while True:
        bundle, index, rows = as_now(bundle, sentences)
        if not index.parts:
            have = ", ".join(bank_ids(bundle)) or "none"
            raise InputError(
                f"bundle {folder} has no bank of these templates; it has {have}",
                fix=f"see what there is: clipdeploy bank {folder} --list",
            )
        leaving = index.labels if labels is None else check_labels(labels)
        _check_held(folder, leaving, index)
        gone = set(leaving)
        stay = [row for row, label in enumerate(index.labels) if label not in gone]
        if write(bundle, without(index, gone), rows[stay], progress):
            identity = bank_id(sentences, bundle.manifest.embedding_space)
            return BankRemoved(folder, identity, sentences, tuple(leaving), len(stay))


def list_banks(folder: Path) -> tuple[BankInfo, ...]:
    """The banks of a bundle; raises BundleError where it or one of them cannot be used."""
    return banks_of(Bundle.open(folder, check_hashes=False))


def all_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The sentences that `given` means, each a sentence or the name of a set; the default where there are none."""
    return tuple(one for template in given or (DEFAULT_TEMPLATE,) for one in resolve_templates(template))


def _embedded(
    bundle: Bundle, request: BankRequest, labels: tuple[str, ...], templates: tuple[str, ...], progress: Progress
) -> Iterator[tuple[BankPart, NDArray[np.float32]]]:
    """The rows of labels and what made them, every half minute those that are done."""
    from clipdeploy.runtime.clip import load

    if not bundle.precisions(Tower.TEXT):
        raise InputError(
            f"bundle {bundle.folder} has no text encoder, which embeds labels",
            fix="bank them in the bundle that this one was packed from, then pack it again: clipdeploy pack",
        )
    total, done = len(labels) * len(templates), 0
    texts_only = _without_images(bundle)
    with load(texts_only, precision=request.precision, backend=request.backend, target=request.target) as clip:

        def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            nonlocal done
            rows = []
            for first in range(0, len(texts), _BATCH_SIZE):
                rows.append(clip.encode_text(texts[first : first + _BATCH_SIZE]))
                done += len(rows[-1])
                progress("embedding texts", done, total)
            return np.concatenate(rows)

        check_lengths(fill_templates(labels, templates), lambda: clip.tokenizer, bundle.model.tokens.context_length)
        graph = clip.graph(Tower.TEXT)
        maker = BankPart(
            precision=graph.precision,
            backend=clip.backend.name,
            graph_sha256=bundle.manifest.files[graph.name].sha256,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            labels=(),
        )
        progress("embedding texts", 0, total)
        ready, from_row, saved = list[NDArray[np.float32]](), 0, time.perf_counter()
        for first in range(0, len(labels), _LABELS_AT_ONCE):
            ready.append(embed_labels(labels[first : first + _LABELS_AT_ONCE], templates, encode))
            till = min(first + _LABELS_AT_ONCE, len(labels))
            if till == len(labels) or time.perf_counter() - saved >= SAVE_EVERY_S:
                yield replace(maker, labels=labels[from_row:till]), np.concatenate(ready)
                ready, from_row, saved = [], till, time.perf_counter()


def _without_images(bundle: Bundle) -> Bundle:
    """The bundle as if it had no image encoder, so that what is asked for is asked of the text encoder."""
    files = bundle.manifest.files
    stay = {name: entry for name, entry in files.items() if (entry.kind, entry.tower) != ("graph", Tower.IMAGE)}
    return Bundle(bundle.folder, replace(bundle.manifest, files=stay))


def _check_held(folder: Path, labels: Sequence[str], index: BankIndex) -> None:
    held = set(index.labels)
    strange = [label for label in labels if label not in held]
    if strange:
        named = ", ".join(f"{label!r:.60}" for label in strange[:_NAMED]) + (", ..." if len(strange) > _NAMED else "")
        raise TextError(
            f"the bank of these templates in {folder} does not hold {named}",
            fix=f"see what it holds: clipdeploy bank {folder} --list --json",
        )
