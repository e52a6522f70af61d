"""Crops: those of the runtime, once, in bounded memory, past broken pictures, and gone afterwards."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import ImageError, InputError, OutputError
from clipdeploy.evaluate import crops as module
from clipdeploy.evaluate.crops import read_crops
from clipdeploy.evaluate.data import read_dataset
from clipdeploy.evaluate.records import Item
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec
from tests.evaluate.layouts import jpeg, pictures, tar, text

SPEC = PixelSpec(
    height=32, width=32, resize="shortest", interpolation="bicubic", mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
)


@pytest.fixture
def processor() -> Any:
    made = ImageProcessor(SPEC, workers=2)
    yield made
    made.close()


def items(*sources: Path | bytes) -> list[Item]:
    return [Item(f"picture {row}", lambda source=source: source) for row, source in enumerate(sources)]  # type: ignore[misc]


COLOURS = ("red", "lime", "blue", "white", "black", "gray", "pink")


def test_crops_are_those_of_the_runtime(processor: ImageProcessor) -> None:
    sources = [jpeg(colour, (40 + row, 50)) for row, colour in enumerate(COLOURS)]
    with read_crops(processor, items(*sources), batch_size=2) as crops:
        assert (crops.count, crops.rows, crops.skipped) == (7, tuple(range(7)), {})
        assert all(np.array_equal(crops.crop(row), processor.crop(sources[row])) for row in range(7))
        for _ in range(2):
            found = list(crops.batches(3))
            assert [rows.tolist() for rows, _ in found] == [[0, 1, 2], [3, 4, 5], [6]]
            assert np.array_equal(np.concatenate([pixels for _, pixels in found]), processor(sources))


def test_broken_pictures_are_left_out_with_their_reason(processor: ImageProcessor, tmp_path: Path) -> None:
    def torn() -> bytes:
        raise ImageError("0.tar ends within 5.jpg")

    broken = text(tmp_path / "broken.jpg", "no picture")
    given = [*items(jpeg("red"), b"", broken, jpeg("lime"), tmp_path / "gone.jpg", b"xx"), Item("torn", torn)]
    with read_crops(processor, [*given, *items(jpeg("blue"))], batch_size=3) as crops:
        assert crops.rows == (0, 3, 7)
        assert [np.argmax(crops.crop(row).mean(axis=(0, 1))) for row in range(3)] == [0, 1, 2]
        assert list(crops.skipped) == ["picture 1", "picture 2", "picture 4", "picture 5", "torn"]
        assert crops.skipped["picture 1"] == "the bytes of a picture are empty (0 bytes)"
        assert "is not an image that Pillow can read" in crops.skipped["picture 2"]
        assert "does not exist" in crops.skipped["picture 4"]
        assert crops.skipped["torn"] == "0.tar ends within 5.jpg"
        assert [rows.tolist() for rows, _ in crops.batches(2)] == [[0, 1], [2]]


def test_no_picture_at_all(processor: ImageProcessor) -> None:
    with pytest.raises(ImageError, match="not one of 2 pictures could be read"):
        read_crops(processor, items(b"", b"x"))


def test_a_dataset_of_files_and_one_of_shards_give_the_same(processor: ImageProcessor, tmp_path: Path) -> None:
    pictures(tmp_path / "files", ["cat/1.jpg", "dog/2.jpg"])
    tar(tmp_path / "x.tar", {"1.jpg": jpeg(), "1.cls": b"cat", "2.jpg": jpeg(), "2.cls": b"dog"})
    sides = [read_crops(processor, read_dataset(tmp_path / place).items) for place in ("files", "x.tar")]
    with sides[0], sides[1]:
        assert all(np.array_equal(sides[0].crop(row), sides[1].crop(row)) for row in range(2))


def test_progress_goes_from_none_to_all(processor: ImageProcessor) -> None:
    seen: list[tuple[str, int, int]] = []
    with read_crops(processor, items(*[jpeg()] * 5, b""), batch_size=2, progress=lambda *told: seen.append(told)):
        pass
    assert seen[0] == ("reading pictures", 0, 6)
    assert seen[-1] == ("reading pictures", 6, 6)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_closed_crops_say_so(processor: ImageProcessor) -> None:
    crops = read_crops(processor, items(jpeg()))
    crops.close()
    crops.close()
    with pytest.raises(InputError, match="the crops are closed"):
        next(crops.batches(1))


def held_in(folder: Path) -> set[str]:
    """What this process has open or mapped of a folder's files, with or without a name."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that the folder was listed by
            links.add(str(entry.readlink()))
    maps = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return {name for name in links | maps if name.startswith(str(folder))}


def ended_well(crops: Callable[[], Any]) -> None:
    crops().close()


def forgotten(crops: Callable[[], Any]) -> None:
    crops()


def broken_off(crops: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError), crops() as read:
        next(read.batches(1))
        raise RuntimeError


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", [ended_well, forgotten, broken_off])
def test_the_file_is_gone_afterwards(
    processor: ImageProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def read() -> Any:
        crops = read_crops(processor, items(jpeg(), jpeg()))
        assert held_in(tmp_path)
        return crops

    end(read)
    gc.collect()
    assert held_in(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_file_is_gone_when_reading_is_interrupted(
    processor: ImageProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def interrupt(_: str, done: int, __: int) -> None:
        if done >= 4:
            assert held_in(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_crops(processor, items(*[jpeg()] * 20), batch_size=2, progress=interrupt)
    assert held_in(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_first(processor: ImageProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    with pytest.raises(OutputError, match="0 MB are needed, and 50 MB are free") as caught:
        read_crops(processor, items(jpeg()))
    assert "TMPDIR" in str(caught.value.fix)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_runs_full(processor: ImageProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb", 0))  # noqa: SIM115
    with pytest.raises(OutputError, match="No space left"):
        read_crops(processor, items(jpeg()))


def test_memory_does_not_grow_with_the_pictures(processor: ImageProcessor) -> None:
    source = jpeg()
    tracemalloc.start()
    try:
        with read_crops(processor, items(*[source] * 1000), batch_size=16) as crops:
            for _ in crops.batches(16):
                pass
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert crops.count == 1000
    assert peak < 2e6  # the crops alone are 3 MB, their pixels 12 MB
