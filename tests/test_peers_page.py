"""What the page says of a record of bench.peers: who is best, which bars hold, where a peer is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.peers import verdicts
from bench.peers.page import peers_parts, report
from bench.peers.standings import contests, each_run, figures, moved, smallest_without_compiler


def _row(peer: str, mode: str, folder_ms: float, *, gate: str | None = "float32", ours: bool = False) -> dict[str, Any]:
    return {
        "peer": peer,
        "mode": mode,
        "ours": ours,
        "computes": "int8" if gate == "few bits" else "fp32",
        "needs": "a C++ compiler" if mode == "compiled" else None,
        "folder_ms": [folder_ms, folder_ms * 1.1, folder_ms * 0.9],
        "single_ms": [folder_ms + 5.0] * 3,
        "text_ms": [4.0 if ours else 1.0],
        "probe_ms": [4.0, 5.0],
        "pictures_a_round": 8,
        "texts_a_round": 5,
        "first_answer_s": [1.0 if ours else 3.0],
        "memory": {"resident": 90_000_000, "peak": 100_000_000},
        "exactness": {
            "images_mean": 0.9999,
            "images_least": 0.9999,
            "centred_least": 0.99,
            "texts_least": 1.0,
            "gate": gate,
            "texts_gate": "float32",
        },
    }


def _record(our_ms: float = 20.0, *, twice: bool = True, size: int = 190_000_000) -> dict[str, Any]:
    def rows(factor: float) -> list[dict[str, Any]]:
        return [
            _row("clipdeploy[cpu]", "fp32", 2 * our_ms * factor, ours=True),
            _row("clipdeploy[cpu]", "int8", our_ms * factor, ours=True, gate="few bits"),
            _row("open_clip", "eager", 90.0 * factor),
            _row("open_clip", "compiled", 61.0 * factor),
            _row("tiny", "int8", 35.0 * factor, gate="few bits"),
            _row("wrong", "fp32", 1.0 * factor, gate=None),
        ]

    sizes = {"clipdeploy[cpu]": size, "open_clip": 5_600_000_000, "tiny": 8_200_000, "wrong": 500_000_000}
    run_ = {"created": "2026-11-22T12:00:00Z", "seconds": 600, "absent": [{"name": "gone", "why": "it broke"}]}
    factors = (1.0, 1.02) if twice else (1.0,)
    return {
        "benchmark": "peers",
        "command": "python -m bench.peers",
        "model": "ViT-B-32-quickgelu",
        "environment": {"cpu": "a processor", "threads": 2, "cores": 2, "python": "3.11.7"},
        "work": {
            "pictures": 32,
            "texts": 1000,
            "batch": 8,
            "rounds": 3,
            "text_batch": 50,
            "singles": 8,
            "jpeg_bytes": 203000,
            "photographs": True,
        },
        "ceiling": {"fp32": 362.0, "bf16": 1500.0, "int8": 2600.0, "copy_gb_per_second": 9.0},
        "peers": [
            {
                "name": name,
                "what": "",
                "ours": name.startswith("clip"),
                "requirements": [name],
                "no_texts": "",
                "versions": {name: "1.0"},
                "installed_bytes": count,
                "largest": {"numpy": count // 2},
            }
            for name, count in sizes.items()
        ],
        "not_taken": [{"name": "another", "why": "no library"}],
        "runs": [{**run_, "rows": rows(factor)} for factor in factors],
    }


def test_the_best_peer_is_among_those_that_pass_the_same_gate() -> None:
    found = {(one.work, one.gate): one for one in contests(figures(_record()))}
    exact, few = found["a folder of JPEGs", "float32"], found["a folder of JPEGs", "few bits"]
    assert exact.ours is not None and exact.theirs is not None and few.ours is not None and few.theirs is not None
    assert (exact.ours.mode, exact.theirs.name) == ("fp32", "open_clip, compiled")
    assert (few.ours.mode, few.theirs.name) == ("int8", "tiny, int8")
    assert few.times == pytest.approx(35.0 / 20.0)
    smallest = smallest_without_compiler(figures(_record()))
    assert smallest is not None and smallest.peer == "tiny"


@pytest.mark.parametrize(
    ("our_ms", "size", "held", "missed"),
    [(20.0, 190_000_000, 4, 1), (33.0, 190_000_000, 1, 4), (20.0, 4_000_000, 5, 0)],
)
def test_bars_say_whether_they_hold_and_why_not(our_ms: float, size: int, held: int, missed: int) -> None:
    record = _record(our_ms, size=size)
    lines = verdicts.bars(figures(record), record)
    assert sum("holds." in line for line in lines) == held
    assert sum("missed." in line for line in lines) == missed
    assert all("Next:" in line for line in lines if "missed." in line)


def test_where_a_peer_is_better_is_told() -> None:
    record = _record()
    lines = verdicts.where_peers_are_better(figures(record), record)
    assert any(line.startswith("float32 and few bits gate, texts: ") and "Next:" in line for line in lines)
    assert any(line.startswith("few bits gate, installed: tiny 8.2 MB") for line in lines)
    assert not any("a folder" in line for line in lines)


def test_how_much_two_runs_differ() -> None:
    assert moved(_record(), "folder_ms") == pytest.approx([0.02] * 6)
    assert moved(_record(twice=False), "folder_ms") == []
    assert each_run(_record(twice=False)) == []
    told = {(one.work, one.gate): times for one, times in each_run(_record())}
    assert told["a folder of JPEGs", "few bits"] == pytest.approx((1.75, 1.75)), "all moved alike"


def test_the_page_tells_all() -> None:
    text = "\n\n".join(peers_parts(_record()))
    prose = "".join(text.split("```")[::2])
    assert max(map(len, prose.splitlines())) <= 120
    for told in (
        *("## Beside the peers", "python -m bench.peers", "a processor, 2 threads of 2 cores", "2026-11-22"),
        *("clipdeploy[cpu], int8", "1.75x", "Where a peer is better", "Run twice, a folder", "all of it twice"),
        *("- gone: it broke.", "- another: no library.", "wrong, fp32", "none"),
    ):
        assert told in " ".join(text.split()), told
    assert "None" not in text
    assert "not measured: gone: it broke" in report(_record(twice=False))


def test_a_page_without_peers_compares_nobody() -> None:
    record = _record(twice=False)
    record["runs"][0]["rows"] = [row for row in record["runs"][0]["rows"] if row["ours"]]
    lines = verdicts.bars(figures(record), record)
    assert all("nobody to compare" in line for line in lines)
    assert peers_parts(record)


def test_the_kept_record_is_one_that_the_page_reads() -> None:
    path = Path(__file__).resolve().parents[1] / "bench" / "results" / "peers.json"
    if not path.is_file():
        pytest.skip("no result is kept yet: python -m bench.peers")
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = figures(record)
    assert any(row.ours for row in rows) and any(not row.ours for row in rows)
    assert peers_parts(record)
