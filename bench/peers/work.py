"""The pictures and the texts of a run."""

from __future__ import annotations

from pathlib import Path

from bench.common import full_hd_jpeg
from bench.peers.turns import Work
from clipdeploy.pictures import find_pictures

BATCH, TEXT_BATCH, SINGLES = 8, 50, 8
_COLOURS = ("red", "green", "blue", "yellow", "black", "white", "brown", "grey", "orange", "pink")
_THINGS = ("dog", "cat", "car", "bicycle", "house", "tree", "boat", "chair", "bird", "cup")
_PLACES = (
    *("on the grass", "in the rain", "beside a river", "in front of a window", "on a table"),
    *("at night", "in the snow", "under a bridge", "behind a fence", "on a crowded street"),
)


def texts_of(count: int) -> list[str]:
    """That many different texts, as short as those of a zero-shot classifier and of captions."""
    every = [f"a photo of a {colour} {thing} {place}" for place in _PLACES for thing in _THINGS for colour in _COLOURS]
    return [every[i % len(every)] for i in range(count)]


def work_of(folder: Path, photos: Path | None, *, count: int, texts: int, rounds: int) -> Work:
    """The work of a run, its JPEGs of 1920x1080 written to `folder` when they are not there.

    Args:
        folder: of the JPEGs.
        photos: photographs that they are made of; None draws them.
        count: JPEGs; texts: texts; rounds: among which the texts are shared.
    """
    sources = find_pictures([photos], recursive=True) if photos else ()
    place = folder / ("drawn" if photos is None else photos.resolve().name)
    paths = [place / f"{i:03}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if not path.is_file():
            full_hd_jpeg(path, sources[i % len(sources)] if sources else None, seed=i)
    return Work(
        pictures=[str(path.resolve()) for path in paths],
        texts=texts_of(texts),
        batch=BATCH,
        text_batch=TEXT_BATCH,
        singles=min(SINGLES, count - 1),
        rounds=rounds,
    )
