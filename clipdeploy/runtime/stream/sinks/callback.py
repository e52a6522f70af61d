"""Events to a function."""

from __future__ import annotations

from collections.abc import Callable

from clipdeploy.runtime.stream.records import Event


class Callback:
    """Calls `function` with each event, in the outbox's thread. What it raises costs that event, and is told."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        self.name = f"callback {getattr(function, '__qualname__', type(function).__qualname__)}"
        self._function = function

    def write(self, event: Event) -> None:
        """Call the function."""
        self._function(event)

    def close(self) -> None:
        """Nothing to close."""
