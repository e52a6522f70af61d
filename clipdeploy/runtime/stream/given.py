"""What an app gives a stream, as the stream takes it: a model, sources, a function to call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from clipdeploy.errors import InputError
from clipdeploy.runtime.stream.answerer import Answerer, BakedAnswerer, ClipAnswerer
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks import Callback
from clipdeploy.runtime.stream.sources import Source, open_source

_log = logging.getLogger("clipdeploy.stream")


class Listener(Callback):
    """`on_event`, whose first error is told."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        super().__init__(function)
        self._told = False

    def write(self, event: Event) -> None:
        """Call it; what it raises goes to the outbox, which counts it."""
        try:
            super().write(event)
        except Exception:
            if not self._told:
                self._told = True
                _log.warning("on_event failed with %r; the stream goes on", event, exc_info=True)
            raise


def answerer_of(
    model: Any, labels: Sequence[str] | None, others: Sequence[str], template: str | Sequence[str]
) -> Answerer:
    """What is asked: a Clip with labels, a Baked, or what is an Answerer already."""
    if isinstance(model, Answerer):
        found: Answerer = model
    elif hasattr(model, "encode_labels"):
        if labels is None:
            raise InputError("a Clip has no labels of its own", fix='pass labels=["a person", "a parcel"]')
        return ClipAnswerer(model, [*labels, *others], template)
    elif hasattr(model, "logits"):
        found = BakedAnswerer(model)
    else:
        raise InputError(
            f"expected a Clip, a Baked or an Answerer, got {type(model).__name__}",
            fix='pass clipdeploy.load("bundle/")',
        )
    if labels is not None:
        raise InputError(f"a {type(model).__name__} has its own labels", fix="leave `labels` out")
    unknown = [label for label in others if label not in found.labels]
    if unknown:
        raise InputError(
            f"`others` names {unknown[0]!r}, which is no label of this {type(model).__name__}",
            fix=f"choose from those that it has: {', '.join(map(repr, found.labels[:8]))}",
        )
    return found


def sources_of(given: Any) -> tuple[Source, ...]:
    """One source or a list of them, opened; raises InputError where two have one name."""
    many = list(given) if isinstance(given, (list, tuple)) else [given]
    if not many:
        raise InputError("no source to stream from", fix="pass a camera, a file or any iterable of frames")
    opened = tuple(one if _is_source(one) else open_source(one) for one in many)
    names = [source.name for source in opened]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two sources are called {twice[0]!r}", fix="give each a name: open_source(..., name=...)")
    return opened


def _is_source(one: Any) -> bool:
    return all(hasattr(one, name) for name in ("name", "live", "frames"))
