"""What a run leaves behind, as JSON."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.peers.catalogue import Peer
from bench.peers.gates import Exactness
from bench.peers.starts import Starts
from bench.peers.turns import Row
from bench.peers.venvs import Venv

_ENGINES = ("torch", "onnxruntime", "openvino", "numpy", "pillow", "tokenizers", "transformers")


def installed_of(peer: Peer, venv: Venv) -> dict[str, Any]:
    """What the peer is and takes on disk; versions of what it asked for and of what computes."""
    asked = {re.split(r"[\[=<>!{]", one)[0].lower().replace("_", "-") for one in peer.requirements} | {"clipdeploy"}
    told = {
        name: version
        for name, version in venv.versions.items()
        if name.lower().replace("_", "-") in asked or name.lower() in _ENGINES
    }
    return {
        "name": peer.name,
        "what": peer.what,
        "ours": peer.ours,
        "requirements": [one.replace("{repository}", ".") for one in peer.requirements],
        "versions": told,
        "installed_bytes": venv.installed_bytes,
        "largest": venv.largest,
        "no_texts": peer.no_texts,
    }


def rows_of(rows: Sequence[Row], exact: Mapping[str, Exactness], starts: Mapping[str, Starts]) -> list[dict[str, Any]]:
    """Every row that was measured through, by the medians of its rounds."""
    return [
        {
            "peer": row.peer.name,
            "mode": row.mode.name,
            "ours": row.peer.ours,
            "needs": row.mode.needs,
            "computes": row.mode.computes,
            "folder_ms": _rounded(row.folder_ms),
            "single_ms": _rounded(list(map(statistics.median, row.single_ms))),
            "text_ms": _rounded(row.text_ms),
            "pictures_a_round": row.pictures,
            "texts_a_round": row.texts,
            "probe_ms": _rounded(row.probes_ms),
            "turns_again": row.again,
            "exactness": asdict(exact[row.name]) if row.name in exact else None,
            "first_answer_s": _rounded(starts[row.name].seconds) if row.name in starts else [],
            "memory": _memory(starts.get(row.name)),
        }
        for row in rows
        if not row.failed
    ]


def absent_of(rows: Sequence[Row]) -> dict[str, str]:
    """Why rows were given up, by name."""
    return {row.name: row.failed for row in rows if row.failed}


def _memory(starts: Starts | None) -> dict[str, int] | None:
    return None if starts is None else {"resident": starts.resident, "peak": starts.peak}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]
