"""clipdeploy beside its peers, in one interleaved run.

    python -m bench.peers [--only NAME ...] [--count 32] [--rounds 4] [--threads 2] [--photos FOLDER] [--again]

Makes an environment for each peer and the checkpoint in each one's format at the first run, some ten minutes and 8 GB,
and keeps them in out/peers; then some twenty minutes on two cores; `--again` twice that.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import OUT, environment, write_json
from bench.peers.catalogue import NOT_TAKEN, PEERS, Peer, chosen
from bench.peers.checkpoint import MODEL, write_form
from bench.peers.page import report
from bench.peers.processes import Process
from bench.peers.record import absent_of, installed_of, rows_of
from bench.peers.run import run
from bench.peers.turns import Row
from bench.peers.venvs import NotInstalledError, Venv, venv_of
from bench.peers.work import work_of

KEPT = Path("out/peers")
_AFTER_PROBE_S = 0.01


def main() -> None:
    """Install, write, measure, print."""
    options = _parser().parse_args()
    peers = chosen(options.only)
    absent: dict[str, str] = {}
    venvs: dict[str, Venv] = {}
    rows: list[Row] = []
    for peer in peers:
        try:
            venvs[peer.name], found, lacking = _ready(peer, options)
            rows += found
            absent |= lacking
        except NotInstalledError as error:
            absent[peer.name] = f"does not install here: {error}"
        except Exception as error:  # noqa: BLE001 (whatever a converter may end with: the others go on)
            absent[peer.name] = f"the checkpoint could not be written for it: {' '.join(str(error).split())[:300]}"
    work = work_of(KEPT / "pictures", options.photos, count=options.count, texts=options.texts, rounds=options.rounds)
    record: dict[str, Any] = {
        "benchmark": "peers",
        "command": " ".join(["python -m bench.peers", *_told(sys.argv[1:])]),
        "environment": environment(options.threads),
        "model": MODEL,
        "work": {
            "pictures": len(work.pictures),
            "texts": len(work.texts),
            "batch": work.batch,
            "rounds": work.rounds,
            "text_batch": work.text_batch,
            "singles": work.singles,
            "photographs": options.photos is not None,
            "jpeg_bytes": sum(Path(path).stat().st_size for path in work.pictures) // len(work.pictures),
        },
        "ceiling": _ceiling(options.threads),
        "peers": [installed_of(peer, venvs[peer.name]) for peer in peers if peer.name in venvs],
        "not_taken": [{"name": one.name, "why": one.why} for one in NOT_TAKEN],
        "runs": [],
    }
    for _ in range(2 if options.again else 1):
        created, started = datetime.now(timezone.utc), time.perf_counter()
        exact, starts = run(rows, work, starts=options.starts, probe=partial(_probe, options.threads))
        record["runs"].append(
            {
                "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "seconds": round(time.perf_counter() - started),
                "rows": rows_of(rows, exact, starts),
                "absent": [{"name": name, "why": why} for name, why in (absent | absent_of(rows)).items()],
            }
        )
        write_json(options.json, record)
        rows = [Row(row.peer, row.mode, row.process) for row in rows]
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"some of: {names}")
    parser.add_argument("--count", type=int, default=32, help="JPEGs of 1920x1080 (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=1000, help="texts, shared among the rounds (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of every peer (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes of each peer (default: %(default)s)")
    parser.add_argument("--photos", type=Path, help="folder of photographs to make the JPEGs of; drawn when not given")
    parser.add_argument("--again", action="store_true", help="do all of it twice, to see how much it moves")
    parser.add_argument("--venvs", type=Path, default=KEPT / "venvs", help="environments (default: %(default)s)")
    parser.add_argument("--forms", type=Path, default=KEPT / "forms", help="checkpoints (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=OUT / "peers.json", help="result file (default: %(default)s)")
    return parser


def _ready(peer: Peer, options: argparse.Namespace) -> tuple[Venv, list[Row], dict[str, str]]:
    """Its environment, a row for each mode that can run here, and why the others cannot."""
    venv = venv_of(peer, options.venvs.resolve())
    process = Process(peer, venv.python, write_form(peer.form, options.forms.resolve()), options.threads)
    rows, lacking = [], {}
    for mode in peer.modes:
        if mode.needs and not any(map(shutil.which, ("g++", "clang++"))):
            lacking[f"{peer.name}, {mode.name}"] = f"needs {mode.needs}, and none is here"
        else:
            rows.append(Row(peer, mode, process))
    return venv, rows, lacking


def _ceiling(threads: int) -> dict[str, float]:
    """GFLOP/s of the fastest large product at each precision, and GB/s of copying, measured right before."""
    from bench.ceiling import best, measure

    print("measuring the machine's ceiling", flush=True)
    record = measure(threads, 2, {"fp32": (1024,), "bf16": (2048,), "int8": (2048,)})
    found = {name: round(float(best(record, name)["fastest"]), 1) for name in ("fp32", "bf16", "int8")}
    return {**found, "copy_gb_per_second": round(max(one["fastest"] for one in record["copies"]), 1)}


def _probe(threads: int) -> float:
    """By PyTorch, with as many threads as everybody; its own are asleep again afterwards."""
    import torch

    from bench.ceiling import probe

    torch.set_num_threads(threads)
    taken = probe()
    time.sleep(_AFTER_PROBE_S)
    return taken


def _told(arguments: list[str]) -> list[str]:
    """The command's arguments, without where things are kept on this machine."""
    told, skip = [], False
    for one in arguments:
        if skip or one.split("=")[0] in ("--venvs", "--forms", "--json", "--photos"):
            skip = not skip and "=" not in one
            continue
        told.append(one)
    return told


if __name__ == "__main__":
    main()
