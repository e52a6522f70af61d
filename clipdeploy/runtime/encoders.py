"""The encoders of a bundle at work: opened at their first use, run by any number of threads, closed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.runtime.batches import check_batch_size
from clipdeploy.runtime.chosen import Chosen, open_encoder
from clipdeploy.runtime.framed import open_frames
from clipdeploy.runtime.lengths import FreeLength, free_length
from clipdeploy.runtime.remembered import this_machines
from clipdeploy.runtime.selftest import SelfTest, self_test
from clipdeploy.runtime.session import Embeddings, Session
from clipdeploy.spec import FrameSpec, Tower

T = TypeVar("T")
Encoder = Tower | FrameSpec
"""What is run: an encoder; or of camera frames, the image encoder with what makes its pixels in front."""


class Encoders:
    """Both encoders of a bundle. Safe to share between threads.

    Args:
        chosen: what runs them.
        threads: of one run; None leaves it to the engine.
        usual_batch: rows that one run usually has.
        self_test: hold each encoder against the bundle's golden samples before its first answer.

    Attributes:
        chosen: as given.
        frames: the camera frames that can be encoded.
        tests: of each encoder that was opened and tested, what came of it.
    """

    def __init__(
        self, chosen: Chosen, *, threads: int | None = None, usual_batch: int = 1, self_test: bool = True
    ) -> None:
        self.chosen = chosen
        self._threads, self._usual_batch, self._self_test = threads, usual_batch, self_test
        self.frames = chosen.frames
        self.tests: dict[Tower, SelfTest] = {}
        self._sessions: dict[Encoder, Session] = {}
        # frames before towers: what stands in front is closed first
        self._opening: dict[Encoder, Lock] = {encoder: Lock() for encoder in (*self.frames, *Tower)}
        self._idle = Condition()
        self._running = 0
        self._closed = False

    def session(self, encoder: Encoder) -> Session:
        """The engine of one encoder, loaded at the first call.

        Raises:
            InputError: frames that the bundle holds no graph for.
            BackendError: closed, the engine cannot load it, or it does not pass its self-test.
            BundleCorruptError: it is not what the manifest describes.
        """
        session = self._sessions.get(encoder)
        if session is not None:
            return session
        if isinstance(encoder, FrameSpec):
            self.chosen.check_frame(encoder)
        with self._opening[encoder]:
            self.check_open()
            if encoder not in self._sessions:
                self._sessions[encoder] = self._open(encoder)
            return self._sessions[encoder]

    def run(self, encoder: Encoder, batch: NDArray[Any], batch_size: int) -> Embeddings:
        """Any number of rows through an encoder: (N, ...) -> (N, D) float32.

        Args:
            encoder: which one.
            batch: (N, ...) as the encoder takes it; N may be zero.
            batch_size: rows at a time; fewer where the engine takes no more.

        Raises:
            InputError: `batch` is not what the encoder takes.
            BackendError: closed, the engine failed, or it gave something that is not a number.
        """
        check_batch_size(batch_size)
        model = self.chosen.bundle.model
        embeds = self.run_with(
            encoder, lambda session: _run(session, batch, batch_size, free_length(session, model, encoder))
        )
        self._check_finite(embeds, encoder)
        return embeds

    def run_with(self, encoder: Encoder, call: Callable[[Session], T]) -> T:
        """Have `call` run an encoder, which is not closed meanwhile."""
        with self._in_use():
            return call(self.session(encoder))

    def close(self) -> None:
        """Give the engines' memory back, once those that run have finished; nothing runs afterwards."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._running)
        for encoder, opening in self._opening.items():
            with opening:
                session = self._sessions.pop(encoder, None)
                if session is not None:
                    session.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """While this lasts, nothing is closed."""
        with self._idle:
            self.check_open()
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                if not self._running:
                    self._idle.notify_all()

    def check_open(self) -> None:
        """Raise BackendError where the encoders were closed."""
        if self._closed:
            raise BackendError(f"the Clip of {self.chosen.bundle.folder} is closed", fix="load the bundle again")

    def _open(self, encoder: Encoder) -> Session:
        if isinstance(encoder, FrameSpec):
            return self._open_frames(encoder)
        tower = encoder
        session = open_encoder(self.chosen, tower, threads=self._threads, usual_batch=self._usual_batch)
        if self._self_test:
            try:
                self.tests[tower] = self_test(
                    self.chosen, tower, session, this_machines(), usual_batch=self._usual_batch
                )
            except BaseException:
                session.close()
                raise
        return session

    def _open_frames(self, frame: FrameSpec) -> Session:
        return open_frames(
            self.chosen,
            frame,
            lambda: self.session(Tower.IMAGE),
            threads=self._threads,
            usual_batch=self._usual_batch,
            self_test=self._self_test,
        )

    def _check_finite(self, embeds: Embeddings, encoder: Encoder) -> None:
        """Raise BackendError where an engine gave something that is not a number."""
        if np.isfinite(embeds).all():
            return
        bad = np.flatnonzero(~np.isfinite(embeds).all(axis=1))
        tower = Tower.IMAGE if isinstance(encoder, FrameSpec) else encoder
        precision = self.chosen.graph(tower).precision.value
        raise BackendError(
            f"{self.chosen.backend.name} gave embeddings that are not finite ({precision}), rows {bad[:8]}",
            fix="check that the input is finite; use a higher precision, and run: clipdeploy verify",
        )


def _run(session: Session, batch: NDArray[Any], size: int, free: FreeLength | None) -> Embeddings:
    """Rows through a session, `size` or as many as it takes at a time, into one array."""
    size = min(size, session.largest_batch or size)
    if not isinstance(batch, np.ndarray) or batch.ndim != len(session.input.shape):
        return session.run(batch)  # raises
    if free is not None and len(batch):
        return free.run(session, batch, size)
    if 0 < len(batch) <= size:
        return session.run(batch)
    columns = [int(axis) for axis in session.output.shape[1:]]
    embeds = np.empty((len(batch), *columns), dtype=np.float32)
    for start in range(0, len(batch), size):
        embeds[start : start + size] = session.run(batch[start : start + size])
    return embeds
