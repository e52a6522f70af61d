"""A classifier that holds its labels, and swaps them while others classify."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipdeploy
from clipdeploy.errors import ImageError, InputError, TextError
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.spec import Tower
from tests.bundles import make_bundle
from tests.runtime.pictures import noise

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

PICTURES = [noise(40 + 3 * i, 60 - 2 * i, seed=i) for i in range(7)]
ANIMALS = ["a dog", "a cat", "a bird"]
COLOURS = ["red", "green", "blue", "white", "black"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clip]:
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    with clipdeploy.load(folder, backend="onnxruntime", threads=1) as opened:
        yield opened


def test_it_answers_as_the_clip_does(clip: Clip) -> None:
    classifier = clip.classifier(ANIMALS, "the {}", top=2)
    assert classifier.labels == tuple(ANIMALS)
    assert classifier.templates == ("the {}",)
    assert classifier.top == 2
    assert "3 labels" in repr(classifier)
    one = clip.classify(PICTURES[0], ANIMALS, template="the {}", top=2)
    assert classifier.classify(PICTURES[0]) == classifier(PICTURES[0]) == one
    many = clip.classify(PICTURES, ANIMALS, template="the {}", top=2)
    assert classifier(PICTURES) == many
    assert classifier.classify_embeddings(clip.encode_image(PICTURES)) == many


def test_labels_are_embedded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = clip.classifier(["a fish", "a worm"])
    towers: list[Tower] = []
    real = Encoders.run

    def run(self: Encoders, tower: Tower, *given: Any, **named: Any) -> Any:
        towers.append(tower)
        return real(self, tower, *given, **named)

    monkeypatch.setattr(Encoders, "run", run)
    for _ in range(3):
        classifier.classify(PICTURES[0])
        clip.classify(PICTURES[0], ["a fish", "a worm"])
    assert towers == [Tower.IMAGE] * 6


def test_swapped_labels(clip: Clip) -> None:
    classifier = clip.classifier(ANIMALS, "the {}", top=3)
    classifier.swap(COLOURS)
    assert classifier.labels == tuple(COLOURS)
    assert classifier.templates == ("the {}",)
    assert classifier(PICTURES[0]) == clip.classify(PICTURES[0], COLOURS, template="the {}", top=3)
    classifier.swap(["up", "down"], "it goes {}", top=1)
    assert classifier(PICTURES[0]) == clip.classify(PICTURES[0], ["up", "down"], template="it goes {}", top=1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((["up", "down"],), InputError, r"top must be in 1\.\.2"),
        ((["up", "up", "down"],), TextError, "the same"),
        (([],), TextError, "empty"),
        ((ANIMALS, "no place"), TextError, "no {}"),
        ((["x" * 200, "y", "z"],), TextError, "too long"),
    ],
)
def test_a_swap_that_fails_changes_nothing(
    clip: Clip, given: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    classifier = clip.classifier(ANIMALS, "the {}", top=3)
    before = classifier(PICTURES[0])
    with pytest.raises(error, match=message):
        classifier.swap(*given)
    assert classifier.labels == tuple(ANIMALS)
    assert classifier(PICTURES[0]) == before


def test_an_answer_never_mixes_two_sets(clip: Clip) -> None:
    """Eight threads classify while labels are swapped: each answer is one of the two, whole."""
    expected = {
        tuple(sorted(labels)): clip.classify(PICTURES[0], labels, template=template)
        for labels, template in ((ANIMALS, "the {}"), (COLOURS, "{} all over"))
    }
    classifier = clip.classifier(ANIMALS, "the {}")
    stop = threading.Event()

    def work(_: int) -> set[tuple[str, ...]]:
        seen = set()
        while not stop.is_set():
            answer = classifier(PICTURES[0])
            key = tuple(sorted(answer.labels))
            assert answer == expected[key]
            seen.add(key)
        return seen

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, index) for index in range(8)]
        try:
            for index in range(200):
                labels, template = ((ANIMALS, "the {}"), (COLOURS, "{} all over"))[index % 2]
                classifier.swap(labels, template)
                time.sleep(0.002)
        finally:
            stop.set()
        seen = set().union(*(worker.result() for worker in workers))
    assert seen == set(expected)


def test_a_stream_takes_swapped_labels_from_the_next_batch_on(clip: Clip) -> None:
    classifier = clip.classifier(ANIMALS)
    results = classifier.classify_many(PICTURES, batch_size=3)
    sets = []
    for result in results:
        assert result.answer is not None
        sets.append(len(result.answer.labels))
        if result.index == 1:
            classifier.swap(COLOURS)
    assert sets == [3, 3, 3, 5, 5, 5, 5]


def test_classify_many(clip: Clip, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    given = [*PICTURES[:2], broken, *PICTURES[2:]]
    expected = clip.classify(PICTURES, ANIMALS, top=1)
    results = list(clip.classify_many(iter(given), ANIMALS, top=1, errors="report", batch_size=4))
    assert [result.index for result in results] == list(range(8))
    answers = [result.answer for result in results]
    assert answers.pop(2) is None
    assert [answer.label for answer in answers if answer] == [answer.label for answer in expected]
    assert results[2].source == broken
    assert "broken.jpg" in str(results[2].error)
    strict = clip.classify_many(given, ANIMALS, batch_size=4)
    assert [next(strict).index, next(strict).index] == [0, 1]
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        next(strict)
    with pytest.raises(InputError, match="report"):
        clip.classify_many(given, ANIMALS, errors="ignore")  # type: ignore[arg-type]
    with pytest.raises(TextError, match="empty"):
        clip.classify_many(given, [])


def test_encode_many(clip: Clip) -> None:
    results = list(clip.encode_many(iter(PICTURES), batch_size=3))
    assert [result.index for result in results] == list(range(7))
    rows = np.stack([result.embedding for result in results if result.embedding is not None])
    np.testing.assert_array_equal(rows, clip.encode_image(PICTURES, batch_size=3))
    assert list(clip.encode_many([])) == []
    assert list(clip.classify_many([], ANIMALS)) == []


@pytest.mark.parametrize("top", [0, 4, True])
def test_a_top_that_is_none(clip: Clip, top: Any) -> None:
    with pytest.raises(InputError, match=r"top must be in 1\.\.3"):
        clip.classifier(ANIMALS, top=top)
