"""A build's progress, and its end when the user has had enough."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from clipdeploy.progress import Progress

_STAGES = {
    "Building engine": "preparing",
    "Cloning network graph": "preparing",
    "Preparing graph for optimization": "preparing",
    "Building engine from subgraph": "optimising the graph",
    "Optimizing graph": "optimising the graph",
    "Computing profile costs": "choosing kernels",
    "Timing graph nodes": "timing kernels",
    "Timing tactics": "timing kernels",
    "Timing tensor reformats": "timing reformats",
    "Computing reformatting costs": "timing reformats",
    "Determining refit engines": "compiling kernels",
    "Constructing engine": "assembling the engine",
    "Serializing engine": "assembling the engine",
}
"""Names of phases in plain words; they may change with the version, and another is shown as it is."""


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


@dataclass
class BuildMonitor:
    """Takes the builder's phases, which nest, and tells the innermost one that has steps to count.

    Called from the builder's threads. An error in the user's callback, KeyboardInterrupt too, cancels the build and is
    kept in `error`: the builder itself would print it and go on.

    Attributes:
        label: what is being built, such as `visual_fp16.onnx`.
        progress: told `LABEL: STAGE`, steps done, and steps in all.
    """

    label: str
    progress: Progress
    error: BaseException | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _open: list[_Phase] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self) -> None:
        """End the build at the builder's next step."""
        self._cancelled.set()
        self._tell()

    @property
    def cancelled(self) -> bool:
        """Whether the build is to end."""
        return self._cancelled.is_set()

    def start(self, name: str, steps: int) -> None:
        """A phase begins, inside those that are open."""
        with self._lock:
            self._open.append(_Phase(name, steps))
        self._tell()

    def step(self, name: str, step: int) -> bool:
        """A step of a phase is done; returns whether to go on."""
        with self._lock:
            for phase in reversed(self._open):
                if phase.name == name:
                    phase.done = step + 1
                    break
        self._tell()
        return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase is over, and with it what it contains."""
        with self._lock:
            for index in range(len(self._open) - 1, -1, -1):
                if self._open[index].name == name:
                    del self._open[index:]
                    break

    def stage(self) -> tuple[str, int, int]:
        """The stage in plain words, its steps done and in all; 0 in all where it counts none."""
        with self._lock:
            if not self._open:
                return "preparing", 0, 0
            innermost = self._open[-1]
            steps = innermost.steps if innermost.steps > 1 else 0
            return _STAGES.get(innermost.name, innermost.name), innermost.done if steps else 0, steps

    def _tell(self) -> None:
        stage, done, total = ("stopping", 0, 0) if self.cancelled else self.stage()
        try:
            self.progress(f"{self.label}: {stage}", done, total)
        except BaseException as error:  # noqa: BLE001 - must not pass through the builder, which is C++
            self.error = self.error or error
            self._cancelled.set()


def attach(config: Any, module: Any, monitor: BuildMonitor) -> Any:
    """Have the builder call `monitor`; returns the object between, which must live as long as the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            monitor.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return monitor.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            monitor.finish(phase_name)

    between = Monitor()
    config.progress_monitor = between
    return between
