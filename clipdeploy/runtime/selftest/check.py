"""The self-test: a bundle's golden samples through an encoder, once for each machine, engine, driver and graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError
from clipdeploy.manifest import sha256_file
from clipdeploy.runtime.engines import graph_sha256
from clipdeploy.runtime.fingerprint import fingerprint
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.lengths import cut, free_length
from clipdeploy.runtime.remembered import Remembered
from clipdeploy.runtime.selftest.baked import hold_baked
from clipdeploy.runtime.selftest.gates import ENGINE_COSINE, Gates, tower_gates
from clipdeploy.runtime.selftest.golden import GOLDEN, GoldenSamples, has_samples, read_samples
from clipdeploy.runtime.selftest.golden_frames import answers_name as frame_answers_name
from clipdeploy.runtime.selftest.golden_frames import golden_frames, has_answers, read_answers
from clipdeploy.runtime.selftest.measure import drift, spread_kept, worst_index
from clipdeploy.runtime.selftest.recorded import Recorded, answers_name, inputs_sha256, read_recorded
from clipdeploy.runtime.session import Session
from clipdeploy.spec import FrameSpec, Precision, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.chosen import Chosen

KIND = "self-test 1"
_SAMPLES = 16
_SEVERAL, _MOST_AT_ONCE = 4, 32
_LONG_ENOUGH_S = 3.0
"""No further batch is begun after this; the two sizes of batch are always run."""


@dataclass(frozen=True)
class SelfTest:
    """What came of a self-test that was passed.

    Attributes:
        tested: whether there was something to test with.
        remembered: whether it was passed earlier, in the same circumstances.
        samples: how many were compared.
        cosine: the least to the checkpoint's own answers; None where nothing was tested.
    """

    tested: bool
    remembered: bool = False
    samples: int = 0
    cosine: float | None = None

    @property
    def told(self) -> str:
        """In words, for people."""
        if not self.tested:
            return "not self-tested: the bundle holds no golden samples"
        when = "earlier" if self.remembered else "now"
        return f"self-tested {when}: least cosine {self.cosine:.5f} on {self.samples} golden samples"


def self_test(chosen: Chosen, tower: Tower, session: Session, store: Remembered, *, usual_batch: int = 1) -> SelfTest:
    """Hold an encoder, as it is loaded, against what the checkpoint itself answered.

    Run once: what is passed is remembered with all it depends on, and not run again until that changes.

    Args:
        chosen: what runs the bundle.
        tower: which encoder `session` is.
        session: loaded, and checked against the manifest.
        store: what is remembered.
        usual_batch: rows that one run usually has, which is one of the sizes of batch to test.

    Raises:
        BackendError: the encoder's answers are not finite, of a wrong shape, or further from the checkpoint's than the
            gates of its precision allow; says which, by how much, and what to do.
        BundleCorruptError: the golden samples are not what was written.
    """
    if not has_samples(chosen.bundle):
        return SelfTest(tested=False)
    engine = None if chosen.engines is None else chosen.engines.chosen[tower].path
    key = _key(chosen, tower, session, usual_batch, engine)
    if chosen.bundle.manifest.baked is not None:
        return _once(store, key, lambda: _BakedTest(chosen, session), _several(session, usual_batch))

    def test() -> _Test:
        recorded = _recorded(chosen, tower)
        given = _samples(chosen.bundle, tower, read_samples(chosen.bundle))
        gates, own = tower_gates(chosen.graph(tower).precision, recorded), _engines_own(recorded, given.feeds)
        return _Test(chosen, tower, f"{tower.value} encoder", session, given, gates, own)

    return _once(store, key, test, _several(session, usual_batch))


def self_test_engine(
    chosen: Chosen, frame: FrameSpec, session: Session, engine: Path, store: Remembered, *, usual_batch: int = 1
) -> SelfTest:
    """Hold an engine that takes camera frames against what the float32 graph answered to the runtime's own pixels.

    The frames show the golden pictures; the answers were recorded when the frame graph was made. Nothing of this comes
    from what built the engine. An engine gives no pixels, so that a fault too small for the gates of its precision is
    not seen; those of the frame graph itself are held tighter, where it runs alone.

    Args:
        chosen: what runs the bundle.
        frame: that it takes.
        session: the engine, loaded.
        engine: its file, in the bundle.
        store: what is remembered.
        usual_batch: frames that one run usually has.

    Raises:
        BackendError: as `self_test`.
        BundleCorruptError: what was recorded is not what was written.
    """
    if not has_samples(chosen.bundle) or not has_answers(chosen.bundle, frame):
        return SelfTest(tested=False)
    key = _key(chosen, Tower.IMAGE, session, usual_batch, engine) | {
        "frames": chosen.bundle.manifest.files[frame_answers_name(frame)].sha256
    }

    def test() -> _Test:
        samples = read_samples(chosen.bundle)
        names = [picture.name for picture in samples.index.pictures]
        frames = golden_frames(samples.crops, frame, chosen.bundle.model.pixels)
        given = _Given(names, frames, read_answers(chosen.bundle, frame, frames))
        gates = tower_gates(chosen.graph(Tower.IMAGE).precision, _recorded(chosen, Tower.IMAGE))
        return _Test(chosen, Tower.IMAGE, f"engine of the image encoder for frames of {frame}", session, given, gates)

    return _once(store, key, test, _several(session, usual_batch))


def _once(store: Remembered, key: dict[str, object], test: Callable[[], _Test | _BakedTest], several: int) -> SelfTest:
    """The verdict as it is remembered, or made now."""
    known = store.get(KIND, key)
    if known is not None:
        return SelfTest(True, remembered=True, samples=int(known["samples"]), cosine=float(known["cosine"]))
    passed = test().run(several)
    store.put(KIND, key, {"samples": passed.samples, "cosine": passed.cosine})
    return passed


@dataclass(frozen=True, eq=False)
class _Given:
    """K samples: their names, what the encoder takes (K, ...), and what it should answer (K, D)."""

    names: list[str]
    feeds: NDArray[Any]
    expected: NDArray[np.float32]


class _BakedTest:
    """A baked engine and the golden samples of its bundle."""

    def __init__(self, chosen: Chosen, session: Session) -> None:
        self._chosen, self._session = chosen, session

    def run(self, several: int) -> SelfTest:
        """See `hold_baked`."""
        samples, cosine = hold_baked(self._chosen, self._session, several)
        return SelfTest(True, samples=samples, cosine=cosine)


class _Test:
    """One encoder, samples, and the limits it has to keep."""

    def __init__(
        self,
        chosen: Chosen,
        tower: Tower,
        what: str,
        session: Session,
        given: _Given,
        gates: Gates,
        own: NDArray[np.float32] | None = None,
    ) -> None:
        self._chosen, self._what, self._session = chosen, what, session
        self._names, self._feeds, self._expected = given.names, given.feeds, given.expected
        self._precision: Precision = chosen.graph(tower).precision
        self._free = free_length(session, chosen.bundle.model, tower)
        self._gates, self._engines_own = gates, own
        last = len(self._feeds) - 1
        self._picks = np.unique(np.linspace(0, last, min(last + 1, _SAMPLES)).round()).astype(np.intp)

    def run(self, several: int) -> SelfTest:
        """One sample alone, then all in batches; raises BackendError where they are not what they should be."""
        ends = time.monotonic() + _LONG_ENOUGH_S
        picks = self._picks
        rows, answers = [picks[:1]], [self._answers(picks[:1])]
        if several > 1:
            for start in range(0, len(picks), several):
                if len(rows) > 1 and time.monotonic() > ends:
                    break
                # The last batch is filled up with the first samples: an engine may compile for each size.
                batch = picks[np.arange(start, start + several) % len(picks)]
                rows.append(batch)
                answers.append(self._answers(batch))
        else:
            for pick in picks[1:, None]:
                if time.monotonic() > ends:
                    break
                rows.append(pick)
                answers.append(self._answers(pick))
        return self._judge(np.concatenate(rows), np.concatenate(answers))

    def _answers(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """These samples through the encoder in one batch: (len(rows), D) float32."""
        feeds = self._feeds[rows]
        if self._free is not None:
            feeds = cut(feeds, self._free.tokens)
        try:
            answers = self._session.run(feeds)
        except InputError as error:
            raise self._refused(f"takes no {feeds.dtype} of shape {feeds.shape}: {error.message}") from error
        expected = (len(rows), self._expected.shape[1])
        if answers.shape != expected or answers.dtype != np.float32:
            raise self._refused(f"gives {answers.dtype} {answers.shape}, expected float32 {expected}")
        broken = ~np.isfinite(answers).all(axis=1)
        if broken.any():
            name = self._names[int(rows[int(broken.argmax())])]
            raise self._refused(
                f"gives embeddings that are not finite for {broken.sum()} of {len(rows)} golden samples, such as {name}"
            )
        return answers

    def _judge(self, rows: NDArray[np.intp], answers: NDArray[np.float32]) -> SelfTest:
        gates, expected = self._gates, self._expected[rows]
        off = drift(answers, expected)
        least = [("cosine", off.cosine, gates.cosine)]
        if self._engines_own is not None:
            own = drift(answers, self._engines_own[rows])
            least.append(("cosine to ONNX Runtime with the same graph", own.cosine, ENGINE_COSINE[self._precision]))
        failing = ~(off.max_abs <= gates.max_abs) | ~(np.abs(off.norm - 1) <= gates.unit_norm)
        for _, values, gate in least:
            failing |= ~(values >= gate)
        samples = len(np.unique(rows))
        if failing.any():
            worst = worst_index(np.where(failing, 1 + off.max_abs, 0.0))
            numbers = [f"{what} {values[worst]:.5f} (at least {gate:g})" for what, values, gate in least]
            numbers.append(f"max abs {off.max_abs[worst]:.3g} (at most {gates.max_abs:g})")
            if abs(off.norm[worst] - 1) > gates.unit_norm:
                numbers.append(f"length {off.norm[worst]:.6f} (1 within {gates.unit_norm:g})")
            count = len(np.unique(rows[failing]))
            raise self._refused(
                f"drifts from the checkpoint on {count} of {samples} golden samples; worst is "
                f"{self._names[rows[worst]]}: {', '.join(numbers)}"
            )
        kept = spread_kept(answers, expected, gates.distinct)
        if kept is not None and not kept[0] >= gates.spread:
            first, second = (self._names[rows[index]] for index in kept[1:])
            raise self._refused(
                f"does not tell golden samples apart: {first} and {second} keep {kept[0]:.3g} of their distance "
                f"(at least {gates.spread:g})"
            )
        return SelfTest(True, samples=samples, cosine=float(off.cosine.min()))

    def _refused(self, what: str) -> BackendError:
        chosen = self._chosen
        command = f"clipdeploy verify {chosen.bundle.folder} --backend {chosen.backend.name}"
        return BackendError(
            f"the {self._what} in {self._precision.value} on {self._session.name} does not pass its self-test: "
            f"it {what}",
            fix=f"do not serve with it: load another backend or precision; {command} --precision "
            f"{chosen.precision.value} tells more, and self_test=False loads it all the same",
        )


def _recorded(chosen: Chosen, tower: Tower) -> Recorded | None:
    """What the bundle records of an encoder's graph, where clipdeploy quantised it."""
    return read_recorded(chosen.bundle, {tower: chosen.graph(tower)}).get(tower)


def _samples(bundle: Bundle, tower: Tower, samples: GoldenSamples) -> _Given:
    """The golden samples, with the checkpoint's own embeddings."""
    dtype = bundle.model.tower(tower).input.dtype
    if tower is Tower.IMAGE:
        names = [picture.name for picture in samples.index.pictures]
        feeds: NDArray[Any] = ImageProcessor(bundle.model.pixels, workers=1).normalize(samples.crops)
        return _Given(names, feeds.astype(dtype, copy=False), samples.image_embeds)
    names = [repr(note.text if len(note.text) <= 40 else note.text[:39] + "…") for note in samples.index.texts]
    return _Given(names, samples.input_ids.astype(dtype, copy=False), samples.text_embeds)


def _engines_own(recorded: Recorded | None, feeds: NDArray[Any]) -> NDArray[np.float32] | None:
    """What ONNX Runtime answered to these samples with the same graph, where the bundle recorded it."""
    if recorded is None or recorded.embeds.shape[0] != len(feeds) or recorded.inputs_sha256 != inputs_sha256(feeds):
        return None
    return recorded.embeds


def _several(session: Session, usual_batch: int) -> int:
    """Rows of a batch that is not one alone, as many as is usual if that is possible; 1 where the encoder takes one."""
    rows = usual_batch if usual_batch > 1 else _SEVERAL
    return min(rows, _MOST_AT_ONCE, session.largest_batch or rows)


def _key(chosen: Chosen, tower: Tower, session: Session, usual_batch: int, engine: Path | None) -> dict[str, object]:
    """Everything that the verdict depends on."""
    bundle, graph = chosen.bundle, chosen.graph(tower)
    files = bundle.manifest.files
    stored = graph.path == bundle.path(graph.name)
    return {
        "here": fingerprint([chosen.backend.name]),
        "backend": chosen.backend.name,
        "session": session.name,
        "precision": graph.precision.value,
        "graph": graph_sha256(bundle, graph.name) if stored else sha256_file(graph.path),
        "as_written": graph.as_written,
        "engine": None if engine is None else files[engine.relative_to(bundle.folder).as_posix()].sha256,
        "golden": [files[name].sha256 for name in (*GOLDEN, answers_name(graph.name)) if name in files],
        "usual_batch": usual_batch,
    }
