"""Any number of pictures: order, faults, what is held, and what is left behind."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import BackendError, ImageError, InputError
from clipdeploy.runtime import ahead
from clipdeploy.runtime.ahead import crops_ahead
from clipdeploy.runtime.clip import Clip, load
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.many import embed_all, embed_batches, embed_many
from clipdeploy.runtime.pool import Pool, results
from tests.bundles import make_bundle, pixel_spec
from tests.runtime.pictures import noise

COUNTS = (0, 1, 7, 33, 1000)


@pytest.fixture
def processor() -> Iterator[ImageProcessor]:
    made = ImageProcessor(pixel_spec(), workers=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def thousand() -> list[np.ndarray]:
    """1,000 different pictures."""
    return [noise(33 + i % 7, 34, seed=i) for i in range(1000)]


def encode(pixels: np.ndarray) -> np.ndarray:
    """An encoder whose (N, 4) embeddings tell one picture from another."""
    few: np.ndarray = pixels[:, :2, :2, 5].reshape(len(pixels), 4).copy()
    return few


def expected(processor: ImageProcessor, pictures: list[Any]) -> np.ndarray:
    rows = [encode(processor.normalize(processor.crop(picture)[None])) for picture in pictures]
    return np.concatenate([np.empty((0, 4), np.float32), *rows])


def write_broken(path: Path) -> Path:
    path.write_bytes(b"\xff\xd8 no jpeg at all")
    return path


@pytest.mark.parametrize("count", COUNTS)
def test_every_picture_in_order(processor: ImageProcessor, thousand: list[np.ndarray], count: int) -> None:
    pictures = thousand[:count]
    found = list(embed_many(encode, processor, pictures, batch_size=32))
    assert [result.index for result in found] == list(range(count))
    assert all(result.error is None and result.source is None for result in found)
    wanted = expected(processor, pictures)
    np.testing.assert_array_equal(embed_all(encode, processor, iter(pictures), batch_size=32), wanted)
    for result, row in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(result.embedding, row)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 40])
@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_as_large_as_asked_for(
    processor: ImageProcessor, thousand: list[np.ndarray], batch_size: int, lazy: bool
) -> None:
    pictures = iter(thousand[:33]) if lazy else thousand[:33]
    sizes = [len(crops.pixels) for crops in crops_ahead(processor, pictures, batch_size=batch_size)]
    assert sizes == [batch_size] * (33 // batch_size) + [33 % batch_size] * (33 % batch_size > 0)


def test_crops_are_bytes_or_pixels(processor: ImageProcessor, thousand: list[np.ndarray]) -> None:
    (pixels,) = crops_ahead(processor, thousand[:5])
    (crops,) = crops_ahead(processor, thousand[:5], normalised=False)
    assert crops.pixels.shape == (5, 32, 32, 3)
    assert crops.pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.pixels, processor.normalize(crops.pixels))
    np.testing.assert_array_equal(pixels.pixels, processor(thousand[:5]))


def test_a_list_that_gives_more_than_it_says(processor: ImageProcessor, thousand: list[np.ndarray]) -> None:
    class Liar(list[Any]):
        def __len__(self) -> int:
            return 1

    assert sum(len(crops.pixels) for crops in crops_ahead(processor, Liar(thousand[:100]), batch_size=8)) == 100


def test_a_broken_picture_among_a_thousand_is_reported(
    processor: ImageProcessor, thousand: list[np.ndarray], tmp_path: Path
) -> None:
    broken = write_broken(tmp_path / "broken.jpg")
    pictures: list[Any] = [*thousand[:500], broken, *thousand[500:999]]
    found = list(embed_many(encode, processor, pictures, errors="report"))
    assert [result.index for result in found] == list(range(1000))
    (bad,) = [result for result in found if result.error is not None]
    assert (bad.index, bad.source, bad.embedding) == (500, broken, None)
    assert str(broken) in bad.error.message  # type: ignore[union-attr]
    good = np.stack([result.embedding for result in found if result.embedding is not None])
    np.testing.assert_array_equal(good, expected(processor, thousand[:999]))


def test_a_broken_picture_is_raised_after_those_before_it(processor: ImageProcessor, tmp_path: Path) -> None:
    broken = write_broken(tmp_path / "broken.jpg")
    found = []
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        for result in embed_many(
            encode, processor, [noise(40, 40)] * 17 + [broken] + [noise(40, 40)] * 9, batch_size=8
        ):
            found.append(result.index)
    assert found == list(range(17))
    with pytest.raises(ImageError, match=r"^picture 17: an array of float64"):
        embed_all(encode, processor, [noise(40, 40)] * 17 + [np.zeros((4, 4))], batch_size=8)


def test_nothing_but_broken_pictures(processor: ImageProcessor) -> None:
    found = list(embed_many(encode, processor, [b"x", b"", np.zeros(3)], errors="report", batch_size=2))
    assert [(result.index, result.embedding) for result in found] == [(0, None), (1, None), (2, None)]
    assert [str(result.error)[:10] for result in found] == ["picture 0:", "picture 1:", "picture 2:"]
    with pytest.raises(ImageError, match="picture 0"):
        list(embed_many(encode, processor, [b"x"] * 3))


def test_an_exception_of_the_source_comes_at_its_place(processor: ImageProcessor) -> None:
    def source() -> Iterator[Any]:
        yield from [noise(40, 40)] * 11
        raise ZeroDivisionError("camera")

    found = []
    with pytest.raises(ZeroDivisionError, match="camera"):
        for result in embed_many(encode, processor, source(), batch_size=4):
            found.append(result.index)
    assert found == list(range(11))


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_an_exception_of_the_encoder_ends_it(processor: ImageProcessor, failing: int) -> None:
    calls = itertools.count()

    def fails(pixels: np.ndarray) -> np.ndarray:
        if next(calls) == failing:
            raise BackendError("no memory")
        return encode(pixels)

    found = embed_many(fails, processor, [noise(40, 40)] * 32, batch_size=4)
    with pytest.raises(BackendError, match="no memory"):
        list(found)
    assert list(found) == []


def test_an_endless_source_is_taken_two_batches_at_a_time(processor: ImageProcessor) -> None:
    pulled = 0
    threads = set()

    def source() -> Iterator[Any]:
        nonlocal pulled
        for seed in itertools.count():
            pulled += 1
            threads.add(threading.get_ident())
            yield noise(40, 40, seed=seed % 5)

    with closing(embed_many(encode, processor, source(), batch_size=8)) as found:
        for result in itertools.islice(found, 100):
            assert pulled <= (result.index // 8 + 1) * 8 + 8
    assert threads == {threading.get_ident()}
    before = pulled
    time.sleep(0.05)
    assert pulled == before
    assert list(found) == []


def test_a_slow_source_is_not_waited_for(processor: ImageProcessor) -> None:
    """Four pictures from a camera are answered before it is asked for the fifth."""
    pulled = 0

    def camera() -> Iterator[Any]:
        nonlocal pulled
        for seed in range(12):
            time.sleep(0.05)
            pulled += 1
            yield noise(40, 40, seed=seed)

    with closing(embed_many(encode, processor, camera(), batch_size=4)) as found:
        assert next(found).index == 0
        assert pulled == 4


def test_the_encoder_runs_in_the_callers_thread_while_the_next_batch_is_cropped(
    processor: ImageProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "SLOW_SOURCE_S", 1e9)
    cropping, overlapped = threading.Event(), []

    def crop(image: Any, *, color: str = "rgb") -> np.ndarray:
        if image == b"second":
            cropping.set()
        return np.zeros((32, 32, 3), np.uint8)

    def waits(pixels: np.ndarray) -> np.ndarray:
        overlapped.append(cropping.wait(10))
        assert threading.current_thread() is threading.main_thread()
        return encode(pixels)

    monkeypatch.setattr(processor, "crop", crop)
    list(embed_batches(waits, processor, [b"first"] * 4 + [b"second"] * 4, batch_size=4))
    assert overlapped == [True, True]


def test_what_is_held(processor: ImageProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of pixels, and no picture once it is cropped; before, as many as fit the limit and one more."""
    frame_bytes = noise(40, 40).nbytes
    monkeypatch.setattr(ahead, "_WAITING_BYTES", 2 * frame_bytes)
    frames, batches = Alive(), Alive()

    def source() -> Iterator[Any]:
        for seed in range(64):
            yield frames.add(noise(40, 40, seed=seed).view(Frame))

    def counts(pixels: np.ndarray) -> np.ndarray:
        batches.add(pixels.base)
        return encode(pixels)

    results_ = list(embed_many(counts, processor, source(), batch_size=8))
    assert len(results_) == 64
    assert 1 <= frames.most <= 5  # two that wait, one more, one that was just made, one that a thread is dropping
    assert 1 <= batches.most <= 2
    del results_
    gc.collect()
    assert (frames.now, batches.now) == (0, 0)


class Frame(np.ndarray):
    """An array that can be watched."""


class Alive:
    """How many of the objects that were added are alive, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def add(self, thing: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        weakref.finalize(thing, self._gone)
        return thing

    def _gone(self) -> None:
        with self._lock:
            self.now -= 1


def test_a_reported_picture_is_not_held(processor: ImageProcessor) -> None:
    frames = Alive()

    def source() -> Iterator[Any]:
        for _ in range(6):
            yield frames.add(np.zeros((4, 4)).view(Frame))

    found = list(embed_many(encode, processor, source(), errors="report"))
    assert all(result.error is not None for result in found)
    assert frames.now == 0


def test_one_lazy_picture_many_times(processor: ImageProcessor, tmp_path: Path) -> None:
    """Pillow reads a file when its picture is first used, and not for two threads at once."""
    Image.fromarray(noise(300, 300)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        rows = embed_all(encode, processor, [image] * 12)
    assert np.array_equal(rows, np.repeat(rows[:1], 12, axis=0))


def test_early_close_stops_the_work(processor: ImageProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    before, begun, crop = picture_threads(), itertools.count(), processor.crop

    def slow(image: Any, *, color: str = "rgb") -> np.ndarray:
        next(begun)
        time.sleep(0.02)
        return crop(image, color=color)

    monkeypatch.setattr(processor, "crop", slow)
    found = embed_many(encode, processor, [noise(40, 40)] * 500, batch_size=32)
    next(found)
    found.close()
    count = next(begun)
    assert count < 64
    time.sleep(0.1)
    assert next(begun) == count + 1
    processor.close()
    assert picture_threads() == before


def picture_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipdeploy-picture")]


def test_a_dropped_iterator_and_processor_leave_no_thread() -> None:
    before = len(picture_threads())
    processor = ImageProcessor(pixel_spec(), workers=3)
    next(embed_many(encode, processor, [noise(40, 40)] * 50, batch_size=4))
    assert len(picture_threads()) > before
    del processor
    gc.collect()
    deadline = time.monotonic() + 10
    while len(picture_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(picture_threads()) == before


def test_the_threads_are_kept_between_calls(processor: ImageProcessor, thousand: list[np.ndarray]) -> None:
    processor(thousand[:20])
    before = {thread.ident for thread in threading.enumerate()}
    for _ in range(3):
        processor(thousand[:20])
        list(embed_many(encode, processor, thousand[:20]))
    assert {thread.ident for thread in threading.enumerate()} == before


def test_many_threads_at_once(processor: ImageProcessor, thousand: list[np.ndarray]) -> None:
    wanted, answers = expected(processor, thousand[:60]), [None] * 8

    def work(place: int) -> None:
        answers[place] = embed_all(encode, processor, thousand[:60], batch_size=place + 1)  # type: ignore[call-overload]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: embed_many(encode, p, [], errors="ignore"), "raise"),  # type: ignore[arg-type]
        (lambda p: embed_many(encode, p, [], color="gbr"), "bgr"),
        (lambda p: embed_many(encode, p, [], batch_size=0), "batch_size"),
        (lambda p: embed_many(encode, p, "a.jpg"), "any number of pictures"),
        (lambda p: embed_many(encode, p, noise(40, 40)), "any number of pictures"),
        (lambda p: embed_many(encode, p, 3), "a picture or several"),  # type: ignore[arg-type]
        (lambda p: crops_ahead(p, [], batch_size=True), "batch_size"),
        (lambda p: embed_all(encode, p, noise(40, 40), batch_size=0), "batch_size"),
    ],
)
def test_wrong_arguments_are_told_at_once(
    processor: ImageProcessor, call: Callable[[ImageProcessor], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(processor)


def test_a_pool_that_is_closed_meanwhile() -> None:
    pool, go = Pool(1, "test"), threading.Event()
    waiting: list[Future[Any]] = [pool.submit(go.wait, 10), pool.submit(int, "1")]
    closing_ = threading.Thread(target=pool.close)
    closing_.start()
    while not waiting[1].cancelled():
        time.sleep(0.001)
    go.set()
    with pytest.raises(BackendError, match="closed"):
        results(waiting)
    closing_.join()
    with pytest.raises(BackendError, match="closed"):
        pool.submit(int, "7")
    pool.close()


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from clipdeploy.runtime.clip import Clip, load
from clipdeploy.runtime.image import ImageProcessor
from tests.bundles import make_bundle, pixel_spec
processor = ImageProcessor(pixel_spec(), workers=2)
pictures = [np.full((40, 40, 3), i, np.uint8) for i in range(8)]
before = processor(pictures)
processor.pool._lock.acquire()  # as if another thread held it
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(processor(pictures), before) else 1)
processor.pool._lock.release()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not np.array_equal(processor(pictures), before))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_a_forked_child_makes_its_own_threads() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clip]:
    with load(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), backend="onnxruntime", threads=2) as opened:
        yield opened


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lazy", [False, True])
def test_any_number_through_a_bundle(clip: Clip, thousand: list[np.ndarray], count: int, lazy: bool) -> None:
    def pictures() -> Any:
        return iter(thousand[:count]) if lazy else thousand[:count]

    embeds = clip.encode_image(pictures())
    assert embeds.shape == (count, 16)
    found = list(clip.encode_many(pictures()))
    assert [result.index for result in found] == list(range(count))
    answers = [result.answer for result in clip.classify_many(pictures(), ["a dog", "a cat"])]
    for one, other in zip(answers, clip.classify(pictures(), ["a dog", "a cat"]), strict=True):
        assert one is not None
        assert one.labels == other.labels
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-9)
    for row, result in zip(embeds, found, strict=True):
        np.testing.assert_array_equal(result.embedding, row)
    for index in {0, count // 2, count - 1} & set(range(count)):
        np.testing.assert_allclose(clip.encode_image(thousand[index])[0], embeds[index], rtol=0, atol=1e-6)


def test_a_broken_file_among_a_thousand_through_a_bundle(
    clip: Clip, thousand: list[np.ndarray], tmp_path: Path
) -> None:
    broken = write_broken(tmp_path / "broken.jpg")
    pictures: list[Any] = [*thousand[:700], broken, *thousand[701:]]
    for found in (
        list(clip.encode_many(pictures, errors="report")),
        list(clip.classify_many(pictures, ["a dog", "a cat"], errors="report")),
    ):
        assert [result.index for result in found] == list(range(1000))
        (bad,) = [result for result in found if result.error is not None]
        assert (bad.index, bad.source) == (700, broken)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        clip.encode_image(pictures)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        clip.classify(iter(pictures), ["a dog", "a cat"])


def test_a_closed_clip_has_no_threads(tmp_path: Path, thousand: list[np.ndarray]) -> None:
    before = picture_threads()
    with load(make_bundle(tmp_path / "tiny"), backend="onnxruntime", threads=2) as opened:
        found = opened.encode_many(itertools.cycle(thousand), batch_size=4)
        next(found)
        assert len(picture_threads()) > len(before)
    with pytest.raises(BackendError, match="closed"):
        list(found)
    assert picture_threads() == before
