"""A baked bundle at work: camera frames or pictures in, labels out, by one graph or engine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.arrays import is_on_gpu
from clipdeploy.runtime.auto import choose
from clipdeploy.runtime.backends import BackendChoice, check_threads, check_usual_batch
from clipdeploy.runtime.batches import BATCH_SIZE, check_batch_size
from clipdeploy.runtime.choose import check_target, parse_precision
from clipdeploy.runtime.chosen import Chosen
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.framed import batch_of
from clipdeploy.runtime.hashed import CheckHashes, open_bundle
from clipdeploy.runtime.image import ImageLike, is_single
from clipdeploy.runtime.pictures import Frames, Pictures
from clipdeploy.runtime.scores import Classification, probabilities, rank
from clipdeploy.runtime.session import Embeddings
from clipdeploy.spec import BakedSpec, FrameSpec, ModelSpec, Precision, Target, Tower

_AT_ONCE_BYTES = 32_000_000
"""Of raw frames in one run: a graph holds them as floats for a while, four times as large."""

Logits = NDArray[np.float32]


def load_baked(
    bundle: str | Path | Bundle,
    *,
    precision: str | Precision = Precision.FP32,
    backend: str = "auto",
    target: Target | None = None,
    threads: int | None = None,
    usual_batch: int = 1,
    check_hashes: CheckHashes = True,
    self_test: bool = True,
) -> Baked:
    """Open a bundle that `clipdeploy bake` wrote. Its graph or engine is loaded at its first use.

    Args:
        bundle: its folder.
        precision: number format of the encoder; `auto` takes the fastest that passes the self-test.
        backend: as for `clipdeploy.load`, `auto` included.
        target: whose 8-bit graphs to take; None takes those made for the engine.
        threads: for one run, and for opening pictures; None takes what the machine has.
        usual_batch: frames that one run usually has: what `auto` measures with, and what engines prepare for.
        check_hashes: compare the sha256 of every file in the bundle; those that this machine has read before, and that
            were not touched since, are not read again. `"again"` reads all, False compares sizes only.
        self_test: hold what is loaded against the bundle's golden samples, once for each machine, engine and graph.

    Raises:
        BundleError: the bundle cannot be opened.
        InputError: it is no baked one, lacks the precision, or an argument is wrong.
        MissingExtraError, BackendError: the engine is not installed, does not load, or has no device to run on; or
            nothing passes the self-test.
        EngineError: there is no built engine that fits this machine.
    """
    check_threads(threads)
    check_usual_batch(usual_batch)
    check_target(target)
    wanted = parse_precision(precision)
    opened = open_bundle(bundle, check_hashes)
    if opened.manifest.baked is None:
        raise InputError(
            f"bundle {opened.folder} is not baked: it holds encoders, and no labels in its graph",
            fix=f"load it with clipdeploy.load; or bake it: clipdeploy bake {opened.folder} --labels-file FILE -o OUT",
        )
    chosen = choose(opened, precision=wanted, backend=backend, target=target, threads=threads, usual_batch=usual_batch)
    return Baked(chosen, opened.manifest.baked, threads=threads, usual_batch=usual_batch, self_test=self_test)


class Baked:
    """An opened baked bundle; made by `load_baked`. Safe to share between threads.

    Attributes:
        chosen: what runs: the engine, and which graph.
        bundle: the opened bundle.
        baked: what it takes and answers.
        spec: the model that it was made of.
    """

    def __init__(
        self,
        chosen: Chosen,
        baked: BakedSpec,
        *,
        threads: int | None = None,
        usual_batch: int = 1,
        self_test: bool = True,
    ) -> None:
        self.chosen, self.bundle, self.baked = chosen, chosen.bundle, baked
        self.spec: ModelSpec = chosen.bundle.model
        self._encoders = Encoders(chosen, threads=threads, usual_batch=usual_batch, self_test=self_test)
        self._pictures = Pictures(chosen.bundle, self._encoders, workers=threads)
        self._columns = int(self.spec.image.output.shape[1])

    @property
    def labels(self) -> tuple[str, ...]:
        """K distinct texts, in the order of the logits; none where the graph gives embeddings."""
        return self.baked.labels

    @property
    def templates(self) -> tuple[str, ...]:
        """That the labels were put into."""
        return self.baked.templates

    @property
    def frame(self) -> FrameSpec | None:
        """The camera frames that it takes; None where it takes pictures of any size."""
        return self.baked.frame

    @property
    def backend(self) -> BackendChoice:
        """What runs it, and why."""
        return self.chosen.backend

    @property
    def precision(self) -> Precision:
        """The number format of the encoder in it."""
        return self.chosen.precision

    def logits(
        self,
        frames: Frames | ImageLike | Iterable[ImageLike],
        *,
        color: str | None = None,
        batch_size: int | None = None,
    ) -> Logits:
        """How well each label fits, `logit_scale * cosine + logit_bias`: (N, K) float32, (1, K) for one frame.

        Args:
            frames: of a bundle with frames in its graph, one or many of exactly that size, as for `Clip.encode_frames`;
                of another, pictures as for `Clip.encode_image`. Frames may lie on the GPU that a TensorRT backend runs
                on.
            color: of frames, which must be the graph's own order: None takes it so. Of pictures that are arrays, `rgb`
                (also for None) or `bgr`.
            batch_size: frames in one run; None takes what is quick and takes little memory.

        Raises:
            InputError: the graph takes other frames, gives embeddings, or an argument is wrong.
            ImageError: a picture cannot be read, or these are no frames.
            BackendError: closed, the engine failed, or it does not pass its self-test.
        """
        if not self.labels:
            raise InputError(
                f"bundle {self.bundle.folder} was baked without labels: its graph gives embeddings",
                fix="use embed, or bake it with labels",
            )
        return self._run(frames, color, batch_size)

    def classify(
        self,
        frames: Frames | ImageLike | Iterable[ImageLike],
        *,
        top: int | None = None,
        color: str | None = None,
        batch_size: int | None = None,
    ) -> Classification | list[Classification]:
        """Say which labels fit: a Classification for one frame or picture, a list of them for many.

        Args:
            frames: as for `logits`.
            top: how many of the best labels to tell; None tells all.
            color: as for `logits`.
            batch_size: as for `logits`.

        Raises:
            InputError, ImageError, BackendError: as `logits`, and for a `top` that is not in 1..K.
        """
        count = len(self.labels)
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= max(count, 1)):
            raise InputError(f"top must be in 1..{count}, got {top!r}", fix="leave it away to get all labels")
        logits = self.logits(frames, color=color, batch_size=batch_size)
        chances = probabilities(logits, self.spec.probability)
        answers = [rank(self.labels, *row, top or count) for row in zip(logits, chances, strict=True)]
        return answers[0] if self._is_single(frames) else answers

    def embed(
        self,
        frames: Frames | ImageLike | Iterable[ImageLike],
        *,
        color: str | None = None,
        batch_size: int | None = None,
    ) -> Embeddings:
        """The embeddings that a graph without labels gives: (N, D) float32, L2-normalised; arguments as for `logits`.

        Raises:
            InputError, ImageError, BackendError: as `logits`; and where the graph gives logits.
        """
        if self.labels:
            raise InputError(
                f"bundle {self.bundle.folder} has labels in its graph, which gives no embeddings",
                fix="use logits or classify; or bake without labels: clipdeploy bake BUNDLE --embeddings",
            )
        return self._run(frames, color, batch_size)

    def close(self) -> None:
        """Give the engine's memory and the threads back, once the runs that have begun are over."""
        self._encoders.close()
        self._pictures.close()

    def _run(self, frames: Any, color: str | None, batch_size: int | None) -> NDArray[np.float32]:
        if batch_size is not None:
            check_batch_size(batch_size)
        self._encoders.check_open()
        wanted = self.frame
        if wanted is None:
            return self._pictures.encode(frames, color=color or "rgb", batch_size=batch_size or BATCH_SIZE)
        try:
            given = batch_of(frames, color or wanted.color)
        except ImageError as error:
            raise ImageError(f"{error.message}; this bundle takes frames of {wanted}", fix=error.fix) from error
        if given is None:
            return np.empty((0, self._columns), np.float32)
        frame, batch = given
        if frame != wanted:
            raise InputError(
                f"bundle {self.bundle.folder} takes frames of {wanted}, got {frame}",
                fix="pass frames of that size and colour order, or bake for these: clipdeploy bake BUNDLE --frame "
                f"{frame}",
            )
        if is_on_gpu(batch):  # run whole; a few numbers a frame come back
            on_gpu: NDArray[np.float32] = cast(Any, self._pictures.encode_pixels(batch)).numpy()
            return on_gpu
        few = max(1, _AT_ONCE_BYTES // int(np.prod(wanted.shape)))
        return self._encoders.run(Tower.IMAGE, np.ascontiguousarray(batch), batch_size or min(few, BATCH_SIZE))

    def _is_single(self, frames: Any) -> bool:
        if self.frame is None:
            return is_single(frames)
        return not isinstance(frames, (list, tuple)) and len(cast(Any, frames).shape) == len(self.frame.shape)

    def __enter__(self) -> Baked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        takes, gives = self.frame or "pictures", f"{len(self.labels)} labels" if self.labels else "embeddings"
        name, precision = self.spec.name, self.precision.value
        return f"<Baked {name} {precision} {takes} -> {gives} {self.backend.name} {self.bundle.folder}>"
