"""The Python API of each TensorRT that the project builds with, as recorded from NVIDIA's bindings by `record.py`.

| file | product | what brings it |
|---|---|---|
| `tensorrt-10.3.0.json` | TensorRT 10.3.0 | JetPack 6.1 and 6.2 |
| `tensorrt-10.13.3.json` | TensorRT 10.13.3 | JetPack 7 on Thor |
| `tensorrt-11.4.0.json` | TensorRT 11.4.0 | servers, and JetPack from 7.2.2 on with 11.4.1 |
| `tensorrt_rtx-1.7.1.json` | TensorRT for RTX 1.7.1 | RTX desktops; CI builds with it |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("tensorrt-10.3.0", "tensorrt-10.13.3", "tensorrt-11.4.0", "tensorrt_rtx-1.7.1")


@dataclass(frozen=True)
class Parameter:
    """One argument. A name `argN` takes no keyword; `default` is None where it must be given."""

    name: str
    kind: str
    default: str | None

    @property
    def keyword(self) -> bool:
        return not (self.name.startswith("arg") and self.name[3:].isdigit())


@dataclass(frozen=True)
class Signature:
    """One way to call something. `parameters` is None where the bindings do not tell."""

    parameters: tuple[Parameter, ...] | None
    answer: str
    static: bool = False

    def problem(self, positional: int, keywords: tuple[str, ...] = ()) -> str | None:
        """Why a call with so many positional arguments and these keywords fails; None when it is taken."""
        if self.parameters is None:
            return None
        if positional > len(self.parameters):
            return f"takes {len(self.parameters)} arguments, given {positional}"
        rest = {p.name: p for p in self.parameters[positional:]}
        for keyword in keywords:
            if keyword not in rest or not rest[keyword].keyword:
                return f"takes no keyword {keyword}"
        missing = [p.name for p in rest.values() if p.default is None and p.name not in keywords]
        return f"misses {', '.join(missing)}" if missing else None


@dataclass(frozen=True)
class Member:
    """Something of a class: a method (with its signatures), a property or a constant (with its type)."""

    signatures: tuple[Signature, ...] = ()
    kind: str = "Any"
    writable: bool = False


@dataclass(frozen=True)
class Kind:
    """A class or an enumeration (`members`, with their numbers)."""

    name: str
    bases: tuple[str, ...]
    own: dict[str, Member]
    members: dict[str, int]


@dataclass(frozen=True)
class Api:
    """One version of one product."""

    name: str
    version: str
    source: str
    constants: dict[str, str]
    functions: dict[str, tuple[Signature, ...]]
    kinds: dict[str, Kind]

    @property
    def rtx(self) -> bool:
        return self.name.startswith("tensorrt_rtx")

    def member(self, kind: str, name: str) -> Member | None:
        """`name` of the class `kind` or of a class below it; None where there is none."""
        found = self.kinds.get(kind)
        if found is None:
            return None
        if name in found.members:
            return Member(kind=kind)
        if found.members and name in ("name", "value"):
            return Member()
        if name in found.own:
            return found.own[name]
        return next((member for base in found.bases if (member := self.member(base, name))), None)

    def top(self, name: str) -> bool:
        """Whether the module has `name`."""
        return name in self.kinds or name in self.functions or name in self.constants or name == "__version__"


@cache
def load(name: str) -> Api:
    """One of `NAMES`."""
    return read(name, json.loads((HERE / f"{name}.json").read_text()))


def read(name: str, record: dict[str, Any]) -> Api:
    """What `record.py` wrote."""
    return Api(
        name=name,
        version=record["version"],
        source=record["source"],
        constants=record["constants"],
        functions={key: tuple(parse(text) for text in texts) for key, texts in record["functions"].items()},
        kinds={key: _kind(key, entry) for key, entry in record["classes"].items()},
    )


def _kind(name: str, entry: dict[str, Any]) -> Kind:
    if "members" in entry:
        own = {key: Member() for key in entry.get("properties", ())}
        return Kind(name, (), own, entry["members"])
    own = {key: Member(tuple(parse(text) for text in texts)) for key, texts in entry["methods"].items()}
    for key, text in entry["properties"].items():
        own[key] = Member(kind=text.removesuffix(" (writable)"), writable=text.endswith("(writable)"))
    own |= {key: Member(kind=text.rpartition(".")[0]) for key, text in entry["constants"].items()}
    return Kind(name, tuple(entry["bases"]), own, {})


def parse(text: str) -> Signature:
    """`(flags: int = 0) -> INetworkDefinition` as a record."""
    static, text = text.startswith("static "), text.removeprefix("static ")
    arguments, _, answer = text.rpartition(" -> ") if " -> " in text else (text, "", "Any")
    inside = arguments.strip()[1:-1]
    if "..." in inside or "*args" in inside:
        return Signature(None, answer, static)
    return Signature(tuple(_parameter(part) for part in split(inside)), answer, static)


def _parameter(text: str) -> Parameter:
    head, equals, default = text.partition(" = ")
    name, _, kind = head.partition(": ")
    return Parameter(name, kind or "Any", default if equals else None)


def split(arguments: str) -> Iterator[str]:
    """`a: Dict[str, int], b: int = <X: 1>` to its arguments."""
    depth, start = 0, 0
    for i, letter in enumerate(arguments):
        depth += (letter in "[(<") - (letter in "])>" and arguments[i - 1 : i + 1] != "->")
        if letter == "," and depth == 0:
            yield arguments[start:i].strip()
            start = i + 1
    if arguments[start:].strip():
        yield arguments[start:].strip()
