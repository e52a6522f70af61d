"""Pictures with captions, whatever file these were read from: pictures found on disk, captions numbered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import OnDisk, listed, printable
from clipdeploy.evaluate.records import Dataset, Item
from clipdeploy.writing import inside

PICTURE_FOLDERS = (
    *("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images"),
    *("val2014", "val2017", "train2014", "train2017"),
)
"""Folders that pictures are looked for in, beside the file that names them."""

_MISSING_SHARE = 0.1


@dataclass(frozen=True)
class Captioned:
    """A picture and its captions."""

    name: str
    open: Callable[[], Path | bytes]
    captions: tuple[str, ...]


def dataset(name: str, layout: str, pictures: Sequence[Captioned], *, notes: Sequence[str] = ()) -> Dataset:
    """Pictures with captions as a dataset; those without one are left out, and told.

    Raises:
        InputError: not one picture has a caption.
    """
    items: list[Item] = []
    texts: list[str] = []
    without, empty = 0, 0
    for picture in pictures:
        plain = [" ".join(text.split()) for text in picture.captions]
        own = [text for text in plain if text]
        empty += len(plain) - len(own)
        if not own:
            without += 1
            continue
        items.append(Item(picture.name, picture.open, captions=tuple(range(len(texts), len(texts) + len(own)))))
        texts += own
    if not items:
        raise InputError(f"{name} holds no picture with a caption", fix="give each picture one caption or more")
    told = [
        *notes,
        *([f"{without} pictures without a caption were left out"] if without else []),
        *([f"{empty} empty captions were left out"] if empty else []),
        *_shared(items, texts),
    ]
    return Dataset(name, "zeroshot_retrieval", layout, items, captions=tuple(texts), notes=tuple(told))


def from_rows(file: Path, layout: str, rows: Iterable[tuple[str, str]], *, notes: Sequence[str] = ()) -> Dataset:
    """Rows of a picture's name and a caption, as a file has them, as a dataset.

    Pictures lie beside the file, or in one of `PICTURE_FOLDERS` there.

    Raises:
        InputError: a name that leaves these folders; more than a tenth of the pictures are missing.
    """
    captions: dict[str, list[str]] = {}
    for name, caption in rows:
        captions.setdefault(_plain(name, file), []).append(caption)
    places = _Places(file)
    pictures: list[Captioned] = []
    missing: list[str] = []
    for name, own in captions.items():
        path = places.find(name)
        if path is None:
            missing.append(name)
        else:
            pictures.append(Captioned(name, OnDisk(path), tuple(own)))
    if missing:
        notes = [*notes, _told_missing(file, missing, len(captions))]
    if not captions:
        raise InputError(f"{file} names no picture", fix="write a row for each caption: picture, caption")
    return dataset(_dataset_name(file), layout, pictures, notes=notes)


class _Places:
    """Where pictures may lie; the folder that had the last one is looked into first."""

    def __init__(self, file: Path) -> None:
        near = [file.parent, *(file.parent / name for name in PICTURE_FOLDERS)]
        if file.parent.resolve().name.lower() in ("annotations", "captions"):  # as COCO lies, unpacked
            near += [file.parent.parent, *(file.parent.parent / name for name in PICTURE_FOLDERS)]
        self._folders = [folder for folder in near if folder.is_dir()]

    def find(self, name: str) -> Path | None:
        for place, folder in enumerate(self._folders):
            if (folder / name).is_file():
                self._folders.insert(0, self._folders.pop(place))
                return self._checked(folder, name)
        return None

    @staticmethod
    def _checked(folder: Path, name: str) -> Path:
        path = inside(folder, name)
        if path is None:
            raise InputError(
                f"picture {name!r} is a link that leads out of {folder}", fix="copy the picture there, or leave it out"
            )
        return path


def _plain(name: str, file: Path) -> str:
    """A picture's name as a path below a folder."""
    pure = PurePosixPath(name.strip())
    if (
        not pure.parts
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or "\0" in name
        or ":" in pure.parts[0]
    ):
        raise InputError(
            f"{file} names the picture {name[:120]!r}: no path below its folder",
            fix="write names relative to the file, or to a folder images beside it, with / between folders",
        )
    return pure.as_posix()


def _told_missing(file: Path, missing: Sequence[str], total: int) -> str:
    if len(missing) > _MISSING_SHARE * total:
        raise InputError(
            f"{len(missing)} of the {total} pictures that {file} names are missing: {listed(missing)}",
            fix=f"put them beside the file or into {file.parent / 'images'}, or take their rows out of it",
        )
    return f"{len(missing)} of {total} pictures are missing and were left out: {listed(missing)}"


def _shared(items: Sequence[Item], texts: Sequence[str]) -> list[str]:
    """Captions that several pictures have: only one of these pictures can be found by them first."""
    counts: Counter[str] = Counter()
    for item in items:
        counts.update({texts[index] for index in item.captions})
    shared = [text for text, count in counts.items() if count > 1]
    return [f"{len(shared)} captions belong to several pictures each, such as {shared[0]!r}"] if shared else []


def _dataset_name(file: Path) -> str:
    folder = file.parent.resolve().name
    return printable(folder if folder and file.stem.lower() in ("captions", "metadata", "results") else file.stem)
