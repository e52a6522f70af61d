"""Names of classes: what a text encoder is asked for, from folders' names or from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import SPLITS, listed, read_text

BESIDE = ("classnames.txt", "classnames.json")
"""Files that name the classes of the folder they lie in, or of a split's folder beside them."""

_SYNSET = re.compile(r"n\d{8}")
_SYNSET_AND_WORDS = re.compile(r"n\d{8}[-_ ](?=.*[^\W\d])(.+)")
_NUMBER_AND_WORDS = re.compile(r"\d+[.](?=.*[^\W\d])(.+)")
_HOW = "name a file: --classnames FILE, a name a line in the order of the folders, or a JSON object from folder to name"


@dataclass(frozen=True)
class Named:
    """Classes with their names.

    Attributes:
        index: of each folder among the classes.
        classes: names, by index.
        notes: what is worth telling.
    """

    index: dict[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def beside(folder: Path) -> Path | None:
    """The file with the names of a folder's classes, in the folder or, for the folder of a split, beside it."""
    places = (folder, folder.parent) if folder.name.lower() in SPLITS else (folder,)
    return next((place / name for place in places for name in BESIDE if (place / name).is_file()), None)


def name_folders(folders: Sequence[str], classnames: Path | None, where: Path) -> Named:
    """The classes that folders stand for.

    Args:
        folders: their names; numbers are put in order as such.
        classnames: file with the names; None looks beside the pictures, and takes the folders' own names otherwise.
        where: the folder they are in.

    Raises:
        InputError: names that are no words, or the same; a file that does not fit.
    """
    order = sorted(folders, key=int) if all(map(str.isdecimal, folders)) else sorted(folders)
    source = classnames or beside(where)
    if source is not None:
        named = _from_file(order, source)
        return Named(named.index, named.classes, (f"names of the classes come from {source.name}", *named.notes))
    return _from_folders(order, where)


def read_names(path: Path) -> tuple[str, ...]:
    """Names in the order of labels 0, 1, ...: a line each, or a JSON list, or a JSON object from number to name.

    Raises:
        InputError: there is none, one is empty, or the file is something else.
    """
    found = _read(path)
    if isinstance(found, dict):
        if sorted(map(str, found)) != sorted(str(number) for number in range(len(found))):
            raise InputError(
                f"{path} names {listed(list(found))}; labels are numbers, and it must name each of them from 0 on",
                fix="write a name a line, the first one for label 0",
            )
        found = [found[str(number)] for number in range(len(found))]
    return _checked(found, path)


def same_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A note of the classes that go by one name; published lists have such."""
    twice = sorted({name for name in classes if classes.count(name) > 1}) if len(set(classes)) < len(classes) else []
    if not twice:
        return ()
    return (f"classes of the same name cannot be told apart, and the first one is answered: {listed(twice)}",)


def _from_folders(order: Sequence[str], where: Path) -> Named:
    unnamed = [name for name in order if _SYNSET.fullmatch(name) or not re.search(r"[^\W\d_]", name)]
    if unnamed:
        raise InputError(
            f"folders of {where} are named {listed(unnamed)}: no words that a text encoder knows", fix=_HOW
        )
    classes = tuple(_words(name) for name in order)
    for name, folder in zip(classes, order, strict=True):
        if classes.count(name) > 1:
            same = [other for other, its in zip(order, classes, strict=True) if its == name]
            raise InputError(f"folders {listed(same)} of {where} are one class, {name!r}", fix=f"join them, or {_HOW}")
        if any("\ud800" <= letter <= "\udfff" for letter in folder):
            raise InputError(f"the name of folder {folder!r} of {where} is not UTF-8", fix="rename it")
    plain = next(((f, n) for f, n in zip(order, classes, strict=True) if n != f.replace("_", " ").strip()), None)
    notes = (f"numbers before the words of folders were left out: {plain[0]} is {plain[1]!r}",) if plain else ()
    return Named({folder: index for index, folder in enumerate(order)}, classes, notes)


def _words(folder: str) -> str:
    """`n02085620-Chihuahua`, `001.ak47`, `red_circle` as words."""
    found = _SYNSET_AND_WORDS.fullmatch(folder) or _NUMBER_AND_WORDS.fullmatch(folder)
    return " ".join((found[1] if found else folder).replace("_", " ").split())


def _from_file(order: Sequence[str], path: Path) -> Named:
    found = _read(path)
    if isinstance(found, list):
        found = _by_first_word(found, order) or found
    if isinstance(found, dict):
        return _by_folder(order, found, path)
    names = _checked(found, path)
    if len(names) != len(order):
        if all(map(str.isdecimal, order)) and int(order[-1]) < len(names):  # the folders are labels, some have none
            return Named({folder: int(folder) for folder in order}, names, same_names(names))
        raise InputError(
            f"{path} names {len(names)} classes; there are {len(order)} folders of pictures: {listed(order)}",
            fix="write a name a line for each folder, in their order, or a JSON object from folder to name",
        )
    return Named({folder: index for index, folder in enumerate(order)}, names, same_names(names))


def _by_folder(order: Sequence[str], found: dict[str, Any], path: Path) -> Named:
    missing = [folder for folder in order if folder not in found]
    if missing:
        raise InputError(
            f"{path} has no name for {listed(missing)}", fix="add them to it, with the folders' own spelling"
        )
    names = _checked([found[folder] for folder in order], path)
    rest = len(found) - len(order)
    notes = (f"{rest} classes of {path.name} have no folder and are no answers",) if rest else ()
    return Named({folder: index for index, folder in enumerate(order)}, names, (*notes, *same_names(names)))


def _by_first_word(lines: Sequence[Any], order: Sequence[str]) -> dict[str, str] | None:
    """Lines such as `n01440764 tench, Tinca tinca`, one for each folder: the folder, and the first of its names."""
    pairs = [re.fullmatch(r"(\S+?)(?:[\t:, ]\s*)(.+)", line) for line in lines if isinstance(line, str)]
    found = {pair[1]: pair[2].split(",")[0] if _SYNSET.fullmatch(pair[1]) else pair[2] for pair in pairs if pair}
    return found if found and all(folder in found for folder in order) else None


def _read(path: Path) -> list[Any] | dict[str, Any]:
    """A list of names, or folder -> name."""
    text = read_text(path, what="the names of classes")
    if path.suffix.lower() != ".json":
        return text.rstrip().splitlines()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} is no JSON: {error}", fix="write it as a list, or an object from folder to name"
        ) from error
    if isinstance(found, dict) and found and all(isinstance(v, list) and len(v) == 2 for v in found.values()):
        return {str(synset): name for synset, name in found.values()}  # label -> [folder, name], as Keras has it
    if not isinstance(found, (list, dict)):
        raise InputError(
            f"{path} holds a {type(found).__name__}", fix="write a list of names, or an object from folder to name"
        )
    return found


def _checked(names: Sequence[Any], path: Path) -> tuple[str, ...]:
    if not names:
        raise InputError(f"{path} names no class", fix="write a name a line")
    for number, name in enumerate(names, start=1):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"name {number} in {path} is {name!r}: no words", fix="write a name for each class")
    return tuple(" ".join(name.split()) for name in names)
