"""What the sections of docs/benchmarks.md have in common: the record, when, where and how it was measured."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.again import again_text

_LIBRARIES = ("torch", "open-clip-torch", "onnxruntime", "openvino", "onnxsim", "pillow")


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own.

    Attributes:
        title: of the heading.
        paragraphs: below it, in Markdown.
    """

    title: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """Heading and paragraphs."""
        return "\n\n".join((f"## {self.title}", *self.paragraphs))

    @property
    def anchor(self) -> str:
        """What a link to the heading says after `#`."""
        return re.sub(r"[^a-z0-9 -]", "", self.title.lower()).replace(" ", "-")


@dataclass
class Results:
    """The records of a folder, and the machines that they were measured on.

    Attributes:
        folder: with a JSON file a record.
        machines: as they were met: description -> number, from 1.
    """

    folder: Path
    machines: dict[str, int] = field(default_factory=dict)

    def get(self, name: str) -> dict[str, Any] | None:
        """A record; None where it was not measured yet."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def measured(self, record: dict[str, Any]) -> str:
        """A line: the command as far as the record tells, the day, the machine, and how much two runs differ."""
        env = record["environment"]
        number = self.machines.setdefault(described(env), len(self.machines) + 1)
        command, date, threads, load = (env.get(key) for key in ("command", "date", "threads", "load_1min"))
        told = [
            f"`{command}`" if command else None,
            date or "day not recorded",
            f"{threads} thread{'s' if threads > 1 else ''}" if threads else None,
            f"[machine {number}](#machines)",
            f"load in the last minute {load}" if load is not None else None,
        ]
        return f"*{', '.join(part for part in told if part)}. {again_text(record)}*"


def described(env: dict[str, Any]) -> str:
    """A machine and what is installed there."""
    libraries = ", ".join(f"{name} {env['libraries'][name]}" for name in _LIBRARIES if name in env["libraries"])
    flags = f" ({', '.join(env['cpu_flags'])})" if env.get("cpu_flags") else ""
    return f"{env['cpu']}{flags}, {env['cores']} cores, Python {env['python']}; {libraries}"


def machines_section(results: Results) -> Section:
    """All that were met by `Results.measured` so far."""
    lines = [f"{number}. {told}." for told, number in results.machines.items()]
    return Section("Machines", ("\n".join(lines),))


def block(text: str) -> str:
    """Text as it stands, in Markdown."""
    return f"```text\n{text.rstrip()}\n```"


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown: the first column to the left, the others too, since they hold words."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
