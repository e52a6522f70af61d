"""What could run a bundle on this machine: pairs of backend and precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, ClipdeployError, EngineError, InputError, MissingExtraError
from clipdeploy.runtime.backends import AUTO, ONNXRUNTIME, BackendChoice, choose_backend, installed_backends
from clipdeploy.runtime.choose import StandIns, computes, rounds_by_itself
from clipdeploy.runtime.chosen import Chosen, settle
from clipdeploy.spec import Precision, Target, Tower

Pair: TypeAlias = tuple[str, Precision]
"""A backend and a precision."""

_SHOWN = 160


@dataclass(frozen=True)
class Asked:
    """What `load` was asked for, of what decides which backends and precisions may run.

    Attributes:
        precision: None for `auto`.
        backend: a name, or `auto`.
        target: whose 8-bit graphs to take; None takes those made for each engine.
        stand_ins: graphs to load in place of the bundle's.
    """

    precision: Precision | None
    backend: str
    target: Target | None = None
    stand_ins: StandIns | None = None

    def settle(self, bundle: Bundle, pair: Pair, reason: str) -> Chosen:
        """What runs a bundle with this backend in this precision; raises what `load` raises."""
        name, precision = pair
        return settle(
            bundle,
            precision,
            BackendChoice(name, reason),
            target=self.target,
            stand_ins=self.stand_ins,
            freely=self.precision is None,
        )


@dataclass
class Field:
    """The candidates, and what is out of the running.

    Attributes:
        running: each with what it would run.
        out: backend and precision, and why not; in the order in which it was found.
    """

    running: dict[Pair, Chosen] = field(default_factory=dict)
    out: dict[Pair, ClipdeployError] = field(default_factory=dict)


def find_candidates(bundle: Bundle, asked: Asked) -> Field:
    """The candidates for a bundle; opens nothing.

    Raises:
        MissingExtraError, BackendError: no engine is installed at all, or the one that was named is not.
    """
    found = Field()
    for backend in _backends(asked):
        for precision in _precisions(bundle, asked, backend):
            pair = (backend, precision)
            try:
                found.running[pair] = asked.settle(bundle, pair, "")
            except (InputError, BackendError, EngineError, MissingExtraError) as error:
                if asked.precision is not None or isinstance(error, EngineError):
                    found.out[pair] = error
    return found


def label(pair: Pair) -> str:
    """Such as `openvino int8`."""
    return f"{pair[0]} {pair[1].value}"


def why(error: ClipdeployError) -> str:
    """An error in some words."""
    if isinstance(error, EngineError):
        return "no engine built for this GPU"
    line = error.message.splitlines()[0].split("; ")[0]
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _backends(asked: Asked) -> tuple[str, ...]:
    if asked.backend != AUTO:
        return (choose_backend(asked.backend).name,)
    if asked.stand_ins is not None and asked.stand_ins.graphs:
        return (choose_backend(ONNXRUNTIME).name,)  # they are made for it
    return installed_backends() or (choose_backend(AUTO).name,)


def _precisions(bundle: Bundle, asked: Asked, backend: str) -> tuple[Precision, ...]:
    """Those that were asked for; for `auto` those that the bundle holds and the backend computes in."""
    if asked.precision is not None:
        return (asked.precision,)
    held = {precision for tower in Tower for precision in bundle.precisions(tower)}
    if rounds_by_itself(backend, Precision.BF16):
        held.add(Precision.BF16)
    return tuple(precision for precision in Precision if precision in held and computes(backend, precision))
