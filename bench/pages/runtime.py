"""What bench.runtime found, as tables."""

from __future__ import annotations

import statistics
from typing import Any

from bench.common import table

EAGER = "PyTorch eager fp32"
SLOWER_AT_MOST = 1.03
AT_LEAST = {("ViT-B-32", "1"): 7.0, ("ViT-B-32", "8"): 6.0}
"""How many times PyTorch eager's speed the best of ours is to reach, by model and batch."""


def report(record: dict[str, Any]) -> str:
    """The result as text."""
    env = record["environment"]
    head = f"{record['model']}, {env['threads']} threads, {env['cpu']}, load {env['load_1min']}"
    return "\n\n".join([head, *times_tables(record), ratios_table(record), verdicts(record)])


def times_tables(record: dict[str, Any]) -> list[str]:
    """A table for each batch: milliseconds, pictures a second, how many times PyTorch eager's speed, and the cosine."""
    head = ("median ms", "fastest", "pictures/s", "x eager", "fastest x eager", "at full speed", "x eager", "cosine")
    tables = []
    for batch, row in record["batches"].items():
        lines = []
        for name, taken in row["encode_ms"].items():
            times, best = row["times_pytorch"][name], full_speed(row, name)
            lines.append(
                (
                    name,
                    f"{taken['median_ms']:.1f}",
                    f"{taken['fastest_ms']:.1f}",
                    f"{int(batch) / taken['median_ms'] * 1e3:.0f}",
                    f"{times['median']:.2f}",
                    f"{times['fastest']:.2f}",
                    f"{best[0]:.1f}" if best else "",
                    f"{best[1]:.2f}" if best else "",
                    f"{row['least_cosine_to_pytorch'][name]:.4f}",
                )
            )
        tables.append(table((f"image encoder, batch {batch}", *head), lines))
    return tables


def full_speed(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Median ms of a candidate while the machine was at its best, and how many times PyTorch eager's speed then.

    None where either was never timed at such a moment.
    """
    found = row["at_full_speed"]
    if name not in found or EAGER not in found:
        return None
    return found[name]["median_ms"], found[EAGER]["median_ms"] / found[name]["median_ms"]


def probed(record: dict[str, Any]) -> tuple[float, float, float]:
    """The least, the median and the most ms that the probe took in the whole run."""
    taken = [ms for row in record["batches"].values() for one in row["probe_ms"] for ms in one]
    return min(taken), statistics.median(taken), max(taken)


def best_of_ours(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """For each batch: PyTorch eager, the fastest of ours with its name, and how many times as fast."""
    rows = []
    for batch, row in record["batches"].items():
        best = min(row["to_bare"], key=lambda name: row["encode_ms"][name]["median_ms"], default=None)
        if best is None:
            continue
        eager, ours = (row["encode_ms"][name]["median_ms"] for name in (EAGER, best))
        times = f"{row['times_pytorch'][best]['median']:.1f}x"
        rows.append((f"batch {batch}", f"{eager:.1f} ms", f"{ours:.1f} ms, {best.split(', ', 1)[1]}", times))
    return rows


def ratios_table(record: dict[str, Any]) -> str:
    """Ours over the bare engine with the same graph."""
    batches = record["batches"]
    head = ["time of ours over the bare engine's", *(f"batch {n}" for n in batches), "least and most of a round"]
    names = dict.fromkeys(name for row in batches.values() for name in row["to_bare"])
    rows = []
    for name in names:
        found = [row["to_bare"].get(name) for row in batches.values()]
        least, most = (pick(one[key] for one in found if one) for pick, key in ((min, "least"), (max, "most")))
        rows.append([name, *(f"{one['median']:.3f}" if one else "" for one in found), f"{least:.2f} to {most:.2f}"])
    return table(head, rows)


def verdicts(record: dict[str, Any]) -> str:
    """What was asked for, and whether it holds, in a line each."""
    batches = record["batches"]
    least, usual, most = probed(record)
    at_best = {
        (n, name): mine["median_ms"] / theirs["median_ms"]
        for n, row in batches.items()
        for name, found in row["to_bare"].items()
        if (mine := row["at_full_speed"].get(name)) and (theirs := row["at_full_speed"].get(found["bare"]))
    }
    ratios = {(n, name): found["median"] for n, row in batches.items() for name, found in row["to_bare"].items()}
    (batch, name), worst = max(ratios.items(), key=lambda item: item[1])
    slow = sum(value > SLOWER_AT_MOST for value in ratios.values())
    lines = [
        f"- Never more than {SLOWER_AT_MOST - 1:.0%} slower than the bare engine, by the median of paired rounds: "
        f"{len(ratios) - slow} of {len(ratios)} hold; the slowest is {worst:.3f} ({name}, batch {batch})."
    ]
    lines.append(
        f"- The machine itself: the same bfloat16 products took {least:.1f} ms at best, {usual:.1f} in the middle, "
        f"{most:.1f} at worst."
    )
    if at_best:
        slow = sum(value > SLOWER_AT_MOST for value in at_best.values())
        (batch, name), worst = max(at_best.items(), key=lambda item: item[1])
        lines.append(
            f"- While it was at its best: {len(at_best) - slow} of {len(at_best)} hold; the slowest is {worst:.3f} "
            f"({name}, batch {batch})."
        )
    for n, row in batches.items():
        ours = {name: found["median"] for name, found in row["times_pytorch"].items() if name in row["to_bare"]}
        if not ours:
            continue
        best = max(ours, key=ours.__getitem__)
        goal = AT_LEAST.get((record["model"], n))
        asked = "" if goal is None else f", asked for {goal:g}x: {'holds' if ours[best] >= goal else 'missed'}"
        lines.append(f"- Best at batch {n}: {best}, {ours[best]:.2f}x PyTorch eager{asked}.")
        times = {name: found[1] for name in ours if (found := full_speed(row, name))}
        if times:
            best = max(times, key=times.__getitem__)
            asked = "" if goal is None else f", asked for {goal:g}x: {'holds' if times[best] >= goal else 'missed'}"
            lines.append(f"- While the machine was at its best, batch {n}: {best}, {times[best]:.2f}x{asked}.")
    for n, choice in record["auto"].items():
        lines.append(f"- `auto` took {choice['backend']} {choice['precision']} for batches of {n}.")
    absent = {name: why for row in batches.values() for name, why in row["absent"].items()}
    lines += [f"- Not run: {name}. {why[0].upper()}{why[1:]}." for name, why in absent.items()]
    return "\n".join(lines)
