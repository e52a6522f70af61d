"""Which backends and precisions are measured, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipdeploy.benchmark.records import ALL, Absent, BenchRequest
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, ClipdeployError, EngineError, InputError, MissingExtraError
from clipdeploy.runtime.auto.candidates import Asked, Pair, label
from clipdeploy.runtime.backends import AUTO, choose_backend, installed_backends, parse_backend
from clipdeploy.runtime.choose import rounds_by_itself
from clipdeploy.runtime.chosen import Chosen
from clipdeploy.spec import Precision, Tower

_NOT_HERE = (InputError, BackendError, EngineError, MissingExtraError)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        candidates: name, such as `openvino int8` -> what it runs; nothing of it is loaded.
        absent: pairs that cannot be measured here.
    """

    candidates: dict[str, Chosen]
    absent: tuple[Absent, ...]


def plan(bundle: Bundle, request: BenchRequest) -> Plan:
    """The pairs that the request asks for; opens nothing.

    Raises:
        InputError, MissingExtraError, BackendError, EngineError: a name is unknown; a backend that is named is not
            installed; a pair whose backend and precision are both named cannot run; or no pair can.
    """
    if bundle.manifest.baked is not None:
        raise InputError(
            f"bundle {bundle.folder} is baked: its graph answers by itself, and holds no encoders to measure",
            fix="measure the bundle that it was baked from; what frames cost in the graph is in docs/frames.md",
        )
    found: dict[str, Chosen] = {}
    errors: dict[Pair, ClipdeployError] = {}
    for backend in _backends(request.backends):
        for precision in _precisions(bundle, backend, request.precisions):
            pair = (backend, precision)
            try:
                found[label(pair)] = Asked(precision, backend, request.target).settle(bundle, pair, "")
            except _NOT_HERE as error:
                if is_named(request, pair):
                    raise
                errors[pair] = error
    if not found:
        raise _nothing(bundle, errors)
    absent = tuple(Absent(backend, precision.value, error.message) for (backend, precision), error in errors.items())
    return Plan(found, absent)


def is_named(request: BenchRequest, pair: Pair) -> bool:
    """Whether the user named both the backend and the precision."""
    backends = {parse_backend(name) for name in request.backends if name != ALL}
    precisions = {Precision.parse(name) for name in request.precisions if name != ALL}
    return pair[0] in backends and pair[1] in precisions


def _backends(names: Sequence[str]) -> tuple[str, ...]:
    """In the order named, each once; raises for one that is not installed."""
    found: dict[str, None] = {}
    for name in names:
        if name == ALL:
            found.update(dict.fromkeys(installed_backends() or (choose_backend(AUTO).name,)))
            continue
        known = parse_backend(name)
        if known == AUTO:
            raise InputError("auto is no backend to measure", fix=f"pass {ALL}, or the name of one")
        found[choose_backend(known).name] = None
    return tuple(found)


def _precisions(bundle: Bundle, backend: str, names: Sequence[str]) -> tuple[Precision, ...]:
    """Those named; for `all` those that the bundle holds, and what the backend makes of them, in their order."""
    asked = {Precision.parse(name) for name in names if name != ALL}
    if ALL in names:
        asked |= {precision for tower in Tower for precision in bundle.precisions(tower)}
        if rounds_by_itself(backend, Precision.BF16) and any(Precision.FP32 in bundle.precisions(t) for t in Tower):
            asked.add(Precision.BF16)
    return tuple(precision for precision in Precision if precision in asked)


def _nothing(bundle: Bundle, errors: dict[Pair, ClipdeployError]) -> ClipdeployError:
    """The error where nothing can be measured: the only one's own, or that of all."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    if not errors:
        return InputError(
            f"bundle {bundle.folder} holds no graph", fix=f"see what it holds: clipdeploy inspect {bundle.folder}"
        )
    lines = [f"  {label(pair)}: {error.message}" for pair, error in errors.items()]
    message = "\n".join([f"nothing that is asked for of bundle {bundle.folder} runs here:", *lines])
    return BackendError(message, fix=next(iter(errors.values())).fix)
