"""A Clip for asyncio: the same answers, a free event loop, and streams that end cleanly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipdeploy
from clipdeploy.errors import BackendError, ImageError, InputError, TextError
from clipdeploy.runtime import encoders as encoders_module
from clipdeploy.runtime.clip import Clip
from tests.bundles import EMBED_DIM, make_bundle
from tests.runtime.fake_session import FakeSession
from tests.runtime.pictures import noise

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

PICTURES = [noise(40 + 3 * i, 60 - 2 * i, seed=i) for i in range(7)]
LABELS = ["a dog", "a cat", "a bird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def clip(folder: Path) -> Iterator[Clip]:
    with clipdeploy.load(folder, backend="onnxruntime") as opened:
        yield opened


def streams() -> list[str]:
    """The threads of streams that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipdeploy-stream")]


async def no_streams() -> None:
    """Returns once no stream has a thread; that takes a moment."""
    for _ in range(500):
        if not streams():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still there: {streams()}")


async def slowly(pictures: list[Any]) -> AsyncIterator[Any]:
    for picture in pictures:
        await asyncio.sleep(0)
        yield picture


def test_the_same_answers(clip: Clip) -> None:
    async def all_of_them() -> None:
        aio = clip.aio
        assert aio.clip is clip
        pixels = clip.images(PICTURES)
        np.testing.assert_array_equal(await aio.encode_image(PICTURES), clip.encode_image(PICTURES))
        np.testing.assert_array_equal(await aio.encode_pixels(pixels), clip.encode_pixels(pixels))
        np.testing.assert_array_equal(await aio.encode_text(LABELS), clip.encode_text(LABELS))
        np.testing.assert_array_equal(await aio.encode_labels(LABELS, "openai"), clip.encode_labels(LABELS, "openai"))
        np.testing.assert_array_equal(await aio.similarity(PICTURES, LABELS), clip.similarity(PICTURES, LABELS))
        assert await aio.classify(PICTURES[0], LABELS, top=2) == clip.classify(PICTURES[0], LABELS, top=2)
        assert await aio.classify(PICTURES, LABELS) == clip.classify(PICTURES, LABELS)
        classifier = await aio.classifier(LABELS, "the {}")
        assert await classifier(PICTURES[0]) == clip.classify(PICTURES[0], LABELS, template="the {}")
        await classifier.swap(["up", "down"])
        assert classifier.labels == ("up", "down")
        answers = [result.answer async for result in classifier.classify_many(PICTURES)]
        assert answers == clip.classify(PICTURES, ["up", "down"], template="the {}")

    asyncio.run(all_of_them())


def test_errors_arrive(clip: Clip, tmp_path: Path) -> None:
    async def all_of_them() -> None:
        with pytest.raises(ImageError, match="does not exist"):
            await clip.aio.encode_image(tmp_path / "nowhere.jpg")
        with pytest.raises(TextError, match="empty"):
            await clip.aio.classify(PICTURES[0], [])
        with pytest.raises(TextError, match="empty"):
            async for _ in clip.aio.classify_many(PICTURES, []):
                pass
        for wrong in ({"errors": "ignore"}, {"color": "gbr"}, {"batch_size": 0}):
            for given in (PICTURES, slowly(PICTURES)):
                with pytest.raises(InputError):
                    clip.aio.encode_many(given, **wrong)  # type: ignore[arg-type]

    asyncio.run(all_of_them())


@pytest.mark.parametrize("kind", [list, iter, slowly])
@pytest.mark.parametrize("size", [1, 3, 32])
def test_streams_keep_the_order(clip: Clip, kind: Any, size: int) -> None:
    async def both() -> None:
        rows = [result async for result in clip.aio.encode_many(kind(PICTURES), batch_size=size)]
        assert [result.index for result in rows] == list(range(7))
        expected = clip.encode_image(PICTURES, batch_size=size)
        np.testing.assert_array_equal(np.stack([r.embedding for r in rows if r.embedding is not None]), expected)
        answers = [r.answer async for r in clip.aio.classify_many(kind(PICTURES), LABELS, top=1, batch_size=size)]
        assert answers == [r.answer for r in clip.classify_many(PICTURES, LABELS, top=1, batch_size=size)]
        assert [result async for result in clip.aio.encode_many(kind([]), batch_size=size)] == []
        await no_streams()

    asyncio.run(both())


@pytest.mark.parametrize("kind", [list, slowly])
def test_a_broken_picture_in_a_stream(clip: Clip, kind: Any) -> None:
    given = [*PICTURES[:4], b"not a picture", *PICTURES[4:]]

    async def both() -> None:
        reported = [r async for r in clip.aio.encode_many(kind(given), batch_size=3, errors="report")]
        assert [r.index for r in reported if r.error is not None] == [4]
        assert len(reported) == 8
        seen = []
        with pytest.raises(ImageError, match="picture 4"):
            async for result in clip.aio.encode_many(kind(given), batch_size=3):
                seen.append(result.index)
        assert seen == [0, 1, 2, 3]
        await no_streams()

    asyncio.run(both())


def test_what_the_source_raises_comes_in_its_turn(clip: Clip) -> None:
    def camera() -> Iterator[Any]:
        yield from PICTURES[:4]
        raise OSError("unplugged")

    async def camera_async() -> AsyncIterator[Any]:
        for picture in PICTURES[:4]:
            yield picture
        raise OSError("unplugged")

    async def both() -> None:
        for source in (camera(), camera_async()):
            seen = []
            with pytest.raises(OSError, match="unplugged"):
                async for result in clip.aio.encode_many(source, batch_size=3):
                    seen.append(result.index)
            assert seen == [0, 1, 2, 3]
        await no_streams()

    asyncio.run(both())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_stream_reads_no_further_than_it_must(clip: Clip, asynchronous: bool) -> None:
    """Two batches, and for an async source one picture that is read and one that is handed over."""
    taken: list[int] = []
    most = 2 + max(2, clip.images.workers) + 2 + 2

    def endless() -> Iterator[Any]:
        while True:
            taken.append(len(taken))
            yield PICTURES[0]

    async def endless_async() -> AsyncIterator[Any]:
        for picture in endless():
            yield picture

    async def some() -> None:
        source: Any = endless_async() if asynchronous else endless()
        async with aclosing(clip.aio.encode_many(source, batch_size=2)) as results:
            async for result in results:
                assert len(taken) - result.index <= most
                if result.index == 50:
                    break
        await no_streams()

    asyncio.run(some())
    assert len(taken) <= 50 + most


def test_a_cancelled_task_leaves_nothing(clip: Clip) -> None:
    """Cancelled where it waits for a picture, and where it waits for the encoder."""
    stopped: list[str] = []

    async def never() -> AsyncIterator[Any]:
        try:
            yield PICTURES[0]
            await asyncio.sleep(3600)
        finally:
            stopped.append("source")

    def endless() -> Iterator[Any]:
        while True:
            yield PICTURES[0]

    async def consume(source: Any, seen: list[int]) -> None:
        async for result in clip.aio.encode_many(source, batch_size=1):
            seen.append(result.index)

    async def cancel() -> None:
        for source in (never(), endless()):
            seen: list[int] = []
            task = asyncio.create_task(consume(source, seen))
            while not seen:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)
            await no_streams()
        assert stopped == ["source"]

    asyncio.run(cancel())


def test_the_loop_stays_free(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(takes_s=0.2)
    monkeypatch.setattr(encoders_module, "open_encoder", lambda *given, **options: session)

    async def both() -> int:
        with clipdeploy.load(folder, backend="onnxruntime") as clip:
            work = asyncio.gather(*(clip.aio.encode_image(PICTURES[0]) for _ in range(3)))
            ticks = 0
            while not work.done():
                await asyncio.sleep(0.005)
                ticks += 1
            assert [rows.shape for rows in await work] == [(1, EMBED_DIM)] * 3
            return ticks

    assert asyncio.run(both()) >= 10
    assert session.most_running > 1


def test_a_task_that_waits_in_vain_never_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(takes_s=0.1)
    monkeypatch.setattr(encoders_module, "open_encoder", lambda *given, **options: session)

    async def cancel() -> None:
        with clipdeploy.load(folder, backend="onnxruntime") as clip:
            tasks = [asyncio.create_task(clip.aio.encode_image(PICTURES[0])) for _ in range(50)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in done)
        assert len(session.batches) <= 8

    asyncio.run(cancel())


def test_closing_while_tasks_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait are told that the Clip is closed; it is not as if they were cancelled."""
    session = FakeSession(takes_s=0.05)
    monkeypatch.setattr(encoders_module, "open_encoder", lambda *given, **options: session)

    async def close() -> list[Any]:
        async with clipdeploy.load(folder, backend="onnxruntime").aio as aio:
            tasks = [asyncio.create_task(aio.encode_image(PICTURES[0])) for _ in range(30)]
            endless = asyncio.create_task(drain(aio.encode_many(slowly(PICTURES * 100), batch_size=1)))
            await asyncio.sleep(0.1)
        return await asyncio.wait_for(asyncio.gather(endless, *tasks, return_exceptions=True), 10)

    async def drain(results: Any) -> None:
        async for _ in results:
            pass

    began = time.monotonic()
    done = asyncio.run(close())
    assert time.monotonic() - began < 5
    assert session.closed == 1
    failed = [one for one in done if not isinstance(one, np.ndarray)]
    assert len(failed) > 10
    assert isinstance(done[0], BackendError)
    assert all(isinstance(one, BackendError) and "closed" in one.message for one in failed)
