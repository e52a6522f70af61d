"""A frame as a picture, and what is known of it drawn upon it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipdeploy.runtime.stream.colour import to_rgb
from clipdeploy.runtime.stream.records import NONE_OF_THESE, Event, Frame
from clipdeploy.text import one_line
from clipdeploy.watch.shown import Bar, clock_time, event_words

LONGEST_PX = 1280
_SHORTEST_PX = 360  # smaller ones are enlarged, so that words can be read
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
_INK, _SOFT, _TRACK = (255, 255, 255), (190, 198, 205), (78, 84, 90)
_QUIET, _LIVELY = (126, 170, 220), (74, 214, 146)  # bars of labels out of view, and in view
_SHADE = (16, 19, 22)

AnyFont = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Caption:
    """What is drawn upon a frame.

    Attributes:
        present: labels in view, best first; empty says `none of these`.
        bars: labels with their probabilities.
        events: the newest ones, oldest first.
        corner: small print, such as the camera and the latency.
    """

    present: tuple[str, ...]
    bars: tuple[Bar, ...]
    events: tuple[Event, ...] = ()
    corner: str = ""


def picture_of(frame: Frame, longest_px: int | None = None) -> Image.Image:
    """The frame as an RGB picture, no side longer than `longest_px`."""
    picture = Image.fromarray(np.ascontiguousarray(to_rgb(frame)))
    longest = max(picture.size)
    if longest_px is not None and longest > longest_px:
        small = [max(round(side * longest_px / longest), 1) for side in picture.size]
        return picture.resize((small[0], small[1]), Image.Resampling.BILINEAR, reducing_gap=1.5)
    return picture


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Of the drawn picture: the frame's shape, both sides even, neither tiny nor beyond 1280 px."""
    scale = min(max(1.0, _SHORTEST_PX / min(width, height)), LONGEST_PX / max(width, height))
    return max(round(width * scale / 2) * 2, 16), max(round(height * scale / 2) * 2, 16)


def annotate(picture: Image.Image, caption: Caption, size: tuple[int, int]) -> Image.Image:
    """The picture on a canvas of `size` = (width, height) px, borders black where shapes differ, and the caption."""
    canvas = _fitted(picture, size)
    unit = max(min(size) // 24, 12)  # height of a line of text, px
    _draw_title(canvas, caption, unit)
    _draw_ticker(canvas, caption.events, unit)
    _draw_bars(canvas, caption.bars, unit)
    return canvas


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    width, height = size
    scale = min(width / picture.width, height / picture.height)
    fits = (min(round(picture.width * scale), width), min(round(picture.height * scale), height))
    if abs(fits[0] - width) <= 1 and abs(fits[1] - height) <= 1:  # evened sides are no other shape
        fits = size
    fitted = picture if picture.size == fits else picture.resize(fits, Image.Resampling.BILINEAR, reducing_gap=1.5)
    if fits == size:
        return fitted.copy() if fitted is picture else fitted
    canvas = Image.new("RGB", size)
    canvas.paste(fitted, ((width - fits[0]) // 2, (height - fits[1]) // 2))
    return canvas


def _draw_title(canvas: Image.Image, caption: Caption, unit: int) -> None:
    """What is in view, large, and the small print on the right, on a band along the top."""
    draw = ImageDraw.Draw(canvas)
    large, small = _font(round(unit * 1.25)), _font(round(unit * 0.72))
    band = round(unit * 2.1)
    _shade(canvas, (0, 0, canvas.width, band))
    edge = unit // 2
    corner = _cut(caption.corner, small, canvas.width // 2)
    right = canvas.width - edge - small.getlength(corner)
    draw.text((right, band / 2), corner, _SOFT, small, anchor="lm")
    words = " + ".join(one_line(label) for label in caption.present) or NONE_OF_THESE
    ink = _LIVELY if caption.present else _SOFT
    draw.text((edge, band / 2), _cut(words, large, right - 2 * edge), ink, large, anchor="lm")


def _draw_bars(canvas: Image.Image, shown: Sequence[Bar], unit: int) -> None:
    """A line for each label, on a panel at the bottom left."""
    if not shown:
        return
    font, step, edge = _font(round(unit * 0.82)), round(unit * 1.3), unit // 2
    panel = min(round(unit * 14), canvas.width * 3 // 5)
    name, value = round(panel * 0.48), font.getlength("100 %") + edge
    top = canvas.height - step * len(shown) - edge
    _shade(canvas, (0, top - edge // 2, panel + edge, canvas.height))
    draw = ImageDraw.Draw(canvas)
    left, length = edge + name, max(panel - name - value, 8)
    for row, bar in enumerate(shown):
        middle = top + step * row + step / 2
        ink = _INK if bar.present else _SOFT
        draw.text((edge, middle), _cut(one_line(bar.label), font, name - edge), ink, font, anchor="lm")
        box = (left, middle - unit * 0.22, left + length, middle + unit * 0.22)
        draw.rectangle(box, _TRACK)
        filled = left + length * min(max(bar.probability, 0.0), 1.0)
        if filled >= left + 1:
            draw.rectangle((left, box[1], filled, box[3]), _LIVELY if bar.present else _QUIET)
        draw.text((panel, middle), f"{100 * bar.probability:.0f} %", ink, font, anchor="rm")


def _draw_ticker(canvas: Image.Image, events: Sequence[Event], unit: int) -> None:
    """The newest events, at the bottom right, the last one lowest."""
    if not events:
        return
    font, step, edge = _font(round(unit * 0.72)), round(unit * 1.1), unit // 2
    most = canvas.width * 2 // 5 - 2 * edge
    lines = [f"{clock_time(event.wall)}  {one_line(event.label)} {event_words(event)}" for event in events]
    lines = [_cut(line, font, most) for line in lines]
    wide = max(font.getlength(line) for line in lines)
    top = canvas.height - step * len(lines) - edge
    _shade(canvas, (round(canvas.width - wide - 2 * edge), top - edge // 2, canvas.width, canvas.height))
    draw = ImageDraw.Draw(canvas)
    for row, (line, event) in enumerate(zip(lines, events, strict=True)):
        ink = _INK if event.kind == "appeared" else _SOFT
        draw.text((canvas.width - wide - edge, top + step * row + step / 2), line, ink, font, anchor="lm")


def _shade(canvas: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Darken a part, so that light letters can be read on any picture."""
    part = canvas.crop(box)
    canvas.paste(Image.blend(part, Image.new("RGB", part.size, _SHADE), 0.66), box[:2])


def _cut(text: str, font: AnyFont, most_px: float) -> str:
    """As much of the text as fits, an ellipsis where it was cut."""
    if font.getlength(text) <= most_px:
        return text
    while text and font.getlength(text + "…") > most_px:
        text = text[:-1]
    return text + "…" if text else ""


@functools.lru_cache(maxsize=32)
def _font(size_px: int) -> AnyFont:
    """A font of this machine that has many scripts; Pillow's own, which has Latin letters, where there is none."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return ImageFont.load_default(size_px)
