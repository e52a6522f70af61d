"""How errors list names."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 4


def some(names: Sequence[str], kind: str) -> str:
    """`3 missing (a, b, c)`, the first few by name."""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"
