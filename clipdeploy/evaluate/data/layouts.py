"""Which layout a path has, told by what lies there."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.captions import PICTURE_FOLDERS
from clipdeploy.evaluate.data.documents import read_document
from clipdeploy.evaluate.data.folders import class_folders, read_folders, read_synset_pictures, synset_pictures
from clipdeploy.evaluate.data.found import SPLITS, folders_in, listed, pictures_in
from clipdeploy.evaluate.data.shards import expand, split_with_tars, tars_in
from clipdeploy.evaluate.data.tables import read_table
from clipdeploy.evaluate.data.tars import PACKED_ENDINGS, check_plain
from clipdeploy.evaluate.data.webdataset import read_webdataset
from clipdeploy.evaluate.records import Dataset
from clipdeploy.progress import Progress, silent

_READERS: dict[str, Callable[[Path], Dataset]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".token"), read_table),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), read_document),
}
_CAPTION_FILES = (
    *("captions*.csv", "captions*.tsv", "captions*.txt", "captions*.json", "captions*.jsonl"),
    *("metadata.csv", "metadata.jsonl", "*.token", "*.token.txt", "results*.csv", "dataset*.json"),
    *("annotations/captions_val*.json",),
)
_EXPECTED = (
    "expected a folder of a folder a class (cat/1.jpg, dog/2.jpg), a folder or pattern of webdataset shards "
    "(NAME.jpg and NAME.cls or NAME.txt in each .tar), or a file of pictures and captions (CSV, TSV, JSON, JSONL)"
)


def read_dataset(
    path: str | os.PathLike[str], *, classnames: Path | None = None, progress: Progress = silent
) -> Dataset:
    """The pictures of a dataset, with their classes or captions.

    Args:
        path: a folder of a folder a class; a folder of tar shards, one of them, or a pattern (`data-{000..009}.tar`);
            a table, JSON or JSONL of pictures and captions, or a folder with one such file.
        classnames: file that names the classes: a line each in the order of the folders or labels, or JSON.
        progress: told of each shard.

    Raises:
        InputError: there is none at `path`, or what is there does not fit together; says what was found and expected.
    """
    text = os.fspath(path)
    if text.startswith(("http:", "https:", "s3:", "gs:", "hf:", "pipe:")):
        raise InputError(f"{text} is not on this machine", fix="download the dataset and name its folder or files")
    place = Path(text)
    if place.is_dir():
        return _folder(place, classnames, progress)
    if place.exists():
        return _file(place, classnames, progress)
    if "{" in text or glob.has_magic(text):
        shards = expand(text) if "{" in text else _matches(text)
        return read_webdataset(shards, root=_common(shards), classnames=classnames, progress=progress)
    raise InputError(f"{text} does not exist", fix="check the path of the dataset")


def _file(path: Path, classnames: Path | None, progress: Progress) -> Dataset:
    name = path.name.lower()
    if name.endswith(PACKED_ENDINGS):
        check_plain(path)
    if name.endswith((".tar", *PACKED_ENDINGS)):
        return read_webdataset([path], root=path.parent, classnames=classnames, progress=progress)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        fix = "unpack it and name the folder" if path.suffix.lower() in (".zip", ".rar", ".7z") else _EXPECTED
        raise InputError(f"{path} is a file of a kind that is not read: {path.suffix or 'no ending'}", fix=fix)
    _no_classnames(classnames)
    return reader(path)


def _folder(folder: Path, classnames: Path | None, progress: Progress) -> Dataset:
    if shards := tars_in(folder):
        return read_webdataset(shards, root=folder, classnames=classnames, progress=progress)
    if split := split_with_tars(folder):
        inner, notes = split
        return read_webdataset(tars_in(inner), root=inner, classnames=classnames, notes=notes, progress=progress)
    classes = class_folders(folder)
    captions = sorted({path for pattern in _CAPTION_FILES for path in folder.glob(pattern) if path.is_file()})
    if captions and len([inner for inner in classes if inner.name not in PICTURE_FOLDERS]) < 2:
        _no_classnames(classnames)
        return _captions(folder, captions)
    if classes:
        _check_no_splits(folder, classes)
        found = read_folders(folder, classnames=classnames)
        other = f"captions lie there too: name {captions[0]} for retrieval" if captions else ""
        return replace(found, notes=(*found.notes, other)) if other else found
    if pictures := synset_pictures(folder):
        return read_synset_pictures(folder, pictures, classnames=classnames)
    raise InputError(f"{folder} is no dataset that is known here: {_what_is_in(folder)}", fix=_EXPECTED)


def _captions(folder: Path, files: list[Path]) -> Dataset:
    if len(files) > 1:
        names = [path.relative_to(folder).as_posix() for path in files]
        raise InputError(f"{folder} holds several files of captions: {listed(names)}", fix=f"name one: {files[0]}")
    return _READERS[files[0].suffix.lower()](files[0])


def _check_no_splits(folder: Path, classes: list[Path]) -> None:
    """Raise InputError where the folders are splits of a dataset, or one folder around it, and not classes."""
    names = [inner.name for inner in classes]
    if all(name.lower() in SPLITS for name in names):
        inside = next((inner for inner in classes if class_folders(inner)), None)
        raise InputError(
            f"{folder} is parted into {listed(names)}" + ("" if inside else ", and these hold no folder a class"),
            fix=f"name the one to evaluate, such as {_evaluated(classes)}" if inside else _EXPECTED,
        )
    if len(classes) == 1 and len(class_folders(classes[0])) > 1:
        raise InputError(
            f"{folder} holds pictures in one folder only, {names[0]}, and that has a folder a class in it",
            fix=f"name that one: {classes[0]}",
        )


def _evaluated(splits: list[Path]) -> Path:
    """The split that is meant most often."""
    return min(splits, key=lambda split: SPLITS.index(split.name.lower()))


def _matches(pattern: str) -> list[Path]:
    found = sorted(Path(name) for name in glob.iglob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too
    if not found or not all(path.name.endswith(".tar") for path in found):
        what = f"{listed([path.name for path in found])}, which are not all tars" if found else "nothing"
        raise InputError(f"pattern {pattern!r} matches {what}", fix="name a folder, a file, or a pattern of .tar files")
    return found


def _common(shards: list[Path]) -> Path:
    """The folder that all shards are in."""
    return Path(os.path.commonpath([shard.parent for shard in shards]))


def _no_classnames(classnames: Path | None) -> None:
    if classnames is not None:
        raise InputError("--classnames was given, and this dataset has captions, not classes", fix="leave it out")


def _what_is_in(folder: Path) -> str:
    folders = [inner.name for inner in folders_in(folder)]
    pictures = sum(1 for _ in pictures_in(folder, deep=False))
    files = [path.name for path in sorted(folder.iterdir()) if path.is_file()] if not pictures else []
    parts = [
        *([f"{pictures} pictures of which nothing says the class or captions"] if pictures else []),
        *([f"folders without pictures: {listed(folders)}"] if folders else []),
        *([f"files: {listed(files)}"] if files else []),
    ]
    return "; ".join(parts) or "it is empty"
