"""What is asked of a build, what it would do, and what it did, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from clipdeploy.engine.builder.profiles import frame_profile
from clipdeploy.engine.records import BuildOptions, EngineRecord
from clipdeploy.engine_key import EngineBackend, EngineKey, Profile
from clipdeploy.spec import FrameSpec, Precision, Target, Tower


@dataclass(frozen=True)
class BuildRequest:
    """Which engines to add to a bundle.

    Attributes:
        bundle: the bundle's folder.
        precision: of the graphs to build from.
        towers: which encoders.
        frames: camera frames; the image encoder gets an engine for each of them, with its frame graph in front, in
            place of the one that takes pixels.
        frame_profiles: batch sizes of engines for frames; None takes as many as fit, see `frame_profile`.
        backend: `tensorrt`, `tensorrt-rtx`, or `auto` for the one that is installed.
        options: how each engine is built.
        data: calibration data, for an encoder that has no graph in `precision` yet; see `QuantizeRequest`.
        texts: calibration texts for the text encoder, besides the bundle's own.
        overwrite: build again what is there.
        dry_run: say what would be done, and do nothing.
        allow: what to build, or take in, all the same: names of patterns known to be built wrongly, or `fallback` for
            an engine in which some products fell back to a wider type.
    """

    bundle: Path
    precision: str = Precision.FP32.value
    towers: tuple[Tower, ...] = tuple(Tower)
    frames: tuple[FrameSpec, ...] = ()
    frame_profiles: tuple[Profile, ...] | None = None
    backend: str = "auto"
    options: BuildOptions = field(default_factory=BuildOptions)
    data: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    overwrite: bool = False
    dry_run: bool = False
    allow: tuple[str, ...] = ()

    def options_for(self, frame: FrameSpec | None) -> BuildOptions:
        """How the engine for these frames, or for none, is built."""
        if frame is None:
            return self.options
        return replace(self.options, profiles=self.frame_profiles or (frame_profile(frame),))

    def target(self) -> Target | None:
        """What 8-bit graphs must be made for; raises InputError for an unknown precision."""
        return "tensorrt" if Precision.parse(self.precision).quantised else None


@dataclass(frozen=True)
class Plan:
    """What building one engine comes to.

    Attributes:
        tower: which encoder.
        precision: of its graph.
        graph: name of the graph in the bundle.
        quantise: whether the graph must be made first, so that its hash, and with it the key, is not known yet.
        key: what the engine is tied to; None while the graph is not there.
        folder: of the engine in the bundle, such as `engines/KEY`; None as the key.
        there: whether the bundle holds it already.
        stages: what is done, in order; empty where nothing is.
        trtexec: the command of TensorRT itself that comes closest; it names the graph as the bundle holds it. Empty
            for frames, of which the bundle holds no graph that is whole.
        rewrites: names of what is rewritten in a copy of the graph first; None while the graph is not there.
        frame: the camera frames that it takes; None where it takes what the encoder does.
    """

    tower: Tower
    precision: Precision
    graph: str
    quantise: bool
    key: EngineKey | None
    folder: str | None
    there: bool
    stages: tuple[str, ...]
    trtexec: str
    rewrites: tuple[str, ...] | None
    frame: FrameSpec | None = None

    @property
    def what(self) -> str:
        """The graph, or both of them, for people."""
        return self.graph if self.frame is None else f"{self.frame.graph_name} and {self.graph}"


@dataclass(frozen=True)
class EngineOutcome:
    """An engine in the bundle.

    Attributes:
        record: how it was made.
        folder: in the bundle, such as `engines/KEY`.
        built: whether it was built just now; False when it was there.
    """

    record: EngineRecord
    folder: str
    built: bool


@dataclass(frozen=True)
class BuildOutcome:
    """What was done, or with `dry_run` would be.

    Attributes:
        bundle: the bundle's folder.
        backend: the product.
        version: of it, in full.
        quantised: names of the files that quantising added to the bundle.
        plans: of every engine asked for.
        engines: in the bundle now; empty with `dry_run`.
        seconds: all of it took.
    """

    bundle: Path
    backend: EngineBackend
    version: str
    quantised: tuple[str, ...]
    plans: tuple[Plan, ...]
    engines: tuple[EngineOutcome, ...]
    seconds: float
