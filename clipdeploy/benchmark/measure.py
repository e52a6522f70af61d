"""A group of candidates measured side by side: everything but their cold starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clipdeploy.benchmark.child import Child
from clipdeploy.benchmark.drawn import repeated
from clipdeploy.benchmark.records import BenchRequest
from clipdeploy.benchmark.turns import Count, Turns, started
from clipdeploy.runtime.chosen import Chosen
from clipdeploy.spec import Tower

if TYPE_CHECKING:
    from clipdeploy.benchmark.board import BoardWatch

FOLDER_ROUNDS = 2
_STAGES_SHARE = 1.5
"""Of the seconds of a turn, what a turn at all the stages takes."""

Rounds: TypeAlias = list[list[float]]
"""Calls in ms, a list a round."""


@dataclass(frozen=True)
class Bench:
    """What is measured, and how.

    Attributes:
        request: as given.
        candidates: name -> what it runs.
        pictures: files.
        images, texts: which encoders.
        command: what starts a process.
        environment: variables of the processes.
        count: how far the run is.
        board: watches a Jetson; None elsewhere.
    """

    request: BenchRequest
    candidates: Mapping[str, Chosen]
    pictures: Sequence[Path]
    images: bool
    texts: bool
    command: Sequence[str]
    environment: Mapping[str, str]
    count: Count
    board: BoardWatch | None = None

    @property
    def openings(self) -> tuple[int, ...]:
        """The usual batches that encoders are opened for, one after the other: for one picture in any case."""
        return tuple(sorted({1, *self.request.batches} if self.images else set(self.request.batches)))

    def how(self, name: str, usual_batch: int) -> dict[str, Any]:
        """As `Worker.open` takes it."""
        chosen, request = self.candidates[name], self.request
        return {
            "bundle": str(chosen.bundle.folder.resolve()),
            "backend": chosen.backend.name,
            "precision": chosen.precision.value,
            "target": request.target,
            "threads": request.threads,
            "usual_batch": usual_batch,
        }

    def encoders(self, name: str) -> dict[str, bool]:
        """Which encoders the candidate has and are measured."""
        chosen = self.candidates[name]
        runs = {tower for tower in chosen.graphs if tower not in chosen.unbuilt}
        return {"images": self.images and Tower.IMAGE in runs, "texts": self.texts and Tower.TEXT in runs}

    def text_graph(self, name: str) -> tuple[str, str, str]:
        """What runs texts: candidates of the same one take the same time."""
        chosen = self.candidates[name]
        graph = chosen.graphs[Tower.TEXT]
        return chosen.backend.name, graph.precision.value, graph.name

    def steps(self) -> int:
        """Turns of everything that `measure` does."""
        request, names = self.request, list(self.candidates)
        seeing = sum(self.encoders(name)["images"] for name in names)
        reading = len({self.text_graph(name) for name in names if self.encoders(name)["texts"]})
        batches = len(request.batches)
        each = 2 + len(self.openings)
        images = request.rounds * (batches + 2) + min(FOLDER_ROUNDS, request.rounds)
        return len(names) * each + seeing * images + reading * request.rounds * batches


@dataclass
class Texts:
    """Figures of one text encoder: who measured it, and batch -> calls."""

    measured_by: str
    rounds: dict[int, Rounds] = field(default_factory=dict)


@dataclass
class Measured:
    """What came of a candidate; `reason` is the runtime's, bytes are of its process."""

    reason: str = ""
    imported: int = 0
    loaded: int = 0
    peak: int = 0
    gpu: int | None = None
    pid: int = 0
    images: dict[int, Rounds] = field(default_factory=dict)
    stages: dict[str, Rounds] = field(default_factory=dict)
    file_to_label: Rounds = field(default_factory=list)
    folder: list[float] = field(default_factory=list)


def measure(
    bench: Bench, names: Sequence[str], texts: dict[tuple[str, str, str], Texts]
) -> tuple[dict[str, Measured], dict[str, Exception]]:
    """Measure candidates that live together.

    Args:
        bench: all that is measured.
        names: of these candidates.
        texts: figures of text encoders so far, which those of these candidates join.

    Returns:
        What came of those that came through, and why the others did not.
    """
    found = {name: Measured() for name in names}
    with Turns(started(names, bench.command, bench.environment), bench.count) as turns:
        _import(bench, turns, found)
        for usual in bench.openings:
            _open(bench, turns, found, usual)
            if usual in bench.request.batches:
                _images(bench, turns, found, usual)
                _texts(bench, turns, texts, usual)
            if usual == 1:
                _file_to_label(bench, turns, found)
        _folder(bench, turns, found)
        for name, bytes_ in turns.once("memory", lambda _, child: child.ask("memory")).items():
            found[name].peak = bytes_["peak"]
        return {name: found[name] for name in turns.children}, dict(turns.failed)


def _import(bench: Bench, turns: Turns, found: Mapping[str, Measured]) -> None:
    def ask(name: str, child: Child) -> Any:
        return child.ask("import_libraries", backend=bench.candidates[name].backend.name)

    for name, told in turns.once("importing", ask).items():
        found[name].pid, found[name].imported = told["pid"], told["resident"]


def _open(bench: Bench, turns: Turns, found: Mapping[str, Measured], usual: int) -> None:
    def ask(name: str, child: Child) -> Any:
        return child.ask("open", how=bench.how(name, usual), **bench.encoders(name))

    for name, told in turns.once(f"loading, for batches of {usual}", ask).items():
        if usual == bench.openings[0]:
            found[name].reason, found[name].loaded = told["reason"], told["loaded"]


def _images(bench: Bench, turns: Turns, found: Mapping[str, Measured], batch: int) -> None:
    def ask(name: str, child: Child) -> list[float]:
        with _watched(bench, name, batch):
            taken: list[float] = child.ask("images", batch=batch, seconds=bench.request.seconds)
        return taken

    answers = turns.rounds(f"pictures, batches of {batch}", bench.request.rounds, ask, _seeing(bench, turns))
    for name, rounds in answers.items():
        found[name].images[batch] = rounds
        if bench.candidates[name].backend.device == "gpu":
            found[name].gpu = max(found[name].gpu or 0, _gpu_memory(found[name].pid) or 0) or None


def _texts(bench: Bench, turns: Turns, texts: dict[tuple[str, str, str], Texts], batch: int) -> None:
    """Every text encoder by one of those that run it; where that one fails, by the next."""

    def ask(_: str, child: Child) -> list[float]:
        taken: list[float] = child.ask("texts", batch=batch, seconds=bench.request.seconds)
        return taken

    while True:
        asked: dict[tuple[str, str, str], str] = {}
        for name in turns.children:
            graph = bench.text_graph(name) if bench.encoders(name)["texts"] else None
            if graph is not None and not (graph in texts and batch in texts[graph].rounds):
                asked.setdefault(graph, name)
        if not asked:
            return
        answers = turns.rounds(f"texts, batches of {batch}", bench.request.rounds, ask, asked.values())
        for graph, name in asked.items():
            if name in answers:
                entry = texts.setdefault(graph, Texts(name))
                entry.measured_by, entry.rounds[batch] = name, answers[name]


def _file_to_label(bench: Bench, turns: Turns, found: Mapping[str, Measured]) -> None:
    """One picture: stage by stage, and in one go."""
    request, pictures = bench.request, [str(picture) for picture in bench.pictures]

    def stages(_: str, child: Child) -> dict[str, list[float]]:
        taken: dict[str, list[float]] = child.ask("stages", pictures=pictures, seconds=_STAGES_SHARE * request.seconds)
        return taken

    def whole(_: str, child: Child) -> list[float]:
        taken: list[float] = child.ask("file_to_label", pictures=pictures, seconds=request.seconds)
        return taken

    for name, rounds in turns.rounds("stages of a picture", request.rounds, stages, _seeing(bench, turns)).items():
        found[name].stages = {stage: [one[stage] for one in rounds] for stage in rounds[0]}
    for name, calls in turns.rounds("from file to label", request.rounds, whole, _seeing(bench, turns)).items():
        found[name].file_to_label = calls


def _folder(bench: Bench, turns: Turns, found: Mapping[str, Measured]) -> None:
    """Files to embeddings, at the largest batch, which the encoders are open for."""
    largest = max(bench.request.batches)
    files = repeated(bench.pictures, 2 * largest)

    def ask(_: str, child: Child) -> float:
        rate: float = child.ask("folder", pictures=files, batch=largest)
        return rate

    count = min(FOLDER_ROUNDS, bench.request.rounds)
    for name, rates in turns.rounds(f"{len(files)} files read ahead", count, ask, _seeing(bench, turns)).items():
        found[name].folder = rates


def _seeing(bench: Bench, turns: Turns) -> list[str]:
    return [name for name in turns.children if bench.encoders(name)["images"]]


def _watched(bench: Bench, name: str, batch: int) -> AbstractContextManager[Any]:
    return nullcontext() if bench.board is None else bench.board.sample(name, batch)


def _gpu_memory(pid: int) -> int | None:
    from clipdeploy.machine.gpu_state import gpu_memory_bytes

    return gpu_memory_bytes(pid)
