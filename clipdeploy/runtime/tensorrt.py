"""TensorRT and TensorRT for RTX: the engines of a bundle that run on this machine's GPU."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clipdeploy.bundle import Bundle
from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import EngineError
from clipdeploy.runtime.engines import (
    EngineEntry,
    Here,
    build_command,
    candidates,
    choose_engine,
    find_here,
    framed,
)
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.kernels import kernel_file
from clipdeploy.runtime.trt.plan import load_engine
from clipdeploy.runtime.trt.product import NAMES, import_cuda, import_product
from clipdeploy.runtime.trt.session import CONTEXTS, TensorRtSession
from clipdeploy.spec import FrameSpec, Precision, Tower


@dataclass(frozen=True, eq=False)
class Engines:
    """What a bundle holds for this machine.

    Attributes:
        bundle: opened.
        module: the product's.
        cuda: the GPU.
        here: what an engine's key must fit.
        chosen: the engine of each encoder that has one that fits.
        lacking: of the other encoders, why there is none; raised when they are asked for.
        refused: those of the lacking that have engines, of which none fits.
        precisions: that the encoders' engines must have.
        framed: the engines of the image encoder that take camera frames and fit.
    """

    bundle: Bundle
    module: Any
    cuda: Cuda
    here: Here
    chosen: dict[Tower, EngineEntry] = field(default_factory=dict)
    lacking: dict[Tower, EngineError] = field(default_factory=dict)
    refused: set[Tower] = field(default_factory=set)
    precisions: dict[Tower, Precision] = field(default_factory=dict)
    framed: dict[FrameSpec, EngineEntry] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """What runs the engines, and which encoder has none, for people."""
        here = self.here
        runs = f"{NAMES[here.backend]} {here.version} on {here.gpu}, compute capability {here.compute_capability}"
        frames = [f"frames of {', '.join(map(str, self.framed))}"] if self.framed else []
        lacking = [f"{tower.value} encoder: no engine for it here" for tower in self.lacking]
        return "; ".join([runs, *frames, *lacking])

    @property
    def unbuilt(self) -> dict[Tower, EngineError]:
        """Of the encoders that no engine was built for, what says so; one that was built and does not fit is none."""
        return {tower: error for tower, error in self.lacking.items() if tower not in self.refused}

    def open(self, tower: Tower, *, graphs: bool = True, contexts: int = CONTEXTS) -> TensorRtSession:
        """Load an encoder's engine.

        Args:
            tower: which encoder.
            graphs: record CUDA graphs of batch sizes that come often.
            contexts: batches that may be computed at the same time.

        Raises:
            EngineError: it has none that fits.
            BackendError: the product refuses it, or the GPU's memory does not suffice.
            BundleCorruptError: a file of it is not what was written.
        """
        if tower in self.lacking:
            raise self.lacking[tower]
        return self._open(self.chosen[tower], graphs, contexts)

    def check_frame(self, frame: FrameSpec) -> None:
        """Raise EngineError where no engine takes these frames; says why, and the command that builds one."""
        if frame not in self.framed:
            choose_engine(self.bundle, Tower.IMAGE, self.precisions[Tower.IMAGE], self.here, frame=frame)

    def open_frames(self, frame: FrameSpec, *, graphs: bool = True, contexts: int = CONTEXTS) -> TensorRtSession:
        """Load the engine of the image encoder that takes these frames; arguments and errors as `open`."""
        self.check_frame(frame)
        return self._open(self.framed[frame], graphs, contexts)

    def _open(self, entry: EngineEntry, graphs: bool, contexts: int) -> TensorRtSession:
        key = entry.key
        rebuild = build_command(self.bundle.folder, key.tower, key.precision, self.here, like=key) + " --overwrite"
        loaded = load_engine(self.bundle, entry, self.module, self.cuda, rebuild=rebuild)
        rtx = key.backend == "tensorrt-rtx"
        return TensorRtSession(
            loaded,
            self.cuda,
            name=f"{self.here.backend}:{self.here.gpu}",
            path=entry.path,
            kernels=kernel_file(key.name, self.cuda.gpu.name) if rtx else None,
            graphs=graphs,
            contexts=contexts,
        )


def find_engines(bundle: Bundle, backend: EngineBackend, precisions: Mapping[Tower, Precision]) -> Engines:
    """The engines of a bundle for this machine, one for each encoder that has one; a device may need only one of them.

    Args:
        bundle: opened.
        backend: whose engines.
        precisions: of each encoder of the bundle, the precision that its engine must have.

    Raises:
        EngineError: no encoder has an engine that fits; says why not, and the command that builds one.
        MissingExtraError, BackendError: the product or cuda-python is missing, or there is no GPU.
    """
    module = import_product(backend)
    cuda = Cuda(import_cuda(backend))
    engines = Engines(bundle, module, cuda, find_here(backend, module.__version__), precisions=dict(precisions))
    for tower, precision in precisions.items():
        try:
            engines.chosen[tower] = choose_engine(bundle, tower, precision, engines.here)
        except EngineError as error:
            engines.lacking[tower] = error
            if candidates(bundle, tower, precision, backend):
                engines.refused.add(tower)
    if Tower.IMAGE in precisions:
        for frame in framed(bundle, precisions[Tower.IMAGE], backend):
            with suppress(EngineError):  # whoever asks for it is told
                engines.framed[frame] = choose_engine(
                    bundle, Tower.IMAGE, precisions[Tower.IMAGE], engines.here, frame=frame
                )
    if not engines.chosen and not engines.framed:
        raise next(iter(engines.lacking.values()))
    return engines
