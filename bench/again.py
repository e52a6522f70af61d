"""Run a benchmark a second time, and write how much its figures differ into the result of the first.

    python -m bench.again folder [the same options as the first time]

Takes the result that `python -m bench.folder` left in out/bench (or where `--json` says), runs it anew with the options
given, and compares every median and rate of the two. The page tells it in each section.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import OUT, write_json

_FIGURES = frozenset({"median_ms", "median", "ms", "p50_ms", "per_second", "gflop_per_second", "gb_per_second"})
"""Keys of what the page shows of many calls."""
_MAPPINGS = frozenset({"latency_ms", "first_ms"})
"""Keys of mappings whose values are such figures."""
_ASIDE = frozenset({"environment", "again", "probe_ms", "at_full_speed", "fits", "to_bare"})


def main(arguments: Sequence[str]) -> None:
    """Run, compare, write, print."""
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        raise SystemExit(0 if {"-h", "--help"} & set(arguments) else 2)
    name, *options = arguments
    path = _result(name, options)
    if not path.is_file():
        raise SystemExit(f"{path} is not there: run python -m bench.{name} first")
    first = json.loads(path.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.json"
        subprocess.run([sys.executable, "-m", f"bench.{name}", *options, "--json", str(again)], check=True)
        second = json.loads(again.read_text("utf-8"))
    asked = [record["environment"].get("command") for record in (first, second)]
    if asked[0] is not None and asked[0] != asked[1]:
        raise SystemExit(f"the first was `{asked[0]}`, the second `{asked[1]}`: pass the same options")
    first["again"] = compared(first, second)
    write_json(path, first)
    print(f"\n{again_text(first)}\nwritten to {path}")


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of the first run keeps of the second.

    Raises:
        SystemExit: the two have no figure in common.
    """
    was, now = dict(figures(first)), dict(figures(second))
    off = {path: max(was[path], now[path]) / min(was[path], now[path]) - 1 for path in was if path in now}
    if not off:
        raise SystemExit("the two results have no figure in common")
    most = max(off, key=off.__getitem__)
    return {
        "date": second["environment"].get("date"),
        "figures": len(off),
        "median": statistics.median(off.values()),
        "p90": float(np.percentile(list(off.values()), 90)),
        "most": off[most],
        "which": most,
        "was": was[most],
        "now": now[most],
    }


def figures(record: Any, path: str = "", *, all_of_it: bool = False) -> Iterator[tuple[str, float]]:
    """The medians and rates of a record above 0, each with its path in it."""
    if isinstance(record, Mapping):
        for key, value in record.items():
            if key in _ASIDE:
                continue
            below = f"{path}/{key}" if path else str(key)
            if isinstance(value, Mapping | list):
                yield from figures(value, below, all_of_it=all_of_it or key in _MAPPINGS)
            elif (all_of_it or key in _FIGURES) and isinstance(value, int | float) and value > 0:
                yield below, float(value)
    elif isinstance(record, list):
        for index, value in enumerate(record):
            if isinstance(value, Mapping | list):
                yield from figures(value, f"{path}/{index}", all_of_it=all_of_it)


def again_text(record: Mapping[str, Any]) -> str:
    """What the second run said, in a sentence."""
    again = record.get("again")
    if not again:
        return "Run once."
    return (
        f"Run twice: of {again['figures']} figures half differ by less than {again['median']:.0%}, nine in ten by less "
        f"than {again['p90']:.0%}, one by {again['most']:.0%}."
    )


def _result(name: str, options: Sequence[str]) -> Path:
    if "--json" in options:
        return Path(options[options.index("--json") + 1])
    return OUT / f"{name.replace('.', '_')}.json"


if __name__ == "__main__":
    main(sys.argv[1:])
