"""The choice: candidates opened, tested with the golden samples, timed; the fastest that answers rightly."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, ClipdeployError, InputError, OutputError
from clipdeploy.locks import locked_if_free
from clipdeploy.machine import free_memory_bytes, this_machine
from clipdeploy.runtime.auto.candidates import Asked, Field, Pair, find_candidates, label, why
from clipdeploy.runtime.auto.timing import interleaved
from clipdeploy.runtime.backends import AUTO, check_threads, check_usual_batch, choose_backend
from clipdeploy.runtime.choose import StandIns
from clipdeploy.runtime.chosen import Chosen, open_encoder
from clipdeploy.runtime.fingerprint import fingerprint, possible_backends
from clipdeploy.runtime.remembered import Remembered, this_machines
from clipdeploy.runtime.selftest import self_test
from clipdeploy.runtime.selftest.golden import has_samples
from clipdeploy.runtime.session import Session
from clipdeploy.spec import LENGTH_AXIS, Precision, Target, Tower

KIND = "auto 2"
_LOCK = "auto.lock"
_WAIT_S, _POLL_S = 120.0, 0.1
"""How long to wait for another process that measures: two at once would measure each other."""
_MEMORY_PER_BYTE = 3
"""Of a graph's file, at most, that an engine takes while it is loaded."""
_USUAL_TOKENS = 16
"""Of a text such as "a photo of a dog", rounded up."""


def choose(
    bundle: Bundle,
    *,
    precision: Precision | None,
    backend: str,
    target: Target | None = None,
    stand_ins: StandIns | None = None,
    threads: int | None = None,
    usual_batch: int = 1,
    store: Remembered | None = None,
) -> Chosen:
    """What runs a bundle on this machine.

    Where backend and precision are named, these. Where one of them is `auto`: every pair that the machine and the
    bundle allow is loaded, held against the golden samples, and timed on the image encoder; the fastest that passes
    is taken. That is done once: the choice is remembered, with all that it depends on. Of a single pair nothing is
    measured.

    Args:
        bundle: opened.
        precision: None for `auto`.
        backend: a name, or `auto`.
        target: whose 8-bit graphs to take; None takes those made for the engine.
        stand_ins: graphs to load in place of the bundle's.
        threads: of one run; None leaves it to the engine.
        usual_batch: rows that one run usually has; what is timed.
        store: what is remembered; None takes this machine's.

    Raises:
        InputError, MissingExtraError, BackendError, EngineError: nothing runs it; says of each why not.
    """
    check_threads(threads)
    check_usual_batch(usual_batch)
    asked = Asked(precision, backend, target, stand_ins)
    if precision is not None and backend != AUTO:
        named = choose_backend(backend)
        return asked.settle(bundle, (named.name, precision), named.reason)
    store = store or this_machines()
    key = _key(bundle, asked, threads, usual_batch)
    known = _remembered(bundle, asked, store, key)
    if known is not None:
        return known
    found = find_candidates(bundle, asked)
    if not found.running:
        raise _nothing_runs(bundle, asked, found)
    if len(found.running) == 1:
        (pair,) = found.running
        return asked.settle(bundle, pair, f"chosen by auto: {_only(found)}")
    with _alone(store):
        known = _remembered(bundle, asked, store, key)  # another process may have measured meanwhile
        if known is not None:
            return known
        return _measure(bundle, asked, found, _Workbench(threads, usual_batch, store), key)


@dataclass(frozen=True)
class _Workbench:
    """How candidates are opened, tested and timed."""

    threads: int | None
    usual_batch: int
    store: Remembered

    def open(self, chosen: Chosen, tower: Tower) -> Session:
        """An encoder, tested; raises what keeps it from serving."""
        session = open_encoder(chosen, tower, threads=self.threads, usual_batch=self.usual_batch)
        try:
            self_test(chosen, tower, session, self.store, usual_batch=self.usual_batch)
        except BaseException:
            session.close()
            raise
        return session

    def run(self, session: Session, chosen: Chosen) -> Callable[[], object]:
        """A usual batch through an encoder, or as often as it takes."""
        batch = _some(session, self.usual_batch, min(_USUAL_TOKENS, chosen.bundle.model.tokens.context_length))
        size = min(len(batch), session.largest_batch or len(batch))

        def run() -> None:
            for start in range(0, len(batch), size):
                session.run(batch[start : start + size])

        return run


def _measure(bundle: Bundle, asked: Asked, found: Field, bench: _Workbench, key: dict[str, object]) -> Chosen:
    """Time the candidates, take the fastest whose encoders all pass, and remember it."""
    count = len(found.running)
    times: dict[Pair, float] = {}
    for pairs in _groups(found):
        times.update(_timed(pairs, found, bench))
    for pair in sorted(times, key=lambda pair: (bool(found.running[pair].unbuilt), times[pair])):
        try:
            _test_others(found.running[pair], bench)
        except ClipdeployError as error:
            found.out[pair] = error
            continue
        numbers = [f"{label(other)} {ms:.1f} ms" for other, ms in _from_fastest(times, pair) if other not in found.out]
        out = [f"{label(other)}: {why(error)}" for other, error in found.out.items()]
        untested = [] if has_samples(bundle) else ["not tested: the bundle holds no golden samples"]
        told = "; ".join([*numbers, *out, *untested])
        bench.store.put(KIND, key, {"backend": pair[0], "precision": pair[1].value, "count": count, "told": told})
        return asked.settle(bundle, pair, _reason(count, bench.usual_batch, told, earlier=False))
    raise _nothing_runs(bundle, asked, found)


def _timed(pairs: Sequence[Pair], found: Field, bench: _Workbench) -> dict[Pair, float]:
    """The times of candidates that are open together, in ms; what fails goes out of the running."""
    sessions: dict[Pair, Session] = {}
    try:
        for pair in pairs:
            if (only := _only_frames(found.running[pair])) is not None:
                found.out[pair] = only
                continue
            try:
                sessions[pair] = bench.open(found.running[pair], _timed_tower(found.running[pair]))
            except ClipdeployError as error:
                found.out[pair] = error
        while sessions:
            runs = {pair: _named(pair, bench.run(session, found.running[pair])) for pair, session in sessions.items()}
            try:
                return interleaved(runs)
            except _Failed as failed:
                found.out[failed.pair] = failed.error
                sessions.pop(failed.pair).close()
        return {}
    finally:
        for session in sessions.values():
            session.close()


class _Failed(Exception):
    """A candidate that fails while it is timed."""

    def __init__(self, pair: Pair, error: ClipdeployError) -> None:
        super().__init__(pair, error)
        self.pair, self.error = pair, error


def _named(pair: Pair, run: Callable[[], object]) -> Callable[[], object]:
    def named() -> None:
        try:
            run()
        except ClipdeployError as error:
            raise _Failed(pair, error) from error

    return named


def _test_others(chosen: Chosen, bench: _Workbench) -> None:
    """Open and test the encoders that were not timed; one that nothing was built for is told elsewhere."""
    for tower in chosen.graphs:
        if tower is not _timed_tower(chosen) and tower not in chosen.unbuilt:
            bench.open(chosen, tower).close()


def _timed_tower(chosen: Chosen) -> Tower:
    """The image encoder; another where there is none to run."""
    able = [tower for tower in Tower if tower in chosen.graphs and tower not in chosen.unbuilt]
    return able[0] if able else Tower.IMAGE


def _only_frames(chosen: Chosen) -> BackendError | None:
    """What to tell where the only engines of the image encoder take camera frames: they cannot be timed beside others
    that are given pixels."""
    if not chosen.frames or Tower.IMAGE not in chosen.unbuilt:
        return None
    name, frames = chosen.backend.name, ", ".join(map(str, chosen.frames))
    return BackendError(
        f'its engines take frames of {frames} only, which auto does not time: pass backend="{name}"',
        fix=f'pass backend="{name}" for encode_frames; or build one for pictures: {chosen.unbuilt[Tower.IMAGE]}',
    )


def _some(session: Session, rows: int, tokens: int) -> NDArray[Any]:
    """Rows of what an encoder takes: noise for pixels, ones for token ids; how long it takes does not depend on it.
    Where the length of texts is free, they have as many `tokens`."""
    shape = (rows, *(tokens if size == LENGTH_AXIS else int(size) for size in session.input.shape[1:]))
    dtype = np.dtype(session.input.dtype)
    if dtype.kind != "f":
        return np.ones(shape, dtype)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


def _groups(found: Field) -> list[list[Pair]]:
    """All candidates together where memory suffices for all, else each alone."""
    sizes = (_size(chosen) for chosen in found.running.values())
    free = free_memory_bytes()
    if free is None or _MEMORY_PER_BYTE * sum(sizes) <= free / 2:
        return [list(found.running)]
    return [[pair] for pair in found.running]


def _size(chosen: Chosen) -> int:
    """Bytes of what is loaded for the encoder that is timed."""
    files, tower = chosen.bundle.manifest.files, _timed_tower(chosen)
    if chosen.engines is not None:
        return chosen.engines.chosen[tower].size_bytes if tower in chosen.engines.chosen else 0
    name = chosen.graphs[tower].name
    return sum(files[file].size_bytes for file in (name, f"{name}.data") if file in files)


def _key(bundle: Bundle, asked: Asked, threads: int | None, usual_batch: int) -> dict[str, object]:
    """Everything that the choice depends on."""
    kinds = ("graph", "weights", "engine", "golden")
    held = sorted((name, entry.sha256) for name, entry in bundle.manifest.files.items() if entry.kind in kinds)
    names = possible_backends() if asked.backend == AUTO else (choose_backend(asked.backend).name,)
    return {
        "here": fingerprint(names),
        "cpus": this_machine().cpus,
        "backends": list(names),
        "bundle": hashlib.sha256(repr(held).encode()).hexdigest(),
        "precision": asked.precision.value if asked.precision else AUTO,
        "backend": asked.backend,
        "target": asked.target,
        "threads": threads,
        "usual_batch": usual_batch,
    }


def _remembered(bundle: Bundle, asked: Asked, store: Remembered, key: dict[str, object]) -> Chosen | None:
    """The earlier choice, where it still can be loaded."""
    known = None if asked.stand_ins is not None and asked.stand_ins.graphs else store.get(KIND, key)
    if known is None:
        return None
    try:
        pair = (choose_backend(known["backend"]).name, Precision(known["precision"]))
        reason = _reason(known["count"], int(str(key["usual_batch"])), known["told"], earlier=True)
        return asked.settle(bundle, pair, reason)
    except (ClipdeployError, KeyError, TypeError, ValueError):
        store.forget(KIND, key)
        return None


@contextlib.contextmanager
def _alone(store: Remembered) -> Iterator[None]:
    """While this lasts, no other process of this user measures; where that cannot be had, it is done without."""
    ends = time.monotonic() + _WAIT_S
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, OutputError):
            store.path.parent.mkdir(parents=True, exist_ok=True)
            while not stack.enter_context(locked_if_free(store.path.with_name(_LOCK))) and time.monotonic() < ends:
                time.sleep(_POLL_S)
        yield


def _reason(count: int, usual_batch: int, told: str, *, earlier: bool) -> str:
    when = "measured earlier on this machine" if earlier else "measured on this machine"
    return f"chosen by auto of {count}, {when} at batch {usual_batch}: {told}"


def _from_fastest(times: dict[Pair, float], chosen: Pair) -> list[tuple[Pair, float]]:
    """The chosen one first, then the others from the fastest on."""
    return sorted(times.items(), key=lambda item: (item[0] != chosen, item[1]))


def _only(found: Field) -> str:
    """Why there was nothing to choose from."""
    (pair,) = found.running
    out = "".join(f"; {label(other)}: {why(error)}" for other, error in found.out.items())
    return f"{label(pair)}, nothing else that is installed runs it here{out}"


def _nothing_runs(bundle: Bundle, asked: Asked, found: Field) -> ClipdeployError:
    """The error where no candidate is left: the only one's own, or that of all."""
    errors = list(found.out.values())
    if not errors:
        return InputError(
            f"bundle {bundle.folder} holds no graph that {asked.backend} runs",
            fix=f"see what it holds: clipdeploy inspect {bundle.folder}",
        )
    if len({error.message for error in errors}) == 1:
        return errors[0]
    lines = [f"  {label(pair)}: {error.message}" for pair, error in found.out.items()]
    kind = InputError if all(isinstance(error, InputError) for error in errors) else BackendError
    return kind("\n".join([f"nothing on this machine runs bundle {bundle.folder}:", *lines]), fix=errors[0].fix)
