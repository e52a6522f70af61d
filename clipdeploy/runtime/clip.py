"""A bundle at work: pictures and texts to embeddings, labels and similarities."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError
from clipdeploy.runtime.auto import choose
from clipdeploy.runtime.backends import BackendChoice, check_threads, check_usual_batch
from clipdeploy.runtime.batches import BATCH_SIZE, check_texts, many_texts
from clipdeploy.runtime.choose import GraphChoice, StandIns, check_target, parse_precision
from clipdeploy.runtime.chosen import Chosen
from clipdeploy.runtime.classifier import Classified, Classifier, LabelSets
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.hashed import CheckHashes, open_bundle
from clipdeploy.runtime.image import ImageLike
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, resolve_templates
from clipdeploy.runtime.many import Embedded, Errors, one_by_one
from clipdeploy.runtime.pictures import Frames, Pictures
from clipdeploy.runtime.pool import Pool
from clipdeploy.runtime.scores import Classification, unit
from clipdeploy.runtime.session import DeviceArray, Embeddings
from clipdeploy.runtime.text_bank import TextBank
from clipdeploy.runtime.texts import Texts
from clipdeploy.spec import FrameSpec, ModelSpec, Precision, Target, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.asynchronous import AsyncClip
    from clipdeploy.runtime.tokenizer import Tokenizer

__all__ = ["BackendChoice", "Classification", "Classified", "Classifier", "Clip", "Embedded", "load"]

# Threads in which coroutines wait for the encoders; made when the first one does.
_WAITERS = 4


def load(
    bundle: str | Path | Bundle,
    *,
    precision: str | Precision = Precision.FP32,
    backend: str = "auto",
    target: Target | None = None,
    threads: int | None = None,
    usual_batch: int = 1,
    check_hashes: CheckHashes = True,
    self_test: bool = True,
    stand_ins: StandIns | None = None,
) -> Clip:
    """Open a bundle for inference. The encoders themselves are loaded at their first use.

    Args:
        bundle: the folder that `clipdeploy export` wrote.
        precision: number format of the graphs, such as `fp32`. An encoder that has no graph of it runs in fp32, as
            `Clip.precisions` tells; one of them must have it. `auto` takes the fastest that passes the self-test.
        backend: `onnxruntime` or `openvino` on the CPU; `onnxruntime:cuda`, `onnxruntime:tensorrt`,
            `onnxruntime:tensorrt-rtx` or `openvino:gpu`; `tensorrt` or `tensorrt-rtx`, which run what `clipdeploy
            build-engine` built, of one encoder at least. `auto` takes the fastest of those installed that passes the
            self-test: measured once for a machine, remembered, and told by `Clip.backend`.
        target: whose 8-bit graphs to take. None takes those made for the engine; `tensorrt` has ONNX Runtime compute
            TensorRT's as they are written, slowly, to check them.
        threads: for one run of an encoder and for opening pictures; None takes what the machine has.
        usual_batch: rows that one run usually has: what `auto` measures with, and what engines prepare for.
        check_hashes: compare the sha256 of every file in the bundle; those that this machine has read before, and that
            were not touched since, are not read again. `"again"` reads all, False compares sizes only.
        self_test: hold each encoder against the bundle's golden samples when it is loaded, once for each machine,
            engine and graph; one that drifts past the gates of its precision does not serve. What `auto` chooses
            among is tested anyway.
        stand_ins: graphs to load in place of the bundle's.

    Raises:
        BundleError: the bundle cannot be opened.
        InputError: it lacks the precision, or has it for another target only, or an argument is wrong.
        MissingExtraError, BackendError: the engine is not installed, does not load, or has no device to run on; or
            nothing passes the self-test.
        EngineError: no encoder has a built engine that fits this machine; says where they part, and what builds one.
    """
    check_threads(threads)
    check_usual_batch(usual_batch)
    check_target(target)
    wanted = parse_precision(precision)
    opened = open_bundle(bundle, check_hashes)
    if opened.manifest.baked is not None:
        raise InputError(
            f"bundle {opened.folder} is baked: its graph answers by itself, and holds no encoders",
            fix="open it with clipdeploy.load_baked; or load the bundle that it was baked from",
        )
    chosen = choose(
        opened,
        precision=wanted,
        backend=backend,
        target=target,
        stand_ins=stand_ins,
        threads=threads,
        usual_batch=usual_batch,
    )
    return Clip(chosen, threads=threads, usual_batch=usual_batch, self_test=self_test)


class Clip:
    """An opened bundle that embeds and classifies; made by `load`. Safe to share between threads.

    Attributes:
        chosen: what runs: the engine, and of each encoder the graph.
        bundle: the opened bundle.
        spec: what the model takes and gives.
        embedding_space: id that vectors must share to be compared.
        images: the checkpoint's own preprocessing.
    """

    def __init__(
        self, chosen: Chosen, *, threads: int | None = None, usual_batch: int = 1, self_test: bool = True
    ) -> None:
        self.chosen = chosen
        self.bundle = chosen.bundle
        self.spec: ModelSpec = chosen.bundle.model
        self.embedding_space = chosen.bundle.manifest.embedding_space
        self._encoders = Encoders(chosen, threads=threads, usual_batch=usual_batch, self_test=self_test)
        self._pictures = Pictures(chosen.bundle, self._encoders, workers=threads)
        self._texts = Texts(chosen.bundle, self._encoders)
        self.images = self._pictures.processor
        encode = self._texts.encode if Tower.TEXT in chosen.graphs else None
        self._bank = TextBank(chosen.bundle, encode, self._texts.check_lengths)
        self._sets = LabelSets(self._bank, self.spec)
        self._waiters = Pool(_WAITERS, "clipdeploy-async")

    @property
    def backend(self) -> BackendChoice:
        """The engine that runs the encoders, and why this one."""
        return self.chosen.backend

    @property
    def precision(self) -> Precision:
        """The number format that was asked for, or that was chosen."""
        return self.chosen.precision

    @property
    def graphs(self) -> dict[Tower, GraphChoice]:
        """Of each encoder, which graph runs."""
        return self.chosen.graphs

    @property
    def precisions(self) -> dict[Tower, Precision]:
        """The number format that each encoder runs in."""
        return self.chosen.precisions

    @property
    def unbuilt(self) -> dict[Tower, str]:
        """The encoders that nothing was built for on a backend of built engines, and what builds it."""
        return self.chosen.unbuilt

    @property
    def frames(self) -> tuple[FrameSpec, ...]:
        """The camera frames that `encode_frames` takes: those that the bundle held graphs for when it was loaded, or,
        on a backend of built engines, engines that run here."""
        return self._encoders.frames

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to `(N, context_length)` int64 ids, as the checkpoint's own tokenizer makes them."""
        return self._texts.tokenizer

    def graph(self, tower: Tower) -> GraphChoice:
        """The graph of one encoder; raises InputError where the bundle has none of it."""
        return self.chosen.graph(tower)

    def encode_image(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings:
        """Embed one picture or many.

        Args:
            images: a path, the bytes of an image file, a PIL image, an array of (H, W, 3), (H, W, 4) or (H, W)
                uint8; or any iterable of those, or an array of (N, H, W, 3). Read as the encoder comes to them, a
                batch or two ahead.
            color: the order of an array's channels, `rgb` or `bgr`.
            batch_size: pictures in one run of the encoder.

        Returns:
            (N, D) float32, L2-normalised, in the order given; (1, D) for one picture.

        Raises:
            ImageError: a picture cannot be read; it is named.
        """
        return self._pictures.encode(images, color=color, batch_size=batch_size)

    def encode_many(
        self,
        images: Iterable[ImageLike],
        *,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        errors: Errors = "raise",
    ) -> Generator[Embedded, None, None]:
        """Embed any number of pictures, one result a picture, in order; opened while the encoder runs.

        Args:
            images: any iterable of pictures; taken lazily, so that it may be endless. One in memory must stay as it
                is until its result is there.
            color: the order of an array's channels, `rgb` or `bgr`.
            batch_size: pictures in one run of the encoder.
            errors: what becomes of a picture that cannot be read. `raise`: an ImageError that names it, after the
                results of those before it. `report`: a result that says so, and on with the next.
        """
        return one_by_one(self._pictures.batches(images, color=color, batch_size=batch_size, errors=errors))

    @overload
    def encode_pixels(self, pixel_values: NDArray[np.float32], *, batch_size: int = ...) -> Embeddings: ...

    @overload
    def encode_pixels(self, pixel_values: Any, *, batch_size: int = ...) -> Any: ...

    def encode_pixels(self, pixel_values: Any, *, batch_size: int = BATCH_SIZE) -> Embeddings | DeviceArray:
        """Embed pixels that are ready for the model: (N, 3, H, W) float32, RGB, normalised -> (N, D) float32.

        Arrays that offer DLPack are taken as they are. One in the memory of the GPU that the backend runs on stays
        there, and so does the answer, a `DeviceArray`; it is run whole, so N is at most what the engine takes.

        Raises:
            InputError: another shape or dtype; or on a GPU, and the backend takes none from there.
        """
        return self._pictures.encode_pixels(pixel_values, batch_size)

    @overload
    def encode_frames(self, frames: Frames, *, color: str = ..., batch_size: int = ...) -> Embeddings: ...

    @overload
    def encode_frames(self, frames: Any, *, color: str = ..., batch_size: int = ...) -> Any: ...

    def encode_frames(
        self, frames: Any, *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings | DeviceArray:
        """Embed raw camera frames of a size that the bundle holds a graph for; resized and normalised in the graph.

        As `encode_image` of the same frames, within one level of 255 on fewer than one pixel value in a thousand.

        Args:
            frames: one frame or many, uint8, of one of the sizes in `Clip.frames`: (H, W, 3) or (N, H, W, 3); of
                `nv12` (H * 3 / 2, W) or (N, H * 3 / 2, W); or a list of frames of one shape. One that lies on the GPU
                that the backend runs on stays there, and so does the answer, as with `encode_pixels`.
            color: `rgb`, `bgr` or `nv12`.
            batch_size: frames in one run of the encoder.

        Returns:
            (N, D) float32, L2-normalised, in the order given; (1, D) for one frame.

        Raises:
            ImageError: these are no frames: another dtype or number of axes.
            InputError: no graph takes frames of this size and colour; says which do, and what makes one.
            EngineError: no engine takes them, on a backend of built engines; says what builds one.
            BackendError: the graph's pixels, here, are not those that the checkpoint's preprocessing makes.
        """
        return self._pictures.encode_frames(frames, color=color, batch_size=batch_size)

    def frame_pixels(self, frames: Frames, *, color: str = "rgb") -> NDArray[np.float32]:
        """What `encode_frames` gives to the image encoder: (N, 3, h, w) float32, RGB, normalised.

        Raises:
            InputError, BackendError: as `encode_frames`; or a built engine takes the frames, which gives no pixels.
        """
        return self._pictures.frame_pixels(frames, color=color)

    def encode_text(self, texts: str | Sequence[str], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed one text or many: (N, D) float32, L2-normalised. Too long a text is cut as the checkpoint cuts it.

        Where the bundle has no text encoder, its banks answer for the texts that they hold.

        Raises:
            TextError: something that is not a text; or one that no bank holds, where there is no text encoder.
        """
        many = many_texts(texts)
        if Tower.TEXT not in self.graphs:
            return self._bank.texts(check_texts(many))
        return self._texts.encode(many, batch_size)

    def encode_tokens(self, input_ids: NDArray[np.integer], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed token ids: (N, context_length) int64 or int32 -> (N, D) float32."""
        return self._texts.encode_tokens(input_ids, batch_size)

    def encode_labels(self, labels: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE) -> Embeddings:
        """The rows of a classifier: (K, D) float32, one L2-normalised row a label; each is embedded once.

        With several templates a row is the mean of the normalised embeddings of its texts, normalised again.

        Args:
            labels: K distinct texts.
            template: a text with `{}` for the label, several of them, or a name: `default`, `openai`.

        Raises:
            TextError: a label or template is empty, given twice, or too long for the model; or unknown to a bundle
                without a text encoder.
        """
        return np.array(self._bank.labels(check_labels(labels), resolve_templates(template)))

    def classifier(
        self, labels: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE, *, top: int | None = None
    ) -> Classifier:
        """A classifier over K labels, which can be replaced while it answers; arguments as for `classify`."""
        return Classifier(self._pictures, self._sets, self._sets.of(labels, template), top)

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
            TextError: as `encode_labels`.
            InputError: `top` is not in 1..K.
        """
        return self.classifier(labels, template, top=top).classify(images, color=color, batch_size=batch_size)

    def classify_many(
        self,
        images: Iterable[ImageLike],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        top: int | None = None,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        errors: Errors = "raise",
    ) -> Generator[Classified, None, None]:
        """Classify any number of pictures, one result a picture, in order; arguments as for `encode_many`."""
        classifier = self.classifier(labels, template, top=top)
        return classifier.classify_many(images, color=color, batch_size=batch_size, errors=errors)

    def similarity(
        self,
        images: ImageLike | Iterable[ImageLike] | Embeddings,
        texts: str | Sequence[str] | Embeddings,
        *,
        color: str = "rgb",
    ) -> NDArray[np.float32]:
        """Cosine of every picture with every text: (N, M) float32. Either side may be (N, D) embeddings instead."""
        columns = self.spec.embed_dim
        floats = isinstance(images, np.ndarray) and images.ndim == 2 and images.dtype.kind == "f"
        left = unit(images, columns) if floats else self.encode_image(images, color=color)  # type: ignore[arg-type]
        right = unit(texts, columns) if isinstance(texts, np.ndarray) else self.encode_text(texts)
        cosines: NDArray[np.float32] = left @ right.T
        return cosines

    @property
    def aio(self) -> AsyncClip:
        """The same for asyncio: methods of the same names, as coroutines and async generators."""
        from clipdeploy.runtime.asynchronous import AsyncClip

        return AsyncClip(self, self._pictures, self._waiters)

    def close(self) -> None:
        """Give the engines' memory and the threads back, once the runs that have begun are over.

        The Clip cannot encode afterwards, and those that wait for a turn are told so.
        """
        self._encoders.close()
        self._pictures.close()
        self._waiters.close(cancel=False)  # what waits there is told that the Clip is closed

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name, precision = self.spec.name, self.precision.value
        return f"<Clip {name} {precision} {self.backend.name} space={self.embedding_space} {self.bundle.folder}>"
