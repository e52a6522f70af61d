"""Pictures in tar shards, with a label (`NAME.cls`) or captions (`NAME.txt`) beside each: webdataset's layout, and
CLIP_benchmark's, which adds names, templates and the kind of dataset as text files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipdeploy.errors import ImageError, InputError
from clipdeploy.evaluate.data import captions as captioned
from clipdeploy.evaluate.data.found import SPLITS, listed, name_of, printable, read_text
from clipdeploy.evaluate.data.names import beside, read_names, same_names
from clipdeploy.evaluate.data.tars import InTar, members, split_key
from clipdeploy.evaluate.records import Dataset, Item
from clipdeploy.progress import Progress, silent

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp")
_TEMPLATES, _KIND = "zeroshot_classification_templates.txt", "dataset_type.txt"
_TEXT_BYTES = 1 << 20


@dataclass
class _Sample:
    """What a shard holds under one name."""

    name: str
    picture: InTar | None = None
    label: InTar | None = None
    texts: InTar | None = None


@dataclass
class _Found:
    """What all shards hold."""

    samples: list[_Sample] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)


def read_webdataset(
    shards: Sequence[Path],
    *,
    root: Path,
    classnames: Path | None,
    notes: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Dataset:
    """The samples of all shards in their order.

    Args:
        shards: plain tars.
        root: folder that names are told from, and where the text files are, there or beside a split.
        classnames: file with a name for each label; None looks for `classnames.txt`.
        notes: to tell first.
        progress: told of each shard.

    Raises:
        InputError: shards that cannot be read; neither labels nor captions; labels without names, or beyond them.
    """
    kind = _beside(root, _KIND)
    said = read_text(kind, what="the kind of dataset").strip().lower() if kind else ""
    if said == "multilabel":
        raise InputError(f"{kind} says multilabel: several labels a picture are not evaluated", fix="choose another")
    found = _find(shards, root, progress)
    pictured = [sample for sample in found.samples if sample.picture]
    labelled = [sample for sample in pictured if sample.label]
    if not pictured or not (labelled or any(sample.texts for sample in pictured)):
        raise InputError(
            f"{_which(shards)} hold no sample of a picture with a label or captions; their members end in "
            f"{listed(sorted(found.others)) if found.others else 'what is not a picture'}"
            + (f", and {len(pictured)} are pictures" if pictured else ""),
            fix=f"expected NAME.jpg ({', '.join(PICTURES)}) and NAME.cls with a label, or NAME.txt with captions",
        )
    if said == "retrieval" or not labelled:
        if classnames is not None:
            raise InputError("--classnames was given, and the shards hold captions, not labels", fix="leave it out")
        return _retrieval(pictured, root, notes, len(found.samples))
    return _labelled(labelled, found, root, classnames or beside(root), notes)


def _find(shards: Sequence[Path], root: Path, progress: Progress) -> _Found:
    found = _Found()
    for number, shard in enumerate(shards):
        progress("reading shards", number, len(shards))
        inside: dict[str, _Sample] = {}
        for member in members(shard):
            key, ending = split_key(member.member)
            if ending in PICTURES:
                part = "picture"
            elif ending in ("cls", "txt"):
                part = "label" if ending == "cls" else "texts"
            else:
                shown = f".{ending}" if ending else member.member
                found.others[shown] = found.others.get(shown, 0) + 1
                continue
            sample = inside.setdefault(key, _Sample(_name(shard, root, key)))
            if getattr(sample, part) is not None:
                raise InputError(
                    f"{shard} holds {key} twice: {getattr(sample, part).member} and {member.member}",
                    fix="write the shard again, with another name for each sample",
                )
            setattr(sample, part, member)
        found.samples += inside.values()
    progress("reading shards", len(shards), len(shards))
    return found


def _labelled(
    samples: Sequence[_Sample], found: _Found, root: Path, names: Path | None, notes: tuple[str, ...]
) -> Dataset:
    labels = [_text(sample.label).strip() for sample in samples]
    numbers = sum(label.isdecimal() for label in labels)
    classes: tuple[str, ...]
    if numbers == len(labels):
        classes, truths = _numbered(samples, labels, root, names)
    else:
        classes, truths = _spelled(samples, labels, names)
    items = [
        Item(sample.name, sample.picture, truth)
        for sample, truth in zip(samples, truths, strict=True)
        if sample.picture is not None
    ]
    used = set(truths)
    empty = [name for index, name in enumerate(classes) if index not in used]
    told = [
        *notes,
        *([f"names of the classes come from {names.name}"] if names else []),
        *([f"classes without a picture: {listed(empty)}; they are answers that are never right"] if empty else []),
        *_left_out(len(found.samples) - len(samples), "picture or label"),
        *same_names(classes),
    ]
    templates = _templates(root)
    return Dataset(name_of(root), "zeroshot_classification", "webdataset", items, classes, templates, notes=tuple(told))


def _numbered(
    samples: Sequence[_Sample], labels: Sequence[str], root: Path, names: Path | None
) -> tuple[tuple[str, ...], list[int]]:
    if names is None:
        raise InputError(
            f"labels are numbers up to {max(map(int, labels))}, and there is no classnames.txt in {root}",
            fix="name a file with a name a line, the first one for label 0: --classnames FILE",
        )
    classes = read_names(names)
    for sample, label in zip(samples, labels, strict=True):
        if int(label) >= len(classes):
            raise InputError(
                f"label {label} of {sample.name} is out of range: {names} names {len(classes)} classes, 0 to "
                f"{len(classes) - 1}",
                fix="add the missing names; the first line is label 0",
            )
    return classes, [int(label) for label in labels]


def _spelled(
    samples: Sequence[_Sample], labels: Sequence[str], names: Path | None
) -> tuple[tuple[str, ...], list[int]]:
    """Labels that are names of classes; with a file, in its order."""
    for sample, label in zip(samples, labels, strict=True):
        if not any(map(str.isalpha, label)):
            raise InputError(
                f"label {label[:40]!r} of {sample.name} is neither a number from 0 on nor a name, as others are",
                fix="write either numbers or names for all",
            )
    words = [" ".join(label.replace("_", " ").split()) for label in labels]
    if names is None:
        classes = tuple(sorted(set(words)))
    else:
        classes = read_names(names)
        for sample, word in zip(samples, words, strict=True):
            if word not in classes:
                raise InputError(f"label {word!r} of {sample.name} is not in {names}", fix="add it to that file")
    index = {name: place for place, name in reversed(list(enumerate(classes)))}
    return classes, [index[word] for word in words]


def _retrieval(samples: Sequence[_Sample], root: Path, notes: tuple[str, ...], found: int) -> Dataset:
    pictures = [
        captioned.Captioned(
            sample.name, sample.picture, tuple(_text(sample.texts).splitlines()) if sample.texts else ()
        )
        for sample in samples
        if sample.picture is not None
    ]
    more = (*notes, *_left_out(found - len(samples), "picture"))
    return captioned.dataset(name_of(root), "webdataset", pictures, notes=more)


def _templates(root: Path) -> tuple[str, ...]:
    """The templates that came with the data, with `{}` for the label instead of CLIP_benchmark's `{c}`."""
    path = _beside(root, _TEMPLATES)
    if path is None:
        return ()
    lines = [line.strip().replace("{c}", "{}") for line in read_text(path, what="templates").splitlines()]
    for line in (lines := [line for line in lines if line]):
        if "{}" not in line:
            raise InputError(
                f"template {line!r} in {path} has no {{c}} for the class", fix="such as: a photo of a {c}."
            )
    return tuple(lines)


def _beside(root: Path, name: str) -> Path | None:
    places = (root, root.parent) if root.name.lower() in SPLITS else (root,)
    return next((place / name for place in places if (place / name).is_file()), None)


def _text(member: InTar | None) -> str:
    """A label or captions, UTF-8."""
    if member is None:
        return ""
    if member.size > _TEXT_BYTES:
        raise InputError(f"{member.member} in {member.shard} is {member.size} bytes: no label and no captions")
    try:
        return member().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{member.member} in {member.shard} is not UTF-8 text: {error.reason} at byte {error.start}",
            fix="write labels as numbers or names in UTF-8, and captions in UTF-8",
        ) from error
    except ImageError as error:
        raise InputError(error.message, fix=error.fix) from error


def _left_out(count: int, what: str) -> tuple[str, ...]:
    return (f"{count} samples without a {what} were left out",) if count else ()


def _name(shard: Path, root: Path, key: str) -> str:
    relative = shard.relative_to(root) if shard.is_relative_to(root) else Path(shard.name)
    return printable(f"{relative.as_posix()}/{key}")


def _which(shards: Sequence[Path]) -> str:
    return str(shards[0]) if len(shards) == 1 else f"{shards[0]} to {shards[-1].name}"
