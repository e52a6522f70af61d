"""A bundle at work: pictures and texts to embeddings, labels and similarities."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, BundleCorruptError, InputError, TextError
from clipdeploy.runtime.backends import BackendChoice, check_threads, choose_backend, engine_backend, open_session
from clipdeploy.runtime.batches import BATCH_SIZE, batches, check_batch_size, many_images, many_texts
from clipdeploy.runtime.choose import GraphChoice, StandIns, check_target, choose_graphs, told
from clipdeploy.runtime.image import ImageLike, ImageProcessor, is_single
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, fill_templates, resolve_templates
from clipdeploy.runtime.scores import Classification, probabilities, rank
from clipdeploy.runtime.session import Session
from clipdeploy.spec import ModelSpec, Precision, Target, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.tensorrt import Engines
    from clipdeploy.runtime.tokenizer import Tokenizer

__all__ = ["Classification", "Clip", "load"]

Embeddings = NDArray[np.float32]
_KEPT_BANKS = 32


def load(
    bundle: str | Path | Bundle,
    *,
    precision: str | Precision = Precision.FP32,
    backend: str = "auto",
    target: Target | None = None,
    threads: int | None = None,
    check_hashes: bool = True,
    stand_ins: StandIns | None = None,
) -> Clip:
    """Open a bundle for inference. The encoders themselves are loaded at their first use.

    Args:
        bundle: the folder that `clipdeploy export` wrote.
        precision: number format of the graphs, such as `fp32`. An encoder that has no graph of it runs in fp32, as
            `Clip.precisions` tells; one of them must have it.
        backend: `onnxruntime`; `tensorrt` or `tensorrt-rtx`, which run what `clipdeploy build-engine` built, of one
            encoder at least; or `auto`, whose choice and reason `Clip.backend` tells.
        target: whose 8-bit graphs to take. None takes those made for the engine; `tensorrt` has ONNX Runtime compute
            TensorRT's as they are written, slowly, to check them.
        threads: for one run of an encoder and for opening pictures; None takes what the machine has.
        check_hashes: compare the sha256 of every file in the bundle; False compares sizes only.
        stand_ins: graphs to load in place of the bundle's.

    Raises:
        BundleError: the bundle cannot be opened.
        InputError: it lacks the precision, or has it for another target only, or an argument is wrong.
        MissingExtraError, BackendError: the engine is not installed, not in this version, or has no GPU to run on.
        EngineError: no encoder has a built engine that fits this machine; says where they part, and what builds one.
    """
    check_threads(threads)
    wanted = Precision.parse(precision)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, check_hashes=check_hashes)
    check_target(target)
    engine = choose_backend(backend)
    graphs = choose_graphs(opened, wanted, engine, target=target, stand_ins=stand_ins)
    engines = _engines(opened, engine, graphs)
    if engines is not None:
        engine = BackendChoice(engine.name, f"{engine.reason}: {engines.reason}")
    choice = told(engine, graphs)
    return Clip(opened, precision=wanted, backend=choice, graphs=graphs, engines=engines, threads=threads)


def _engines(bundle: Bundle, backend: BackendChoice, graphs: Mapping[Tower, GraphChoice]) -> Engines | None:
    """The bundle's built engines, where the backend runs such."""
    name = engine_backend(backend.name)
    if name is None:
        return None
    from clipdeploy.runtime.tensorrt import find_engines

    return find_engines(bundle, name, {tower: graph.precision for tower, graph in graphs.items()})


class Clip:
    """An opened bundle that embeds and classifies; made by `load`. Safe to share between threads.

    Attributes:
        bundle: the opened bundle.
        spec: what the model takes and gives.
        precision: the number format that was asked for.
        graphs: of each encoder, which graph runs.
        backend: the engine that runs them, and why this one.
        embedding_space: id that vectors must share to be compared.
        images: the checkpoint's own preprocessing.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision,
        backend: BackendChoice,
        graphs: Mapping[Tower, GraphChoice],
        engines: Engines | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.spec: ModelSpec = bundle.model
        self.precision = precision
        self.graphs = dict(graphs)
        self.backend = backend
        self.embedding_space = bundle.manifest.embedding_space
        self.images = ImageProcessor(self.spec.pixels, workers=threads)
        self._engines = engines
        self._threads = threads
        self._sessions: dict[Tower, Session] = {}
        self._banks: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], Embeddings] = OrderedDict()
        self._locks = {tower: Lock() for tower in Tower}
        self._bank_lock = Lock()
        self._closed = False

    @property
    def precisions(self) -> dict[Tower, Precision]:
        """The number format that each encoder runs in."""
        return {tower: graph.precision for tower, graph in self.graphs.items()}

    @property
    def unbuilt(self) -> dict[Tower, str]:
        """The encoders that nothing was built for on a backend of built engines, and what builds it."""
        unbuilt = {} if self._engines is None else self._engines.unbuilt
        return {tower: error.fix or error.message for tower, error in unbuilt.items()}

    def graph(self, tower: Tower) -> GraphChoice:
        """The graph of one encoder; raises InputError where the bundle has none of it."""
        if tower not in self.graphs:
            self.bundle.graph(tower, self.precision)  # raises
        return self.graphs[tower]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Texts to `(N, context_length)` int64 ids, as the checkpoint's own tokenizer makes them."""
        from clipdeploy.runtime.tokenizer import Tokenizer

        return Tokenizer(self.bundle.path("tokenizer.json"), self.spec.tokens)

    def encode_image(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings:
        """Embed one picture or many.

        Args:
            images: a path, the bytes of an image file, a PIL image, an array of (H, W, 3), (H, W, 4) or (H, W)
                uint8; or any iterable of those, or an array of (N, H, W, 3). No more than a batch is held at once.
            color: the order of an array's channels, `rgb` or `bgr`.
            batch_size: pictures in one run of the encoder.

        Returns:
            (N, D) float32, L2-normalised, in the order given; (1, D) for one picture.

        Raises:
            ImageError: a picture cannot be read; it is named.
        """
        rows = [
            self.encode_pixels(self.images(batch, color=color, first=start), batch_size=batch_size)
            for start, batch in batches(many_images(images), batch_size)
        ]
        return self._joined(rows)

    def encode_pixels(self, pixel_values: NDArray[np.float32], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed pixels that are ready for the model: (N, 3, H, W) float32, RGB, normalised -> (N, D) float32."""
        return self._run(Tower.IMAGE, pixel_values, batch_size)

    def encode_text(self, texts: str | Sequence[str], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed one text or many: (N, D) float32, L2-normalised. Too long a text is cut as the checkpoint cuts it.

        Raises:
            TextError: something that is not a text.
        """
        rows = [
            self._run(Tower.TEXT, self._ids(batch), batch_size) for _, batch in batches(many_texts(texts), batch_size)
        ]
        return self._joined(rows)

    def encode_tokens(self, input_ids: NDArray[np.integer], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed token ids: (N, context_length) int64 or int32 -> (N, D) float32."""
        spec = self.spec.tokens
        if not isinstance(input_ids, np.ndarray) or input_ids.dtype not in (np.int32, np.int64):
            given = getattr(input_ids, "dtype", type(input_ids).__name__)
            raise InputError(f"input_ids must be an ndarray of int64 or int32, got {given}")
        if input_ids.size and not (input_ids.min() >= 0 and input_ids.max() < spec.vocab_size):
            raise InputError(
                f"input_ids must lie in 0..{spec.vocab_size - 1}, got {input_ids.min()}..{input_ids.max()}",
                fix="make them with the bundle's own tokenizer: clip.tokenizer(texts)",
            )
        dtype = self.spec.text.input.dtype
        return self._run(Tower.TEXT, input_ids.astype(dtype, copy=False), batch_size)

    def encode_labels(self, labels: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE) -> Embeddings:
        """The text bank of a classifier: (K, D) float32, one L2-normalised row a label; the latest banks are kept.

        With several templates a row is the mean of the normalised embeddings of its texts, normalised again.

        Args:
            labels: K distinct texts.
            template: a text with `{}` for the label, several of them, or a name: `default`, `openai`.

        Raises:
            TextError: a label or template is empty, given twice, or too long for the model.
        """
        bank = self._bank(check_labels(labels), resolve_templates(template))
        return np.array(bank)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is one picture before it is an iterable
        self,
        images: ImageLike,
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = ...,
        top: int | None = ...,
        color: str = ...,
        batch_size: int = ...,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        images: Iterable[ImageLike],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = ...,
        top: int | None = ...,
        color: str = ...,
        batch_size: int = ...,
    ) -> list[Classification]: ...

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        top: int | None = None,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
    ) -> Classification | list[Classification]:
        """Say which of K labels fit a picture, zero-shot.

        Args:
            images: one picture or many, as for `encode_image`.
            labels: K distinct texts.
            template: as for `encode_labels`.
            top: how many of the best to tell, 1..K; None tells all.
            color: the order of an array's channels, `rgb` or `bgr`.
            batch_size: pictures in one run of the encoder.

        Returns:
            A Classification for one picture, a list of them for many.

        Raises:
            ImageError: a picture cannot be read.
            TextError: a label or template is empty, given twice, or too long for the model.
            InputError: `top` is not in 1..K.
        """
        names = check_labels(labels)
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= len(names)):
            raise InputError(f"top must be in 1..{len(names)}, the number of labels, got {top!r}")
        bank = self._bank(names, resolve_templates(template))
        embeds = self.encode_image(images, color=color, batch_size=batch_size)
        logits = self.spec.logit_scale * (embeds.astype(np.float64) @ bank.T.astype(np.float64)) + self.spec.logit_bias
        chances = probabilities(logits, self.spec.probability)
        answers = [rank(names, *row, top or len(names)) for row in zip(logits, chances, strict=True)]
        return answers[0] if is_single(images) else answers

    def similarity(
        self,
        images: ImageLike | Iterable[ImageLike] | Embeddings,
        texts: str | Sequence[str] | Embeddings,
        *,
        color: str = "rgb",
    ) -> NDArray[np.float32]:
        """Cosine of every picture with every text: (N, M) float32. Either side may be (N, D) embeddings instead."""
        floats = isinstance(images, np.ndarray) and images.ndim == 2 and images.dtype.kind == "f"
        left = self._unit(images) if floats else self.encode_image(images, color=color)  # type: ignore[arg-type]
        right = self._unit(texts) if isinstance(texts, np.ndarray) else self.encode_text(texts)
        cosines: NDArray[np.float32] = left @ right.T
        return cosines

    def close(self) -> None:
        """Give the engines' memory back; the Clip cannot encode afterwards."""
        self._closed = True
        for tower in Tower:
            with self._locks[tower]:
                session = self._sessions.pop(tower, None)
                if session is not None:
                    session.close()

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name, precision = self.spec.name, self.precision.value
        return f"<Clip {name} {precision} {self.backend.name} space={self.embedding_space} {self.bundle.folder}>"

    def _session(self, tower: Tower) -> Session:
        """The engine of one encoder, loaded at the first call."""
        session = self._sessions.get(tower)
        if session is not None:
            return session
        with self._locks[tower]:
            if self._closed:
                raise BackendError(f"the Clip of {self.bundle.folder} is closed", fix="load the bundle again")
            if tower not in self._sessions:
                session = self._open(tower)
                self._check_graph(session, tower)
                self._sessions[tower] = session
            return self._sessions[tower]

    def _open(self, tower: Tower) -> Session:
        graph = self.graph(tower)
        if self._engines is not None:
            return self._engines.open(tower)
        return open_session(graph.path, backend=self.backend.name, threads=self._threads, as_written=graph.as_written)

    def _check_graph(self, session: Session, tower: Tower) -> None:
        """Raise BundleCorruptError when a graph is not the one that the manifest describes."""
        spec = self.spec.tower(tower)
        what, fix = "graph", "export the checkpoint again"
        if self._engines is not None:
            what, fix = "engine", "build it again: clipdeploy build-engine --overwrite"
        for given, said in ((session.input, spec.input), (session.output, spec.output)):
            if (given.name, given.dtype, given.shape[1:]) != (said.name, said.dtype, said.shape[1:]):
                raise BundleCorruptError(
                    f"bundle {self.bundle.folder}: the {tower.value} {what} has {given}, the manifest says {said}",
                    fix=fix,
                )

    def _run(self, tower: Tower, batch: NDArray[Any], batch_size: int) -> Embeddings:
        """Any number of rows through an encoder, `batch_size` at a time, or as many as it takes."""
        check_batch_size(batch_size)
        session = self._session(tower)
        batch_size = min(batch_size, session.largest_batch or batch_size)
        empty = isinstance(batch, np.ndarray) and batch.ndim == len(session.input.shape) and len(batch) == 0
        if empty:
            return self._joined([])
        if isinstance(batch, np.ndarray) and batch.ndim and len(batch) > batch_size:
            return self._joined([session.run(batch[i : i + batch_size]) for i in range(0, len(batch), batch_size)])
        return self._joined([session.run(batch)])

    def _joined(self, rows: Sequence[Embeddings]) -> Embeddings:
        """Batches as one (N, D); raises BackendError where an engine gave something that is not a number."""
        if not rows:
            return np.empty((0, self.spec.embed_dim), dtype=np.float32)
        embeds = rows[0] if len(rows) == 1 else np.concatenate(rows)
        if not np.isfinite(embeds).all():
            bad = np.flatnonzero(~np.isfinite(embeds).all(axis=1))
            raise BackendError(
                f"{self.backend.name} gave embeddings that are not finite ({self.precision.value}), rows {bad[:8]}",
                fix="check that the input is finite; use a higher precision, and run: clipdeploy verify",
            )
        return embeds

    def _ids(self, texts: Sequence[str]) -> NDArray[np.integer]:
        return self.tokenizer(texts).astype(self.spec.text.input.dtype, copy=False)

    def _bank(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Embeddings:
        """The (K, D) text bank of `labels`, from the latest ones if it is there."""
        key = (labels, templates)
        with self._bank_lock:
            if key in self._banks:
                self._banks.move_to_end(key)
                return self._banks[key]
        texts = fill_templates(labels, templates)
        self._check_lengths(texts)
        embeds = self.encode_text(texts).reshape(len(labels), len(templates), -1)
        bank = embeds[:, 0] if len(templates) == 1 else self._unit(embeds.mean(axis=1, dtype=np.float64))
        with self._bank_lock:
            self._banks[key] = bank
            while len(self._banks) > _KEPT_BANKS:
                self._banks.popitem(last=False)
        return bank

    def _check_lengths(self, texts: Sequence[str]) -> None:
        """Raise TextError for a text that the tokenizer would cut."""
        room = self.spec.tokens.context_length
        for text in texts:
            # A byte becomes one id at most, and cleaning does not double a text.
            if (
                2 * len(text.encode("utf-8", "surrogatepass")) + 2 > room
                and (count := self.tokenizer.count(text)) > room
            ):
                raise TextError(
                    f"a label is too long: {_shortened(text)!r} has {count} tokens, the model reads {room}",
                    fix="shorten the label or the template",
                )

    def _unit(self, vectors: NDArray[Any]) -> Embeddings:
        """(N, D) of any float type -> float32, L2-normalised."""
        if vectors.ndim != 2 or vectors.shape[1] != self.spec.embed_dim or vectors.dtype.kind != "f":
            raise InputError(
                f"embeddings must be floats of shape (N, {self.spec.embed_dim}), got {vectors.dtype} {vectors.shape}",
                fix="pass what encode_image or encode_text of the same bundle returned",
            )
        wide: NDArray[np.float64] = vectors.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise InputError("embeddings must be finite and not zero")
        unit: Embeddings = (wide / lengths).astype(np.float32)
        return unit


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
