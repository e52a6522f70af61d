"""Files written whole or not at all: beside their place first, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, which replaces it when the block ends well and is removed otherwise."""
    with Exchange() as exchange:
        yield exchange.beside(target)
        exchange.run()


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8")


class Exchange:
    """Several files that take their places together.

    with Exchange() as exchange:
        exchange.beside(first).write_text("1")
        exchange.beside(last).write_text("2")
        exchange.run()
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []
        self._temporary: list[Path] = []

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def beside(self, target: Path) -> Path:
        """An empty file beside `target`, to be filled; it is gone when the block ends, or `target` itself."""
        path = self._empty(target)
        self._staged.append((path, target))
        return path

    def run(self, *, leaving: Sequence[Path] = ()) -> None:
        """Rename all to their targets, the last one last, and take `leaving` away; after an error all is as it was."""
        *others, (last, last_target) = self._staged
        olds: list[tuple[Path, Path]] = []
        placed: list[Path] = []
        try:
            for target in (*(target for _, target in others), *leaving):
                if target.exists():
                    olds.append((self._empty(target), target))
                    target.replace(olds[-1][0])
            for beside, target in others:
                beside.chmod(0o644)
                placed.append(target)
                beside.rename(target)
            # In one step: before it what was there can be had back, behind it the new stands.
            last.chmod(0o644)
            last.replace(last_target)
        except BaseException:
            for target in placed:
                target.unlink(missing_ok=True)
            for old, target in olds:
                if not target.exists():
                    old.replace(target)
            raise

    def _empty(self, target: Path) -> Path:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        self._temporary.append(Path(name))
        return self._temporary[-1]
