"""What runs a bundle: the engine, and of each encoder the graph or the built engine; and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.runtime.backends import BackendChoice, engine_backend, open_session
from clipdeploy.runtime.choose import GraphChoice, StandIns, check_target, choose_graphs, told
from clipdeploy.runtime.session import Session
from clipdeploy.spec import LENGTH_AXIS, FrameSpec, Precision, Target, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.tensorrt import Engines


@dataclass(frozen=True, eq=False)
class Chosen:
    """A bundle, and what is to run it on this machine. Nothing of it is loaded yet.

    Attributes:
        bundle: opened.
        backend: the engine, and why this one.
        precision: the number format that was asked for, or that was chosen.
        graphs: of each encoder of the bundle, which graph runs.
        engines: what was built for this machine, where the backend runs such.
    """

    bundle: Bundle
    backend: BackendChoice
    precision: Precision
    graphs: dict[Tower, GraphChoice]
    engines: Engines | None = None

    @property
    def precisions(self) -> dict[Tower, Precision]:
        """The number format that each encoder runs in."""
        return {tower: graph.precision for tower, graph in self.graphs.items()}

    @property
    def unbuilt(self) -> dict[Tower, str]:
        """The encoders that nothing was built for on a backend of built engines, and what builds it."""
        unbuilt = {} if self.engines is None else self.engines.unbuilt
        return {tower: error.fix or error.message for tower, error in unbuilt.items()}

    @property
    def frames(self) -> tuple[FrameSpec, ...]:
        """The camera frames that can be encoded as they are."""
        if Tower.IMAGE not in self.graphs:
            return ()
        return tuple(self.bundle.frames()) if self.engines is None else tuple(self.engines.framed)

    def check_frame(self, frame: FrameSpec) -> None:
        """Raise InputError or EngineError where nothing encodes these frames; says what there is, and what makes it."""
        if frame in self.frames:
            return
        self.graph(Tower.IMAGE)  # raises where there is none
        if self.engines is not None:
            self.engines.check_frame(frame)
        have = ", ".join(map(str, self.frames)) or "none"
        like = [other.color for other in self.frames if (other.width, other.height) == (frame.width, frame.height)]
        hint = f'; or pass color="{like[0]}", if that is their order' if like else ""
        raise InputError(
            f"bundle {self.bundle.folder} holds no graph for frames of {frame}; it holds: {have}",
            fix=f"make it: clipdeploy frames {self.bundle.folder} --frame {frame}{hint}; or use encode_image, which "
            "takes pictures of any size",
        )

    def graph(self, tower: Tower) -> GraphChoice:
        """The graph of one encoder; raises InputError where the bundle has none of it."""
        if tower not in self.graphs:
            self.bundle.graph(tower, self.precision)  # raises
        return self.graphs[tower]


def settle(
    bundle: Bundle,
    precision: Precision,
    backend: BackendChoice,
    *,
    target: Target | None = None,
    stand_ins: StandIns | None = None,
    freely: bool = False,
) -> Chosen:
    """What runs a bundle in one precision on one engine; loads neither graphs nor built engines.

    Args:
        bundle: opened.
        precision: asked for.
        backend: which runs it.
        target: whose 8-bit graphs to take; None takes those made for the engine.
        stand_ins: graphs to load in place of the bundle's.
        freely: whether the precision was left to us; see `choose_graphs`.

    Raises:
        InputError: the bundle lacks the precision, or has it for another target only.
        MissingExtraError, BackendError: the engine is not installed, has no GPU, or does not compute in the precision.
        EngineError: no encoder has a built engine that fits this machine.
    """
    check_target(target)
    graphs = choose_graphs(bundle, precision, backend, target=target, stand_ins=stand_ins, freely=freely)
    engines = _engines(bundle, backend, graphs)
    if engines is not None:
        backend = BackendChoice(backend.name, f"{backend.reason}: {engines.reason}")
    return Chosen(bundle, told(backend, graphs), precision, graphs, engines)


def open_encoder(chosen: Chosen, tower: Tower, *, threads: int | None = None, usual_batch: int = 1) -> Session:
    """Load one encoder into its engine.

    Args:
        chosen: what runs it.
        tower: which encoder.
        threads: of one run; None leaves it to the engine.
        usual_batch: rows that one run usually has.

    Raises:
        InputError: the bundle has no such encoder.
        BackendError, EngineError: the engine cannot load it.
        BundleCorruptError: it is not what the manifest describes.
    """
    graph = chosen.graph(tower)
    session: Session
    if chosen.engines is not None:
        session = chosen.engines.open(tower)
    else:
        session = open_session(
            graph.path,
            backend=chosen.backend.name,
            precision=graph.precision,
            threads=threads,
            usual_batch=usual_batch,
            as_written=graph.as_written,
        )
    try:
        _check_session(session, chosen, tower)
    except BaseException:
        session.close()
        raise
    return session


def _engines(bundle: Bundle, backend: BackendChoice, graphs: Mapping[Tower, GraphChoice]) -> Engines | None:
    """The bundle's built engines, where the backend runs such."""
    name = engine_backend(backend.name)
    if name is None:
        return None
    from clipdeploy.runtime.tensorrt import find_engines

    return find_engines(bundle, name, {tower: graph.precision for tower, graph in graphs.items()})


def _check_session(session: Session, chosen: Chosen, tower: Tower) -> None:
    """Raise BundleCorruptError when what was loaded is not what the manifest describes."""
    spec = chosen.bundle.model.tower(tower)
    what, fix = "graph", "export the checkpoint again"
    if chosen.engines is not None:
        what, fix = "engine", "build it again: clipdeploy build-engine --overwrite"
    longest = chosen.bundle.model.tokens.context_length
    for given, said in ((session.input, spec.input), (session.output, spec.output)):
        fixed = tuple(longest if size == LENGTH_AXIS else size for size in said.shape[1:])  # as engines are built
        same = (given.name, given.dtype) == (said.name, said.dtype) and given.shape[1:] in (said.shape[1:], fixed)
        if not same:
            raise BundleCorruptError(
                f"bundle {chosen.bundle.folder}: the {tower.value} {what} has {given}, the manifest says {said}",
                fix=fix,
            )
