"""Which backends and precisions are evaluated, and which of them the others are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError, InputError
from clipdeploy.evaluate.records import ALL, EvaluateRequest
from clipdeploy.runtime.auto.candidates import Asked, Pair, find_candidates, label, why
from clipdeploy.runtime.backends import AUTO, parse_backend
from clipdeploy.runtime.choose import check_target, parse_precision
from clipdeploy.spec import Precision


@dataclass
class Pairs:
    """What is evaluated.

    Attributes:
        running: in order; the reference first, where it is one of the bundle's.
        named: those that were asked for by both names: what keeps one of them from running is an error.
        absent: name of a pair -> why it cannot run.
        reference: the bundle's own in fp32; None where PyTorch is, or where nothing runs fp32.
    """

    running: list[Pair] = field(default_factory=list)
    named: set[Pair] = field(default_factory=set)
    absent: dict[str, str] = field(default_factory=dict)
    reference: Pair | None = None

    def leave_out(self, pair: Pair, error: ClipdeployError) -> None:
        """Note why a pair cannot run; raises `error` where it was asked for by name, or nothing is left."""
        if pair in self.named or pair == self.reference or self.running == [pair]:
            raise error
        self.running.remove(pair)
        self.absent[label(pair)] = why(error)


def find_pairs(bundle: Bundle, request: EvaluateRequest) -> Pairs:
    """The pairs that a request means on this machine; opens nothing.

    Raises:
        InputError: no such name.
        MissingExtraError, BackendError, InputError, EngineError: a backend, a precision or a pair that was asked for
            by name does not run; or nothing does.
    """
    check_target(request.target)
    backends, precisions = _backends(request.backends), _precisions(request.precisions)
    found = Pairs()
    ran: set[str | Precision | None] = set()
    errors: dict[str | Precision | None, ClipdeployError] = {}
    for backend in backends:
        for precision in precisions:
            candidates = find_candidates(bundle, Asked(precision, backend, request.target))
            named = backend != AUTO and precision is not None
            for pair, error in candidates.out.items():
                if named:
                    raise error
                found.absent[label(pair)] = why(error)
                errors.setdefault(backend, error)
                errors.setdefault(precision, error)
            for pair in candidates.running:
                ran |= {backend, precision}
                found.running += [pair] if pair not in found.running else []
                found.named |= {pair} if named else set()
    for asked in (*backends, *precisions):
        if asked not in ran:
            raise errors.get(asked) or InputError(
                f"bundle {bundle.folder} holds nothing that {'this machine' if asked in (AUTO, None) else asked} runs",
                fix=f"see what it holds: clipdeploy inspect {bundle.folder}",
            )
    if request.checkpoint is None:
        found.reference = _reference(bundle, found.running)
        found.running.sort(key=lambda pair: pair != found.reference)
        if found.reference is not None and found.reference not in found.running:
            found.running.insert(0, found.reference)
    return found


def _reference(bundle: Bundle, running: Sequence[Pair]) -> Pair | None:
    """The first of the pairs in fp32; else the bundle's own, evaluated to compare with."""
    for pair in running:
        if pair[1] is Precision.FP32:
            return pair
    own = find_candidates(bundle, Asked(Precision.FP32, AUTO)).running
    return next(iter(own), None)


def _backends(names: Sequence[str]) -> tuple[str, ...]:
    """As `find_candidates` takes them."""
    if AUTO in names:
        raise InputError("auto chooses one backend; evaluating compares them", fix=f'name backends, or "{ALL}"')
    return tuple(dict.fromkeys(AUTO if name == ALL else parse_backend(name) for name in names or (ALL,)))


def _precisions(names: Sequence[str]) -> tuple[Precision | None, ...]:
    if AUTO in names:
        raise InputError("auto chooses one precision; evaluating compares them", fix=f'name precisions, or "{ALL}"')
    return tuple(dict.fromkeys(None if name == ALL else parse_precision(name) for name in names or (ALL,)))
