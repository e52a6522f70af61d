"""What a sink is, and how an event is written down."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Protocol

from clipdeploy.runtime.stream.records import Event


class Sink(Protocol):
    """Takes events, one after the other, from one thread."""

    @property
    def name(self) -> str:
        """What to call it in a message; holds no password."""

    def write(self, event: Event) -> None:
        """Deliver one event.

        Raises:
            OutputError: it cannot be delivered now; the same event is given again a little later. Any other exception
                means that it never will be.
        """

    def close(self) -> None:
        """No more events come."""


def event_as_dict(event: Event) -> dict[str, Any]:
    """What is told of an event: `time` in UTC, ISO 8601; `seconds` only of one that left."""
    told: dict[str, Any] = {
        "event": event.kind,
        "label": event.label,
        "camera": event.camera,
        "time": datetime.fromtimestamp(event.wall, timezone.utc).isoformat(timespec="milliseconds"),
        "time_s": round(event.time_s, 4),
        "frame": event.frame,
        "probability": round(event.probability, 4),
    }
    if event.seconds is not None:
        told["seconds"] = round(event.seconds, 3)
    return told


def event_as_json(event: Event) -> str:
    """The same in one line of JSON, without its end."""
    return json.dumps(event_as_dict(event), ensure_ascii=False)
