"""Small pieces of text output: bars, tables, sizes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TextIO

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def encodable(text: str, stream: TextIO) -> bool:
    """Whether the encoding of `stream` has all characters of `text`."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def bar(fraction: float, width: int, *, unicode: bool) -> str:
    """A bar of `width` cells, filled to `fraction` (0..1)."""
    fraction = min(max(fraction, 0.0), 1.0)
    if not unicode:
        return ("#" * round(fraction * width)).ljust(width)
    eighths = round(fraction * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def one_line(text: str) -> str:
    """`text` with control characters shown as escapes, so that a file name cannot steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def width(text: str) -> int:
    """Cells that `text` takes on a terminal; wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """`text` filled with spaces to `cells`, on its left when `right`."""
    fill = " " * max(cells - width(text), 0)
    return fill + text if right else text + fill


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows under a header in aligned columns; columns in `right` are flushed right."""
    lines = [list(map(one_line, header)), *(list(map(one_line, row)) for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(pad(cell, widths[i], right=i in right) for i, cell in enumerate(line)).rstrip() for line in lines
    )


def pairs(rows: Sequence[tuple[str, str]], *, indent: int = 2) -> str:
    """Names and values, the values in one column; a value of several lines keeps to its column."""
    column = max((width(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, value in rows:
        first, *more = [one_line(line) for line in value.splitlines()] or [""]
        lines.append(f"{'':{indent}}{pad(one_line(name), column)}{first}".rstrip())
        lines += [f"{'':{indent + column}}{line}" for line in more]
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes for people: `613 B`, `1.2 kB`, `354.0 MB` (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
