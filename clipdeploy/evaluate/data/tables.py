"""Captions as a table: CSV and TSV with a header or plain, and the files that Flickr8k and Flickr30k come with."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.captions import from_rows
from clipdeploy.evaluate.data.found import is_picture, listed, read_text
from clipdeploy.evaluate.data.splits import taken
from clipdeploy.evaluate.records import Dataset

IMAGE = ("image", "filepath", "file", "filename", "file_name", "path", "img", "image_path", "image_name", "picture")
CAPTION = ("caption", "captions", "text", "title", "comment", "sentence", "description", "raw")
_TOKEN = re.compile(r"(.+)#\d+")
_SHORT_SHARE = 0.01  # Flickr30k's own results.csv has one row with a delimiter too few


def read_table(path: Path) -> Dataset:
    """A table of pictures and captions, a row for each caption.

    Raises:
        InputError: no column of pictures or of captions; too many rows with too few fields; no UTF-8.
    """
    text = read_text(path, what="pictures and captions")
    first = next((line for line in text.split("\n") if line.strip()), "")
    if not first:
        raise InputError(f"{path} is empty", fix="write a header and a row for each caption: image,caption")
    mark = _delimiter(path, first)
    if _TOKEN.fullmatch(name := first.partition("\t")[0]) and is_picture(name.rpartition("#")[0]):
        return from_rows(path, "flickr", _token_rows(path, text))
    header = [cell.strip().strip('"').lower() for cell in first.split(mark)]
    if is_picture(header[0]) and len(header) > 1:
        rows, notes = _rows(path, text, mark, 2)
        return from_rows(path, "csv", _captions(rows, 0, 1), notes=notes)
    image, caption = _columns(path, header)
    rows, notes = _rows(path, text, mark, len(header))
    rows = rows[1:]
    if "split" in header:
        keep, told = taken([row[header.index("split")].strip() for row in rows], path)
        rows, notes = [row for row, kept in zip(rows, keep, strict=True) if kept], notes + told
    return from_rows(path, "flickr" if mark == "|" else "csv", _captions(rows, image, caption), notes=notes)


def _delimiter(path: Path, first: str) -> str:
    if path.suffix.lower() == ".tsv" or "\t" in first:
        return "\t"
    return next((mark for mark in "|;" if mark in first and "," not in first), ",")


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    image = next((header.index(name) for name in IMAGE if name in header), None)
    caption = next((header.index(name) for name in CAPTION if name in header), None)
    if image is None or caption is None:
        what = "pictures" if image is None else "captions"
        raise InputError(
            f"{path} has no column of {what}; its columns are {listed(header)}",
            fix=f"name the columns image ({', '.join(IMAGE[1:4])}, ...) and caption ({', '.join(CAPTION[2:5])}, ...)",
        )
    return image, caption


def _rows(path: Path, text: str, mark: str, width: int) -> tuple[list[list[str]], tuple[str, ...]]:
    """The rows, and a note of those left out; what the last field holds more of the delimiter is its own."""
    rows: list[list[str]] = []
    short: list[str] = []
    number = 0
    try:
        for number, row in enumerate(_cells(text, mark), start=1):
            if not any(cell.strip() for cell in row):
                continue
            if any("\n" in cell and _swallowed(cell, mark) for cell in row):
                raise InputError(
                    f'row {number} of {path} goes over several rows: a quote (") is open in {row[0][:60]!r}',
                    fix='write a quote in a quoted field twice ("")',
                )
            if len(row) < width:
                short.append(f"row {number}: {mark.join(row)[:60]}")
            else:
                rows.append([*row[: width - 1], mark.join(row[width - 1 :])])
    except csv.Error as error:
        raise InputError(f"{path} cannot be read behind row {number}: {error}", fix="close its quotes") from error
    if len(short) > _SHORT_SHARE * (len(rows) + len(short)):
        raise InputError(
            f"{len(short)} rows of {path} have fewer than {width} fields: {listed(short)}",
            fix=f"separate fields by {mark!r}",
        )
    told = (f"{len(short)} rows with fewer than {width} fields were left out: {listed(short)}",) if short else ()
    return rows, told


def _cells(text: str, mark: str) -> Iterable[list[str]]:
    if mark == ",":
        return csv.reader(io.StringIO(text))
    # With other delimiters quotes are mostly the caption's own.
    return (_unquoted(line.split(mark)) for line in text.split("\n"))


def _unquoted(cells: list[str]) -> list[str]:
    return [
        cell[1:-1].replace('""', '"')
        if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
        else cell
        for cell in cells
    ]


def _swallowed(cell: str, mark: str) -> bool:
    """Whether a field holds what looks like further rows."""
    return any(is_picture(line.partition(mark)[0]) for line in cell.splitlines()[1:])


def _captions(rows: Sequence[list[str]], image: int, caption: int) -> Iterator[tuple[str, str]]:
    for row in rows:
        name = _TOKEN.fullmatch(row[image].strip())
        for text in _in_cell(row[caption]):
            yield name[1] if name else row[image], text


def _in_cell(cell: str) -> list[str]:
    """The captions of a cell that may hold a JSON list of them."""
    if not cell.lstrip().startswith("["):
        return [cell]
    try:
        found = json.loads(cell)
    except ValueError:
        return [cell]
    return found if found and all(isinstance(text, str) for text in found) else [cell]


def _token_rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """`1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress ...`"""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        found = _TOKEN.fullmatch(name)
        if not tab or found is None:
            raise InputError(
                f"line {number} of {path} is {line[:80]!r}; expected PICTURE#NUMBER, a tab and the caption",
                fix="download the file again, or write a table with the columns image and caption",
            )
        yield found[1], caption
