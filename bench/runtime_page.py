"""What bench.runtime found, as tables."""

from __future__ import annotations

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
    head = ("median ms", "fastest ms", "pictures/s", "x eager", "fastest x eager", "cosine")
    tables = []
    for batch, row in record["batches"].items():
        lines = []
        for name, taken in row["encode_ms"].items():
            times = row["times_pytorch"][name]
            lines.append(
                (
                    name,
                    f"{taken['median_ms']:.1f}",
                    f"{taken['fastest_ms']:.1f}",
                    f"{int(batch) / taken['median_ms'] * 1e3:.0f}",
                    f"{times['median']:.2f}",
                    f"{times['fastest']:.2f}",
                    f"{row['least_cosine_to_pytorch'][name]:.4f}",
                )
            )
        tables.append(table((f"image encoder, batch {batch}", *head), lines))
    return tables


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
    ratios = {(n, name): found["median"] for n, row in batches.items() for name, found in row["to_bare"].items()}
    (batch, name), worst = max(ratios.items(), key=lambda item: item[1])
    slow = sum(value > SLOWER_AT_MOST for value in ratios.values())
    lines = [
        f"- Never more than {SLOWER_AT_MOST - 1:.0%} slower than the bare engine, by the median of paired rounds: "
        f"{len(ratios) - slow} of {len(ratios)} hold; the slowest is {worst:.3f} ({name}, batch {batch})."
    ]
    for n, row in batches.items():
        ours = {name: found["median"] for name, found in row["times_pytorch"].items() if name in row["to_bare"]}
        if not ours:
            continue
        best = max(ours, key=ours.__getitem__)
        least = AT_LEAST.get((record["model"], n))
        asked = "" if least is None else f", asked for {least:g}x: {'holds' if ours[best] >= least else 'missed'}"
        lines.append(f"- Best at batch {n}: {best}, {ours[best]:.2f}x PyTorch eager{asked}.")
    for n, choice in record["auto"].items():
        lines.append(f"- `auto` took {choice['backend']} {choice['precision']} for batches of {n}.")
    absent = {name: why for row in batches.values() for name, why in row["absent"].items()}
    lines += [f"- Not run: {name}. {why[0].upper()}{why[1:]}." for name, why in absent.items()]
    return "\n".join(lines)
