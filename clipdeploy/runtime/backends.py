"""Which inference engine runs a graph. A requested one runs or raises; only `auto` chooses."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.runtime.session import Session

ONNXRUNTIME = "onnxruntime"
# Engines that the project is made for and that this version has no session for.
_LATER = ("openvino", "tensorrt", "tensorrt-rtx")


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
        choice = BackendChoice(ONNXRUNTIME, "chosen by auto: ONNX Runtime on the CPU is this version's only engine")
    elif backend == ONNXRUNTIME:
        choice = BackendChoice(ONNXRUNTIME, "asked for by name; runs on the CPU")
    elif backend in _LATER:
        raise BackendError(
            f"backend {backend!r} is not in this version of clipdeploy", fix=f'pass backend="{ONNXRUNTIME}" or "auto"'
        )
    else:
        names = ["auto", ONNXRUNTIME]
        near = get_close_matches(str(backend), names, n=1, cutoff=0.4)
        raise InputError(
            f"unknown backend {backend!r}; expected one of {', '.join(names)}",
            fix=f'pass backend="{near[0] if near else "auto"}"',
        )
    if find_spec(choice.name) is None:
        raise MissingExtraError(choice.name, extra="cpu", needed_for="running a bundle on the CPU")
    return choice


def open_session(
    graph: Path, *, backend: str = "auto", threads: int | None = None, as_written: bool = False
) -> Session:
    """Load a graph into an engine.

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
    choose_backend(backend)
    from clipdeploy.runtime.ort import OrtSession

    return OrtSession(graph, threads=threads, fuse_qdq=not as_written)


def check_threads(threads: int | None) -> None:
    """Raise InputError unless `threads` is None or a positive whole number."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a positive whole number, got {threads!r}", fix="pass threads=2, or None")
