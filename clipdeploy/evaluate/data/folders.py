"""A folder a class, pictures below it at any depth; or pictures in one folder whose names begin with their class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import OnDisk, folders_in, listed, name_of, pictures_in, printable
from clipdeploy.evaluate.data.names import Named, beside, name_folders, same_names
from clipdeploy.evaluate.records import Dataset, Item

_SYNSET_FIRST = re.compile(r"(n\d{8})[_-](.+)[.]\w+")


def class_folders(folder: Path) -> list[Path]:
    """The folders of `folder` that hold a picture, at any depth."""
    return [inner for inner in folders_in(folder) if next(pictures_in(inner), None) is not None]


def read_folders(folder: Path, *, classnames: Path | None) -> Dataset:
    """Every folder in `folder` as a class; one without pictures is an answer that is never right, and is told.

    Raises:
        InputError: see `name_folders`; fewer than two classes.
    """
    folders = folders_in(folder)
    if len(folders) < 2:
        raise InputError(
            f"{folder} holds {len(folders)} folder, {listed([f.name for f in folders])}: one class is no choice",
            fix=f"name the folder that holds a folder a class, such as {folders[0]}" if folders else None,
        )
    named = name_folders([inner.name for inner in folders], classnames, folder)
    pictures = {inner.name: list(pictures_in(inner)) for inner in folders}
    loose = sum(1 for _ in pictures_in(folder, deep=False))
    notes = (f"{loose} pictures of no class, in {folder.name} itself, were left out",) if loose else ()
    return _dataset(folder, "folders", named, pictures, notes)


def synset_pictures(folder: Path) -> dict[str, list[Path]]:
    """Pictures such as `n02101006_Gordon_setter.JPEG` by synset; empty where one of the folder is named otherwise."""
    found: dict[str, list[Path]] = {}
    for path in pictures_in(folder, deep=False):
        match = _SYNSET_FIRST.fullmatch(path.name)
        if match is None:
            return {}
        found.setdefault(match[1], []).append(path)
    return found


def read_synset_pictures(folder: Path, pictures: Mapping[str, list[Path]], *, classnames: Path | None) -> Dataset:
    """One folder of pictures, the class in their names: `n02101006_Gordon_setter.JPEG` is a Gordon setter.

    Raises:
        InputError: the names have no words in them and no file gives any.
    """
    if classnames is None and beside(folder) is None:
        words = {synset: _words_of(synset, paths) for synset, paths in pictures.items()}
        order = sorted(words)
        classes = tuple(words[synset] for synset in order)
        named = Named({synset: index for index, synset in enumerate(order)}, classes, same_names(classes))
    else:
        named = name_folders(list(pictures), classnames, folder)
    return _dataset(folder, "names", named, pictures, ("classes come from the names of the files",))


def _words_of(synset: str, paths: Sequence[Path]) -> str:
    """The words that the pictures' names have behind the synset, without a number of the picture."""
    found = set()
    for path in paths:
        match = _SYNSET_FIRST.fullmatch(path.name)
        words = re.sub(r"(^|[_ -])\d+$", "", match[2]) if match else ""
        found.add(" ".join(words.replace("_", " ").split()))
    if len(found) > 1 or found == {""}:
        what = f"are called {listed(sorted(found))}" if len(found) > 1 else "have no words in their names"
        raise InputError(
            f"pictures of {synset}, such as {paths[0].name}, {what}",
            fix="name a file: --classnames FILE, a JSON object from synset to name",
        )
    return found.pop()


def _dataset(
    folder: Path, layout: str, named: Named, pictures: Mapping[str, Sequence[Path]], notes: tuple[str, ...]
) -> Dataset:
    items = [
        Item(printable(path.relative_to(folder).as_posix()), OnDisk(path), truth=named.index[name])
        for name in sorted(pictures, key=named.index.__getitem__)
        for path in pictures[name]
    ]
    empty = [name for name, paths in pictures.items() if not paths]
    told = (f"classes without a picture: {listed(empty)}; they are answers that are never right",) if empty else ()
    return Dataset(
        name_of(folder), "zeroshot_classification", layout, items, named.classes, notes=(*named.notes, *notes, *told)
    )
