"""What the page is told: one JSON document, several times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clipdeploy.runtime.stream.records import CameraStats
from clipdeploy.watch.board import Board
from clipdeploy.watch.shown import bars, clock_time, present

MOST_BARS = 12


def state(board: Board, labels: Callable[[], tuple[str, ...]], *, events_after: int) -> dict[str, Any]:
    """Cameras, labels, counts, and the events newer than number `events_after`."""
    stats = board.stats()
    return {
        "labels": list(labels()),
        "cameras": [_camera(board, camera) for camera in stats.cameras],
        "latency_ms": [round(value, 1) for value in stats.latency_ms],
        "answer_ms": [round(value, 1) for value in stats.answer_ms],
        "events": [
            {
                "number": told.number,
                "kind": told.event.kind,
                "label": told.event.label,
                "camera": told.event.camera,
                "time": clock_time(told.event.wall),
                "seconds": None if told.event.seconds is None else round(told.event.seconds, 1),
            }
            for told in board.events(events_after)
        ],
        "told": stats.events,
        "lost": stats.events_lost,
        "seconds": round(stats.seconds),
        "over": board.closed,
    }


def _camera(board: Board, camera: CameraStats) -> dict[str, Any]:
    seen = board.newest(camera.camera)
    told: dict[str, Any] = {
        "name": camera.camera,
        "state": camera.state,
        "error": camera.error,
        "fps": round(camera.fps, 1),
        "captured": camera.captured,
        "answered": camera.answered,
        "repeated": camera.repeated,
        "dropped": camera.dropped,
        "failed": camera.failed,
        "reconnects": camera.reconnects,
        "size": None,
        "bars": [],
        "present": [],
    }
    if seen is not None:
        frame, decision = seen.result.frame, seen.result.decision
        told["size"] = [frame.width, frame.height]
        here = present(decision, camera)
        told["present"] = list(here)
        told["latency_ms"] = round(seen.result.latency_s * 1e3, 1)
        told["bars"] = [
            {
                "label": one.label,
                "probability": round(one.probability, 3),
                "present": one.present,
                "seconds": _seconds(board, camera.camera, one.label) if one.present else None,
            }
            for one in bars(decision, MOST_BARS, here)
        ]
    return told


def _seconds(board: Board, camera: str, label: str) -> int | None:
    since = board.in_view_s(camera, label)
    return None if since is None else round(since)
