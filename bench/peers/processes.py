"""A peer's process: started when it is first asked, and anew after it broke."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers.catalogue import HOSTS, REPOSITORY, Peer
from clipdeploy.benchmark.child import Child
from clipdeploy.errors import BackendError

_SERVING = REPOSITORY / "clipdeploy" / "benchmark" / "serving.py"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_CALM = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": "",
}


class Process:
    """One peer's process, for as many questions as there are.

    Args:
        peer: who.
        python: of its environment.
        checkpoint: in its format.
        threads: that it may have.
    """

    def __init__(self, peer: Peer, python: Path, checkpoint: Path, threads: int) -> None:
        self.peer = peer
        self._command = [
            str(python),
            str(HOSTS / peer.host),
            json.dumps({"checkpoint": str(checkpoint), "threads": threads, "serving": str(_SERVING)}),
        ]
        own = {name: value.format(form=checkpoint) for name, value in peer.variables.items()}
        self._variables = {**_CALM, **dict.fromkeys(_THREADS, str(threads)), **own}
        self._child: Child | None = None

    def child(self) -> Child:
        """The process, started if it is not there."""
        if self._child is None:
            self._child = Child(self.peer.name, self._command, environment=self._variables)
        return self._child

    def ask(self, do: str, *, timeout_s: float = 400.0, **with_: Any) -> Any:
        """What it answers.

        Raises:
            BackendError: it failed; if it ended, the next question starts it anew.
        """
        try:
            return self.child().ask(do, timeout_s=timeout_s, **with_)
        except BackendError:
            self.close()
            raise

    def close(self) -> None:
        """End it; harmless when there is none."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
