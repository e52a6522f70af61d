"""What can only be seen of a graph by running it: on a few pictures and texts, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import CheckpointError
from clipdeploy.findings import Finding
from clipdeploy.spec import TokenSpec, Tower

Run: TypeAlias = "Callable[[NDArray[Any]], NDArray[np.float32]]"
"""A batch of pixels or ids -> what the graph gives for it, (N, D), as it gives it."""

UNIT = 1e-5
"""How far from 1 the norm of an embedding may lie that counts as normalised, as the fp32 gate of `verify`."""

SAME = 1e-4
"""Largest difference of two embeddings of length 1 that count as equal, as the fp32 gate of `verify`."""

_NOISES = 4  # how many times its noise an embedding may change before it has changed


def embeddings(run: Run, batch: NDArray[Any], tower: Tower, label: str) -> NDArray[np.float32]:
    """What the graph gives; raises CheckpointError unless it is (N, D) and finite."""
    found = run(batch)
    if found.ndim != 2 or len(found) != len(batch):
        raise CheckpointError(
            f"{label} gives {found.shape} for {len(batch)} samples, expected ({len(batch)}, D)",
            fix=f"name the output that is the embedding: --{tower.value}-output NAME",
        )
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        half = " (it computes in fp16, whose largest number is 65504)" if found.dtype == np.float16 else ""
        raise CheckpointError(
            f"{label} gives NaN or infinity for {bad} of {len(found)} samples{half}",
            fix="import the fp32 graphs, or export them again",
        )
    return found.astype(np.float32)


def norms(found: NDArray[np.float32], label: str, *, exact: bool) -> tuple[bool, Finding]:
    """Whether embeddings are of length 1, and what to say of it.

    Args:
        exact: whether the graph gives float32; a norm computed in less is computed again.
    """
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    spread = f"{lengths.min():.4g}" + (f" to {lengths.max():.4g}" if np.ptp(lengths) > 1e-3 * lengths.max() else "")
    if exact and np.abs(lengths - 1).max() <= UNIT:
        return True, Finding("length", "good", f"{label}: embeddings have length 1")
    message = f"{label}: embeddings have length {spread}, not 1; the import divides them by it, inside the graph"
    return False, Finding("length", "note", message)


def apart(found: NDArray[np.float32], label: str, what: str) -> Finding:
    """Whether different samples get different embeddings."""
    unit = unit_length(found)
    close = float(min(unit[i] @ unit[j] for i in range(len(unit)) for j in range(i)))
    if close >= 1 - 1e-6:
        message = f"{label}: different {what} get the same embedding (smallest cosine {close:.7f})"
        fix = "the graph ignores its input or reads the wrong position: export it again"
        return Finding("distinct", "bad", message, fix)
    return Finding("distinct", "good", f"{label}: different {what} differ (smallest cosine {close:.3f})")


def alone(run: Run, batch: NDArray[Any], found: NDArray[np.float32], label: str) -> tuple[float, Finding]:
    """How far a sample's embedding alone lies from that in a batch, and what to say of it."""
    single = np.concatenate([run(batch[i : i + 1]) for i in range(len(batch))]).astype(np.float32)
    worst = float(np.abs(unit_length(single) - unit_length(found)).max())
    if worst <= SAME:
        return worst, Finding("batch", "good", f"{label}: a sample is the same alone and among others ({worst:.1e})")
    message = f"{label}: a sample's embedding changes with what shares its batch, by up to {worst:.1e}"
    fix = "import the fp32 graphs: quantising at run time measures the whole batch at once, or the batch was frozen"
    return worst, Finding("batch", "bad", message, fix)


def behind_end(
    run: Run, texts: NDArray[np.int64], spec: TokenSpec, label: str, *, causal: bool | None, noise: float
) -> Finding | None:
    """Whether what stands behind the end token changes an embedding, which a causal mask forbids.

    Args:
        texts: (N, L) ids, each with padding behind its end token.
        causal: whether the text tower has such a mask; None where nothing says so.
        noise: by how much its embeddings change with nothing but the batch, as quantising at run time makes them.

    Returns:
        None where the tower has no causal mask and need not be looked at.
    """
    if causal is False:
        return None
    changed, rng = texts.copy(), np.random.default_rng(0)
    special = {spec.start_id, spec.end_id, spec.pad_id}
    # Where the embedding is read at the largest id, no other may be larger than the end token's.
    limit = spec.end_id if spec.pooling == "eot_argmax" else spec.vocab_size
    words = np.asarray([i for i in range(limit) if i not in special])
    for row, line in zip(changed, texts, strict=True):
        end = int(np.flatnonzero(line == spec.end_id)[0])
        row[end + 1 :] = rng.choice(words, len(row) - end - 1)
    worst = float(np.abs(unit_length(run(changed)) - unit_length(run(texts))).max())
    if worst <= max(SAME, _NOISES * noise):
        return Finding(
            "causal mask", "good", f"{label}: what stands behind the end token changes nothing ({worst:.1e})"
        )
    known = "the checkpoint has a causal mask" if causal else "nothing says that the checkpoint has no causal mask"
    message = (
        f"{label}: ids behind the end token change the embedding by up to {worst:.1e}, while {known}: the mask was "
        "lost on export, or the embedding is read from the wrong position"
    )
    fix = "export the text tower again with its mask"
    fix += "" if causal else "; say --no-causal-mask if it was trained without one"
    return Finding("causal mask", "bad", message, fix)


def unit_length(found: NDArray[Any]) -> NDArray[np.float32]:
    """(N, D) with rows of length 1, computed in float64."""
    wide = found.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), np.float32)
