"""Which tars a user means: a folder, a file, or a pattern such as `data-{000..009}.tar`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import folders_in, listed, read_text

_BRACES = re.compile(r"[{]([^{}]*)[}]")
_RANGE = re.compile(r"(\d+)[.][.](\d+)")
_MOST = 100_000


def expand(pattern: str) -> list[Path]:
    """The files of a pattern with braces: ranges with their zeros (`{000..009}`), lists (`{a,b}`), any number of them.

    Raises:
        InputError: braces that are neither; one of the files is missing.
    """
    paths = [Path(name) for name in _expand(pattern)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(paths)} files of {pattern} are missing: {listed(missing)}",
            fix="check the pattern: both ends of a range count",
        )
    return paths


def _expand(pattern: str) -> list[str]:
    names = [pattern]
    while any(_BRACES.search(name) for name in names):
        longer: list[str] = []
        for name in names:
            found = _BRACES.search(name)
            longer += (
                [name[: found.start()] + part + name[found.end() :] for part in _parts(found[1])] if found else [name]
            )
            if len(longer) > _MOST:
                raise InputError(f"{pattern} means more than {_MOST} files", fix="name fewer of them")
        names = longer
    return names


def _parts(inner: str) -> Iterator[str]:
    if found := _RANGE.fullmatch(inner):
        first, last = int(found[1]), int(found[2])
        width = len(found[1]) if found[1].startswith("0") or found[2].startswith("0") else 0
        if last < first or last - first >= _MOST:
            raise InputError(f"the range {{{inner}}} runs backwards or is too long", fix="such as {000..009}")
        return (f"{number:0{width}d}" for number in range(first, last + 1))
    if "," in inner:
        return iter(inner.split(","))
    raise InputError(f"{{{inner}}} is no range and no list", fix="write {000..009} or {a,b}")


def tars_in(folder: Path) -> list[Path]:
    """Its tars: `0.tar`, `1.tar`, ... as numbers, and exactly as many as `nshards.txt` beside them says.

    Raises:
        InputError: shards are missing, or `nshards.txt` is no number.
    """
    found = sorted((p for p in folder.glob("*.tar") if p.is_file() and not p.name.startswith(".")), key=_natural)
    counted = folder / "nshards.txt"
    if not counted.is_file():
        return found
    said = read_text(counted, what="the number of shards").strip()
    if not said.isdecimal() or not 0 < int(said) <= _MOST:
        raise InputError(f"{counted} holds {said[:20]!r}", fix="it must hold the number of shards")
    wanted = [folder / f"{number}.tar" for number in range(int(said))]
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise InputError(
            f"{counted} says {said} shards, and {len(missing)} of them are missing: {listed(missing)}",
            fix="copy or download the missing ones",
        )
    return wanted


def split_with_tars(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The folder `test` in `folder`, or the only split there, where it holds tars; and a note of it."""
    splits = [inner for inner in folders_in(folder) if any(inner.glob("*.tar"))]
    if not splits:
        return None
    chosen = next((inner for inner in splits if inner.name.lower() == "test"), splits[0])
    if chosen.name.lower() != "test" and len(splits) > 1:
        names = [inner.name for inner in splits]
        raise InputError(f"{folder} holds shards in {listed(names)}, and none in test", fix=f"name one: {splits[0]}")
    others = [inner.name for inner in splits if inner != chosen]
    return chosen, ((f"of the splits there, {chosen.name} was taken, and not {listed(others)}",) if others else ())


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
