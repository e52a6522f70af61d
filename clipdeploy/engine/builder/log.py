"""What a builder says while it works, and the few lines of it that are kept.

A verbose builder writes thousands of lines. Kept are the final layers, which it states once near the end, the
attention patterns that it recognised, and warnings and errors.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from clipdeploy.runtime.trt.product import product_log

_LAYERS = ("Layers:", "Engine Layer Information:")
"""How the message begins that lists the final layers: of TensorRT for RTX, and of TensorRT."""
_END = ("I/O Tensors:", "Bindings:", "Engine Metadata:")
"""What follows the layers in that message, and is left."""
_ALSO_KEPT = ("self-attention", "will not be able to run on target")
_SOURCE = re.compile(r"^\s*(?:\[?[\w./:]+\.(?:cpp|h)[^\s\]]*\]?:?\s+|\(foreignNode\)\s*(?:Warning:\s*)?)")
"""Where in the builder's source a message comes from; says nothing to a user."""
_NOISE = (
    "has Int64 binding",  # token ids are int64 in the graph and at the engine's door
    "Thread context has not been set",
    "logger passed into",
)
_TACTIC_MEMORY = re.compile(r"insufficient (?:device )?memory|memory is insufficient", re.IGNORECASE)


@dataclass
class BuilderLog:
    """The lines of one build.

    Attributes:
        layers: the heading of the final layers and one line each, and those about attention.
        warnings: each once, in the order they came.
        errors: as the builder wrote them.
        skipped_for_memory: kernels that were not tried because memory was short.
    """

    layers: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped_for_memory: int = 0

    def take(self, severity: str, message: str) -> None:
        """One message; `severity` is the builder's name of it, such as `VERBOSE`."""
        head, _, rest = message.partition("\n")
        if head.strip().startswith(_LAYERS):
            self.layers.append(head)
            self.layers += takewhile(lambda line: not line.startswith(_END), filter(str.strip, rest.splitlines()))
        elif any(mark in head for mark in _ALSO_KEPT):
            self.layers.append(message)
            if "target" in head:
                self._warn(message)
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(message)
        elif _TACTIC_MEMORY.search(head):
            self.skipped_for_memory += 1
        elif severity == "WARNING":
            self._warn(message)

    def _warn(self, message: str) -> None:
        text = _SOURCE.sub("", message).strip()
        if text and text not in self.warnings and not any(noise in text for noise in _NOISE):
            self.warnings.append(text)


_building = threading.Lock()


@contextmanager
def listening(module: Any) -> Iterator[tuple[Any, BuilderLog]]:
    """The logger to hand to the product, and what arrives there; one build at a time in this process.

    A product keeps the first logger that it is given for the life of the process, so all share the runtime's.
    """
    logger = product_log(module)
    with _building:
        log = BuilderLog()
        logger.listener = log.take
        try:
            yield logger, log
        finally:
            logger.listener = None
