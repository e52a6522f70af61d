"""Labelled picture files and caption files of the demo world, for calibration, evaluation and demonstrations."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdeploy.demo.captions import caption, class_name
from clipdeploy.demo.paint import render
from clipdeploy.demo.world import HELD_OUT, MAX_THINGS, PAIRS, SAMPLE_STREAM, SEEN, sample_scene
from clipdeploy.errors import InputError, OutputError

CANVASES = ((320, 240), (240, 320), (256, 256), (480, 270))
_SPLITS = {"held-out": HELD_OUT, "seen": SEEN, "all": PAIRS}


@dataclass(frozen=True, slots=True)
class WrittenImages:
    """Where labelled pictures went: `paths` and `labels` (such as "red circle") side by side."""

    folder: Path
    paths: tuple[Path, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrittenCaptions:
    """Where captioned pictures went; `table` is the tab-separated file with a row a caption."""

    folder: Path
    table: Path
    paths: tuple[Path, ...]
    captions: tuple[str, ...]


def pairs_of(split: str) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs of "held-out", "seen" or "all"."""
    if split not in _SPLITS:
        raise InputError(f"unknown split {split!r}", fix=f"use one of {', '.join(_SPLITS)}")
    return _SPLITS[split]


def _canvases(size: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    return CANVASES if size is None else (size,)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error}", fix="choose a writable path") from error


def write_images(
    folder: str | Path,
    *,
    count: int = 96,
    split: str = "held-out",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    clear: bool = False,
    quality: int = 92,
) -> WrittenImages:
    """`count` JPEG files with one object each, in a folder a class: `folder/red_circle/0000.jpg`.

    Classes take turns, so any `count` is balanced to within one. `size` is (width, height) in px; by default the
    canvases of `CANVASES` take turns, landscape, portrait and square. `clear` leaves out dark, bright, blurry and
    grainy pictures. The same arguments write the same pictures.

    Raises:
        InputError: an unknown split or a count below 1. OutputError: the folder cannot be made.
    """
    pairs = pairs_of(split)
    if count < 1:
        raise InputError(f"{count} pictures were asked for", fix="ask for 1 or more")
    folder = Path(folder)
    sizes = _canvases(size)
    paths: list[Path] = []
    labels: list[str] = []
    for i in range(count):
        turn, pair = i // len(pairs), pairs[i % len(pairs)]
        rng = np.random.default_rng([SAMPLE_STREAM, seed, PAIRS.index(pair), turn])
        picture = render(sample_scene(rng, pair=pair, clear=clear), sizes[(i + turn) % len(sizes)])
        path = folder / "_".join(pair) / f"{turn:04d}.jpg"
        _make_folder(path.parent)
        picture.save(path, quality=quality)
        paths.append(path)
        labels.append(class_name(pair))
    return WrittenImages(folder, tuple(paths), tuple(labels))


def write_captions(
    folder: str | Path,
    *,
    count: int = 64,
    per_image: int = 2,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    quality: int = 92,
) -> WrittenCaptions:
    """`count` JPEG files of one to three objects, and `captions.tsv` with the columns `image` and `caption`.

    A picture has `per_image` rows. Only pairs that training may see are shown; the scenes themselves are new.

    Raises:
        InputError: a count below 1. OutputError: the folder cannot be made.
    """
    if count < 1 or per_image < 1:
        raise InputError(f"{count} pictures of {per_image} captions were asked for", fix="ask for 1 or more of each")
    folder = Path(folder)
    _make_folder(folder / "images")
    sizes = _canvases(size)
    rows: list[tuple[Path, str]] = []
    for i in range(count):
        rng = np.random.default_rng([SAMPLE_STREAM, seed, len(PAIRS), i])
        scene = sample_scene(rng, things=1 + i % MAX_THINGS)
        path = folder / "images" / f"{i:05d}.jpg"
        render(scene, sizes[i % len(sizes)]).save(path, quality=quality)
        rows += [(path, caption(rng, scene)[0]) for _ in range(per_image)]
    table = folder / "captions.tsv"
    beside = table.with_name(table.name + ".part")
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("image", "caption"))
        writer.writerows((path.relative_to(folder).as_posix(), text) for path, text in rows)
    beside.replace(table)
    return WrittenCaptions(folder, table, tuple(path for path, _ in rows), tuple(text for _, text in rows))


def class_names(pairs: Sequence[tuple[str, str]] = PAIRS) -> tuple[str, ...]:
    """("red circle", "red square", ...), the labels of a zero-shot classifier of this world."""
    return tuple(class_name(pair) for pair in pairs)
