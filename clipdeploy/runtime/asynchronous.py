"""A Clip for asyncio: its methods as coroutines, which compute in a few threads and leave the event loop free.

A task that is cancelled while it waits for a thread never runs; one that runs is left to finish, unheard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.async_streams import Finish, from_async_iterable, from_iterable
from clipdeploy.runtime.batches import BATCH_SIZE
from clipdeploy.runtime.classifier import Classified, Classifier, classify_batch
from clipdeploy.runtime.image import ImageLike
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE
from clipdeploy.runtime.many import Embedded, EmbeddedBatch, Errors
from clipdeploy.runtime.pictures import Frames, Pictures
from clipdeploy.runtime.pool import Pool
from clipdeploy.runtime.scores import Classification
from clipdeploy.runtime.session import Embeddings

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip

P = ParamSpec("P")
T = TypeVar("T")
Images = Iterable[ImageLike] | AsyncIterable[ImageLike]


class AsyncClip:
    """A Clip for asyncio; made by `Clip.aio`. Methods, arguments and errors are those of `Clip`."""

    def __init__(self, clip: Clip, pictures: Pictures, pool: Pool) -> None:
        self.clip = clip
        self._pictures, self._pool = pictures, pool

    async def encode_image(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Embeddings:
        """See `Clip.encode_image`."""
        return await self._call(self.clip.encode_image, images, color=color, batch_size=batch_size)

    async def encode_pixels(self, pixel_values: Any, *, batch_size: int = BATCH_SIZE) -> Any:
        """See `Clip.encode_pixels`."""
        return await self._call(self._pictures.encode_pixels, pixel_values, batch_size)

    async def encode_frames(self, frames: Any, *, color: str = "rgb", batch_size: int = BATCH_SIZE) -> Any:
        """See `Clip.encode_frames`."""
        return await self._call(self._pictures.encode_frames, frames, color=color, batch_size=batch_size)

    async def encode_text(self, texts: str | Sequence[str], *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """See `Clip.encode_text`."""
        return await self._call(self.clip.encode_text, texts, batch_size=batch_size)

    async def encode_labels(
        self, labels: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE
    ) -> Embeddings:
        """See `Clip.encode_labels`."""
        return await self._call(self.clip.encode_labels, labels, template)

    async def similarity(
        self,
        images: ImageLike | Iterable[ImageLike] | Embeddings,
        texts: str | Sequence[str] | Embeddings,
        *,
        color: str = "rgb",
    ) -> NDArray[np.float32]:
        """See `Clip.similarity`."""
        return await self._call(self.clip.similarity, images, texts, color=color)

    @overload
    async def classify(  # type: ignore[overload-overlap]  # a str is one picture before it is an iterable
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
    async def classify(
        self,
        images: Iterable[ImageLike],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = ...,
        top: int | None = ...,
        color: str = ...,
        batch_size: int = ...,
    ) -> list[Classification]: ...

    async def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        top: int | None = None,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
    ) -> Classification | list[Classification]:
        """See `Clip.classify`."""
        call = partial(self.clip.classify, template=template, top=top, color=color, batch_size=batch_size)
        return await self._call(call, cast(Any, images), labels)

    async def classifier(
        self, labels: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE, *, top: int | None = None
    ) -> AsyncClassifier:
        """See `Clip.classifier`."""
        return AsyncClassifier(await self._call(self.clip.classifier, labels, template, top=top), self)

    def encode_many(
        self, images: Images, *, color: str = "rgb", batch_size: int = BATCH_SIZE, errors: Errors = "raise"
    ) -> AsyncGenerator[Embedded, None]:
        """See `Clip.encode_many`; takes async iterables too. A batch is run when it is full or the pictures end."""
        return self.stream(images, _embedded, color=color, batch_size=batch_size, errors=errors)

    async def classify_many(
        self,
        images: Images,
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        top: int | None = None,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        errors: Errors = "raise",
    ) -> AsyncGenerator[Classified, None]:
        """See `Clip.classify_many`; takes async iterables too."""
        classifier = await self.classifier(labels, template, top=top)
        async for result in classifier.classify_many(images, color=color, batch_size=batch_size, errors=errors):
            yield result

    def stream(
        self, images: Images, finish: Finish[T], *, color: str, batch_size: int, errors: Errors
    ) -> AsyncGenerator[T, None]:
        """The results of any number of pictures, made of each batch of embeddings by `finish`."""
        if isinstance(images, AsyncIterable):
            ahead, encode = self._pictures.ahead(color=color, batch_size=batch_size, errors=errors)
            return from_async_iterable(images, ahead, encode, errors, finish)
        return from_iterable(self._pictures.batches(images, color=color, batch_size=batch_size, errors=errors), finish)

    async def close(self) -> None:
        """Close the Clip; see `Clip.close`."""
        await asyncio.to_thread(self.clip.close)

    async def __aenter__(self) -> AsyncClip:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._pool.submit(call, *args, **kwargs))


class AsyncClassifier:
    """A Classifier for asyncio; made by `AsyncClip.classifier`."""

    def __init__(self, classifier: Classifier, clip: AsyncClip) -> None:
        self.classifier = classifier
        self._clip = clip

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the next answer is of."""
        return self.classifier.labels

    @overload
    async def classify(  # type: ignore[overload-overlap]  # a str is one picture before it is an iterable
        self, images: ImageLike, *, color: str = ..., batch_size: int = ...
    ) -> Classification: ...

    @overload
    async def classify(
        self, images: Iterable[ImageLike], *, color: str = ..., batch_size: int = ...
    ) -> list[Classification]: ...

    async def classify(
        self, images: ImageLike | Iterable[ImageLike], *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> Classification | list[Classification]:
        """See `Classifier.classify`."""
        call = partial(self.classifier.classify, color=color, batch_size=batch_size)
        return await self._clip._call(call, cast(Any, images))

    __call__ = classify

    async def classify_frames(
        self, frames: Frames, *, color: str = "rgb", batch_size: int = BATCH_SIZE
    ) -> list[Classification]:
        """See `Classifier.classify_frames`."""
        call = partial(self.classifier.classify_frames, color=color, batch_size=batch_size)
        return await self._clip._call(call, frames)

    async def swap(
        self, labels: Sequence[str], template: str | Sequence[str] | None = None, *, top: int | None = None
    ) -> None:
        """See `Classifier.swap`."""
        await self._clip._call(self.classifier.swap, labels, template, top=top)

    def classify_many(
        self, images: Images, *, color: str = "rgb", batch_size: int = BATCH_SIZE, errors: Errors = "raise"
    ) -> AsyncGenerator[Classified, None]:
        """See `Classifier.classify_many`; takes async iterables too."""
        finish = partial(classify_batch, answers=self.classifier.classify_embeddings)
        return self._clip.stream(images, finish, color=color, batch_size=batch_size, errors=errors)


def _embedded(batch: EmbeddedBatch) -> list[Embedded]:
    return [Embedded(*result) for result in batch.in_order(batch.embeddings)]
