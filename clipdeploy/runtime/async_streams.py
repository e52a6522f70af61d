"""Any number of pictures through the encoder, from any iterable or async iterable, for asyncio.

A stream has a thread of its own, in which it waits for pictures and runs the encoder, so that a slow source holds up
nobody else. It ends with the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from clipdeploy.runtime.ahead import CropsAhead
from clipdeploy.runtime.image import ImageLike
from clipdeploy.runtime.many import EmbeddedBatch, Encode, Errors, embed_crops

T = TypeVar("T")
Finish = Callable[[EmbeddedBatch], list[T]]
"""A batch of embeddings to the results of its pictures."""

# A source that takes longer than this for the next picture is not waited for where a batch is whole.
_SLOW_S = 0.002


async def from_iterable(batches: Generator[EmbeddedBatch, None, None], finish: Finish[T]) -> AsyncGenerator[T, None]:
    """The results of every batch, each made when it is asked for; the pictures of the next are opened meanwhile."""
    async with _own_thread(batches.close) as thread:
        while (results := await _call(thread, _next, batches, finish)) is not None:
            for result in results:
                yield result


async def from_async_iterable(
    images: AsyncIterable[ImageLike],
    ahead: CropsAhead,
    encode: Encode,
    errors: Errors,
    finish: Finish[T],
) -> AsyncGenerator[T, None]:
    """As `from_iterable`; a whole batch does not wait long for the next picture.

    What `images` raises comes after the results of the pictures before it. It is read in one task of its own, which
    is cancelled when the stream ends early.
    """
    queue: asyncio.Queue[ImageLike] = asyncio.Queue(1)
    async with _own_thread(ahead.close) as thread, _task(_read(images, queue)) as reading:
        taken = partial(_taken, thread, ahead, encode, errors, finish)
        while not (reading.done() and queue.empty()):
            async with _task(queue.get()) as getting:
                while not (getting.done() or (reading.done() and queue.empty())):
                    came, _ = await asyncio.wait(
                        {reading, getting},
                        timeout=_SLOW_S if ahead.whole else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    while ahead.due or (ahead.whole and not came):
                        async for result in taken():
                            yield result
                if getting.done():
                    await _call(thread, ahead.submit, getting.result())
        while ahead.pending:
            async for result in taken():
                yield result
        reading.result()  # raises what the source raised


async def _read(images: AsyncIterable[ImageLike], queue: asyncio.Queue[ImageLike]) -> None:
    async for image in images:
        await queue.put(image)


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """A task, which is over at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _taken(
    thread: _Thread, ahead: CropsAhead, encode: Encode, errors: Errors, finish: Finish[T]
) -> AsyncGenerator[T, None]:
    """The results of the oldest batch."""
    results, broken = await _call(thread, _take, ahead, encode, errors, finish)
    for result in results:
        yield result
    if broken is not None:
        raise broken


def _next(batches: Generator[EmbeddedBatch, None, None], finish: Finish[T]) -> list[T] | None:
    batch = next(batches, None)
    return None if batch is None else finish(batch)


def _take(ahead: CropsAhead, encode: Encode, errors: Errors, finish: Finish[T]) -> tuple[list[T], Exception | None]:
    batch, broken = embed_crops(encode, errors, ahead.take())
    return finish(batch), broken


class _Thread:
    """One thread, and what it does now."""

    def __init__(self) -> None:
        self.executor: Executor = ThreadPoolExecutor(1, thread_name_prefix="clipdeploy-stream")
        self.current: Future[Any] | None = None


@asynccontextmanager
async def _own_thread(close: Callable[[], None]) -> AsyncIterator[_Thread]:
    """A thread; at the end it calls `close`. Whoever was cancelled while it worked does not wait for that."""
    thread = _Thread()
    try:
        yield thread
    finally:
        working = thread.current is not None and not thread.current.done()
        closing = thread.executor.submit(close)
        thread.executor.shutdown(wait=False)
        if not working:
            await asyncio.shield(asyncio.wrap_future(closing))


async def _call(thread: _Thread, call: Callable[..., T], *arguments: Any) -> T:
    future = thread.executor.submit(call, *arguments)
    thread.current = future
    return await asyncio.wrap_future(future)
