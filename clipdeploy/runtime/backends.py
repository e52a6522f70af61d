"""Which inference engine runs a graph. A requested one runs or raises; only `auto` chooses."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.runtime.session import Session

ONNXRUNTIME = "onnxruntime"
# An engine that the project is made for and that this version has no session for.
_LATER = ("openvino",)


@dataclass(frozen=True)
class BackendChoice:
    """The engine that runs the graphs, and why this one.

    Attributes:
        name: such as `onnxruntime`.
        reason: one sentence, for people.
    """

    name: str
    reason: str


def choose_backend(backend: str = "auto") -> BackendChoice:
    """Settle which engine `backend` means on this machine; loads no engine.

    Raises:
        InputError: no engine of that name.
        BackendError: an engine that this version does not have.
        MissingExtraError: the engine is not installed.
    """
    if backend == "auto":
        reason = "chosen by auto: ONNX Runtime on the CPU; TensorRT runs only when it is asked for by name"
        choice = BackendChoice(ONNXRUNTIME, reason)
    elif backend == ONNXRUNTIME:
        choice = BackendChoice(ONNXRUNTIME, "asked for by name; runs on the CPU")
    elif (engine := engine_backend(backend)) is not None:
        from clipdeploy.runtime.trt.product import is_installed, missing

        if not is_installed(engine):
            raise missing(engine)
        return BackendChoice(engine, "asked for by name")
    elif backend in _LATER:
        raise BackendError(
            f"backend {backend!r} is not in this version of clipdeploy", fix=f'pass backend="{ONNXRUNTIME}" or "auto"'
        )
    else:
        names = ["auto", ONNXRUNTIME, *get_args(EngineBackend)]
        near = get_close_matches(str(backend), names, n=1, cutoff=0.4)
        raise InputError(
            f"unknown backend {backend!r}; expected one of {', '.join(names)}",
            fix=f'pass backend="{near[0] if near else "auto"}"',
        )
    if find_spec(choice.name) is None:
        raise MissingExtraError(choice.name, extra="cpu", needed_for="running a bundle on the CPU")
    return choice


def engine_backend(name: str) -> EngineBackend | None:
    """`name` where it is a backend that runs a bundle's built engines, not its graphs; else None."""
    return next((backend for backend in get_args(EngineBackend) if backend == name), None)


def open_session(
    graph: Path, *, backend: str = "auto", threads: int | None = None, as_written: bool = False
) -> Session:
    """Load a graph into an engine. Built engines are loaded from a bundle: `clipdeploy.load`.

    Args:
        graph: path of an ONNX file with one input and one output.
        backend: name of an engine, or `auto`.
        threads: threads of one run; None leaves it to the engine.
        as_written: compute Q/DQ pairs as they stand, for graphs that were made for another engine.

    Raises:
        InputError: `threads` is not a positive number, or there is no engine of that name.
        MissingExtraError: the engine is not installed.
        BackendError: the engine is not in this version, or cannot load the graph.
    """
    check_threads(threads)
    choice = choose_backend(backend)
    if choice.name != ONNXRUNTIME:
        raise BackendError(
            f"{choice.name} runs engines that were built from a graph, not the graph {graph}",
            fix=f"build them: clipdeploy build-engine BUNDLE --backend {choice.name}; load them with clipdeploy.load",
        )
    from clipdeploy.runtime.ort import OrtSession

    return OrtSession(graph, threads=threads, fuse_qdq=not as_written)


def check_threads(threads: int | None) -> None:
    """Raise InputError unless `threads` is None or a positive whole number."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a positive whole number, got {threads!r}", fix="pass threads=2, or None")
