"""Which pictures of a file that tells splits are evaluated: those of `test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import listed


def taken(splits: Sequence[str], path: Path) -> tuple[list[bool], tuple[str, ...]]:
    """For each entry whether it is of the test split, and a note; all of them where there is one split only.

    Raises:
        InputError: there are several, and none is `test`.
    """
    names = sorted(set(splits))
    if len(names) < 2:
        return [True] * len(splits), ()
    if "test" not in names:
        raise InputError(
            f"{path} has the splits {listed(names)}, and none is test",
            fix="write a file of the entries that shall be evaluated",
        )
    others = [name for name in names if name != "test"]
    return [name == "test" for name in splits], (f"of its splits, test was taken, and not {listed(others)}",)
