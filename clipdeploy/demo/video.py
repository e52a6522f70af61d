"""A video of the demo world with its ground truth: objects enter, cross, rest and leave while the light changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipdeploy.demo.captions import class_name
from clipdeploy.demo.paint import render, thing_mask
from clipdeploy.demo.world import PAIRS, VIDEO_STREAM, Backdrop, Camera, Scene, Thing, sample_backdrop, sample_thing
from clipdeploy.errors import InputError, OutputError

_VISIBLE_SHARE = 0.02  # of its own area an object must show, to be called visible


@dataclass(frozen=True, slots=True)
class Actor:
    """One object's visit: it slides in from a side, rests off the centre line, and slides out at the other."""

    thing: Thing
    starts_s: float
    lasts_s: float
    heading: float  # radians
    rest: tuple[float, float]  # where it is half-way, short sides from the centre

    def at(self, time_s: float, far: float) -> Thing | None:
        """The object at a time, `far` short sides from the centre when it begins; None before and after."""
        part = (time_s - self.starts_s) / self.lasts_s
        if not 0.0 <= part < 1.0:
            return None
        # fast at both ends, slow in the middle
        along = (2.0 * part - 1.0) ** 3 * far
        x, y = self.rest[0] + along * cos(self.heading), self.rest[1] + along * sin(self.heading)
        return replace(self.thing, x=x, y=y)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in a frame. `light` is the exposure, 1.0 ordinary; boxes are (left, top, right, bottom) in px."""

    index: int
    time_s: float
    light: float
    objects: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """One line of `truth.jsonl`."""
        return {
            "frame": self.index,
            "time_s": round(self.time_s, 4),
            "light": round(self.light, 4),
            "labels": [one["label"] for one in self.objects],
            "objects": list(self.objects),
        }


@dataclass(frozen=True, slots=True)
class WrittenVideo:
    """Where a video went: a folder of JPEG frames, `truth.jsonl`, and an animated GIF when one was asked for."""

    folder: Path
    frames: tuple[Path, ...]
    truth: Path
    gif: Path | None


def _actors(
    rng: np.random.Generator, seconds: float, pairs: tuple[tuple[str, str], ...], alone: bool
) -> tuple[Actor, ...]:
    """Visits of 2 to 4 s, with the centre free at the very start.

    A new one comes about every 1.6 s, whoever is there; `alone`, it waits for the last one to go and 1 to 2 s more.
    """
    found: list[Actor] = []
    time_s = float(rng.uniform(0.2, 0.6))
    while time_s < seconds:
        pair = pairs[int(rng.integers(len(pairs)))]
        heading = float(rng.uniform(0, 2 * pi))
        rest = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2)))
        thing = sample_thing(rng, pair=pair, radius=(0.15, 0.26))
        thing = replace(thing, size="small" if thing.radius < 0.2 else "large")
        lasts_s = float(rng.uniform(2.0, 4.0))
        found.append(Actor(thing, time_s, lasts_s, heading, rest))
        time_s += lasts_s + float(rng.uniform(1.0, 2.0)) if alone else float(rng.uniform(1.0, 2.2))
    return tuple(found)


def _visible(things: list[Thing], size: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """Label, box and share shown of each object that is not outside or behind another."""
    width, height = size
    free = np.ones((height, width), bool)
    found: list[dict[str, Any]] = []
    for thing in reversed(things):  # the front first
        area = thing_mask(replace(thing, x=0.0, y=0.0), (2 * max(size), 2 * max(size)))
        shown = thing_mask(thing, size)
        if shown is None or area is None:
            continue
        mask, (left, top) = shown
        cover = np.asarray(mask) > 127
        window = free[top : top + cover.shape[0], left : left + cover.shape[1]]
        seen = cover & window
        window &= ~cover
        scale = (2 * max(size) / min(size)) ** 2
        share = float(seen.sum()) * scale / max(1.0, float((np.asarray(area[0]) > 127).sum()))
        if share < _VISIBLE_SHARE:
            continue
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
        found.append(
            {
                "label": class_name((thing.colour, thing.shape)),
                "box": [int(v) for v in box],
                "share": round(min(1.0, share), 3),
            }
        )
    return tuple(found)


def _staged(
    seconds: float, seed: int, pairs: tuple[tuple[str, str], ...], alone: bool
) -> tuple[np.random.Generator, tuple[Actor, ...], Backdrop]:
    """Who comes, before what; and the generator that draws the rest."""
    rng = np.random.default_rng([VIDEO_STREAM, seed])
    actors = _actors(rng, seconds, pairs, alone)
    return rng, actors, sample_backdrop(rng, tuple(actor.thing.rgb for actor in actors))


def backdrop_of(
    *, seconds: float, seed: int, pairs: tuple[tuple[str, str], ...] = PAIRS, alone: bool = False
) -> Backdrop:
    """The backdrop of the `video` that these arguments make."""
    return _staged(seconds, seed, pairs, alone)[2]


def video(
    *,
    seconds: float = 8.0,
    fps: float = 12.0,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
    alone: bool = False,
    backdrop: Backdrop | None = None,
) -> Iterator[tuple[Image.Image, Truth]]:
    """Frames and what each shows, one at a time: `size` = (width, height) px, RGB.

    The light dims and brightens slowly; one backdrop lasts the whole video. `alone`, one object at a time comes, and
    the scene is empty between them. The backdrop is drawn to suit the objects, unless one is given: that of another
    video, for what the same camera sees at another time. The same arguments give the same frames.

    Raises:
        InputError: no frame would come out.
    """
    frames = round(seconds * fps)
    if frames < 1 or fps <= 0:
        raise InputError(f"{seconds} s at {fps} frames a second give no frame", fix="ask for a longer video")
    rng, actors, own = _staged(seconds, seed, pairs, alone)
    backdrop = backdrop or own
    phase, period_s = float(rng.uniform(0, 2 * pi)), float(rng.uniform(4.0, 7.0))
    far = 0.5 * max(size) / min(size) + 0.45
    for index in range(frames):
        time_s = index / fps
        light = 0.95 + 0.3 * sin(phase + 2 * pi * time_s / period_s)
        things = [thing for actor in actors if (thing := actor.at(time_s, far)) is not None]
        camera = Camera("normal", "sharp", "clean", light, (1.0, 1.0, 1.0), 0.15, 0.002, 3.0, seed * 100_003 + index)
        frame = render(Scene(tuple(things), backdrop, camera), size)
        yield frame, Truth(index, time_s, light, _visible(things, size))


def write_video(
    folder: str | Path,
    *,
    seconds: float = 8.0,
    fps: float = 12.0,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
    alone: bool = False,
    gif: bool = False,
    quality: int = 90,
) -> WrittenVideo:
    """`folder/frames/00000.jpg` and on, and `folder/truth.jsonl` with a line a frame; `video.gif` too when asked.

    Raises:
        InputError: as `video`. OutputError: the folder cannot be made.
    """
    folder = Path(folder)
    try:
        (folder / "frames").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error}", fix="choose a writable path") from error
    paths: list[Path] = []
    lines: list[str] = []
    small: list[Image.Image] = []
    for frame, truth in video(seconds=seconds, fps=fps, size=size, seed=seed, pairs=pairs, alone=alone):
        path = folder / "frames" / f"{truth.index:05d}.jpg"
        frame.save(path, quality=quality)
        paths.append(path)
        lines.append(json.dumps(truth.as_json()))
        if gif:
            small.append(frame.quantize(128))
    table = folder / "truth.jsonl"
    beside = table.with_name(table.name + ".part")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(table)
    animated = folder / "video.gif" if small else None
    if animated is not None:
        small[0].save(animated, save_all=True, append_images=small[1:], duration=round(1000 / fps), loop=0)
    return WrittenVideo(folder, tuple(paths), table, animated)
