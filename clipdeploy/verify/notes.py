"""The pictures of a report, small enough to travel inside it."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.errors import ClipdeployError
from clipdeploy.verify.records import PictureNote
from clipdeploy.verify.reference import Picture
from clipdeploy.verify.subject import Subject

THUMBNAIL_PX = 200
CROP_PX = 160
SHOWN = 32
"""Pictures that a report shows, at most; of the rest it keeps name and size."""

Levels = NDArray[np.uint8]


def picture_notes(subject: Subject) -> tuple[PictureNote, ...]:
    """Every picture with its thumbnail, the crop the model sees, and, where ours differs, the difference."""
    try:
        crops: list[Levels] | None = subject.crops
    except ClipdeployError:  # which the pixel stage has reported
        crops = None
    return tuple(
        _note(picture, crops[i] if crops else None, subject.reference.crops[i], shown=i < SHOWN)
        for i, picture in enumerate(subject.reference.pictures)
    )


def crop_note(name: str, crop: Levels) -> PictureNote:
    """A picture of which there is only what the model sees: (h, w, 3) RGB."""
    height, width, _ = crop.shape
    shown = Image.fromarray(crop)
    return PictureNote(name, width, height, "RGB", _uri(shown.copy()), _uri(shown))


def _note(picture: Picture, ours: Levels | None, theirs: Levels, *, shown: bool) -> PictureNote:
    with picture.open() as image:
        width, height, mode = image.width, image.height, image.mode
        if not shown:
            return PictureNote(picture.name, width, height, mode)
        thumbnail = image.convert("RGBA" if "A" in mode or "transparency" in image.info else "RGB")
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    difference = ""
    if ours is not None and ours.shape == theirs.shape and not np.array_equal(ours, theirs):
        difference = _uri(_amplified(ours, theirs))
    crop = Image.fromarray(theirs if ours is None else ours)
    return PictureNote(picture.name, width, height, mode, _uri(thumbnail), _uri(crop), difference)


def _amplified(ours: Levels, theirs: Levels) -> Image.Image:
    """Where the crops differ, with the largest difference white: (H, W) grey."""
    apart = np.abs(ours.astype(np.int16) - theirs).max(axis=-1)
    return Image.fromarray((apart * (255 / max(1, int(apart.max())))).astype(np.uint8))


def _uri(image: Image.Image) -> str:
    """A data URI: PNG where there is transparency or little to store, else JPEG."""
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX) if image.mode == "RGBA" else (CROP_PX, CROP_PX))
    kinds = ["PNG"] if image.mode in ("RGBA", "L") else ["PNG", "JPEG"]
    stored = {}
    for kind in kinds:
        stream = io.BytesIO()
        image.save(stream, kind, optimize=True, **({"quality": 82} if kind == "JPEG" else {}))
        stored[kind] = stream.getvalue()
    kind = min(stored, key=lambda k: len(stored[k]))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stored[kind]).decode()}"
