"""Captions as JSON: COCO's, Karpathy's splits, a list or lines of objects, or an object from picture to captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.captions import from_rows
from clipdeploy.evaluate.data.found import read_text
from clipdeploy.evaluate.data.splits import taken
from clipdeploy.evaluate.data.tables import CAPTION, IMAGE
from clipdeploy.evaluate.records import Dataset

_EXPECTED = (
    'expected COCO\'s captions ("images", "annotations"), Karpathy\'s splits ("images" with "sentences"), '
    'a list of {"image": ..., "caption": ...}, or an object from picture to its captions'
)


def read_document(path: Path) -> Dataset:
    """A JSON file, or one object a line (`.jsonl`, `.ndjson`).

    Raises:
        InputError: no JSON, or none of the layouts; an entry without its picture or caption.
    """
    text = read_text(path, what="pictures and captions")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _entries(path, "jsonl", [_parsed(line, path, n) for n, line in _lines(text)])
    found = _parsed(text, path)
    if isinstance(found, list):
        return _entries(path, "json", found)
    if isinstance(found, dict) and isinstance(images := found.get("images"), list):
        if images and isinstance(images[0], dict) and "sentences" in images[0]:
            return _karpathy(path, images)
        if isinstance(annotations := found.get("annotations"), list):
            return _coco(path, images, annotations)
    if isinstance(found, dict) and isinstance(annotations := found.get("annotations"), list):
        return _entries(path, "json", annotations)
    if isinstance(found, dict) and found and all(isinstance(own, (str, list)) for own in found.values()):
        return from_rows(
            path, "json", ((name, text) for name, own in found.items() for text in _texts(own, name, path))
        )
    raise InputError(f"{path} is JSON of none of the layouts that are known here", fix=_EXPECTED)


def _coco(path: Path, images: Sequence[Any], annotations: Sequence[Any]) -> Dataset:
    """Pictures by their ids, as CLIP_benchmark goes through them; captions in the file's order."""
    names = {_value(image, ("id",), path): str(_value(image, ("file_name",), path)) for image in images}
    if len(names) < len(images):
        raise InputError(f"{path} has two images of one id", fix="give each image an id of its own")
    captions: dict[Any, list[str]] = {}
    for annotation in annotations:
        image = _value(annotation, ("image_id",), path)
        if image not in names:
            raise InputError(f'{path} has a caption of image {image!r}, which "images" does not name', fix=_EXPECTED)
        captions.setdefault(image, []).append(str(_value(annotation, ("caption",), path)))
    order = sorted(names, key=lambda image: (isinstance(image, str), image))
    bare = len(names) - len(captions)
    notes = [f"{bare} pictures without a caption were left out"] if bare else []
    rows = ((names[image], text) for image in order for text in captions.get(image, ()))
    return from_rows(path, "coco", rows, notes=notes)


def _karpathy(path: Path, images: Sequence[Any]) -> Dataset:
    keep, notes = taken([str(_value(image, ("split",), path)) for image in images], path)

    def rows() -> Iterator[tuple[str, str]]:
        for image, kept in zip(images, keep, strict=True):
            if kept:
                folder, name = str(image.get("filepath", "")), str(_value(image, ("filename",), path))
                for sentence in _value(image, ("sentences",), path):
                    yield f"{folder}/{name}" if folder else name, str(_value(sentence, ("raw",), path))

    return from_rows(path, "karpathy", rows(), notes=notes)


def _entries(path: Path, layout: str, entries: Sequence[Any]) -> Dataset:
    """Objects of a picture and a caption or several, perhaps with a split."""
    notes: tuple[str, ...] = ()
    if entries and all(isinstance(entry, dict) and isinstance(entry.get("split"), str) for entry in entries):
        keep, notes = taken([entry["split"] for entry in entries], path)
        entries = [entry for entry, kept in zip(entries, keep, strict=True) if kept]

    def rows() -> Iterator[tuple[str, str]]:
        for entry in entries:
            name = str(_value(entry, IMAGE, path))
            for text in _texts(_value(entry, CAPTION, path), name, path):
                yield name, text

    return from_rows(path, layout, rows(), notes=notes)


def _value(entry: Any, names: Sequence[str], path: Path) -> Any:
    """The first of `names` that an object has."""
    for name in names:
        if isinstance(entry, dict) and entry.get(name) is not None:
            return entry[name]
    what = " or ".join(f'"{name}"' for name in names[:3])
    raise InputError(f"{path} has an entry without {what}: {json.dumps(entry)[:120]}", fix=_EXPECTED)


def _texts(own: Any, name: str, path: Path) -> list[str]:
    texts = [own] if isinstance(own, str) else own
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path} has captions of {name} that are no texts: {json.dumps(own)[:80]}", fix=_EXPECTED)
    return texts


def _parsed(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {line} of {path}" if line else str(path)
        raise InputError(f"{where} is no JSON: {error}", fix="write it again") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
