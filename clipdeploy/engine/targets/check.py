"""Whether a target takes a bundle's graphs, and the graph as it takes it; no GPU and no TensorRT is needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from clipdeploy.bundle import Bundle
from clipdeploy.engine.targets import known_bad
from clipdeploy.engine.targets.accepts import accepts, missing_operators
from clipdeploy.engine.targets.hardware import device_findings, precision_finding
from clipdeploy.engine.targets.rewrites import LOWERINGS, REWRITES
from clipdeploy.engine.targets.target import EngineTarget
from clipdeploy.errors import EngineError, InputError
from clipdeploy.findings import Finding, worst
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.length import fix_length, longest
from clipdeploy.manifest import FileEntry
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import Precision, Target, Tower

REWRITTEN = "rewritten"
"""The flag of a key that names a rewrite."""
Verdict = Literal["accepted", "rewritten", "refused", "absent"]


@dataclass(frozen=True)
class Prepared:
    """A graph as a target takes it.

    Attributes:
        graph: the file to build from: the one that was given where nothing had to change. Of one that takes texts of
            any length, a copy for the longest.
        findings: what a user should know of it.
        rewrites: names of what was changed.
    """

    graph: Path
    findings: tuple[Finding, ...]
    rewrites: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphCheck:
    """What a target says of one graph.

    Attributes:
        name: file name in the bundle; of one that is absent, the name it would have.
        tower: which encoder.
        precision: of the graph.
        made_for: what its 8 bits are made for; None otherwise.
        opset: of the graph; None of one that is absent.
        verdict: `accepted`, `rewritten` where it is accepted after rewriting, `refused`, or `absent` where the bundle
            has no such graph.
        findings: why.
        rewrites: names of what would be changed.
    """

    name: str
    tower: Tower
    precision: Precision
    made_for: Target | None
    opset: int | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    rewrites: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckOutcome:
    """What a target says of a bundle.

    Attributes:
        bundle: its folder.
        target: as it was understood.
        device: findings on the target itself.
        graphs: in the order of towers and precisions.
        narrowed: whether precisions were asked for.
    """

    bundle: str
    target: str
    device: tuple[Finding, ...]
    graphs: tuple[GraphCheck, ...]
    narrowed: bool

    @property
    def passed(self) -> bool:
        """Whether all that was asked for is accepted; where no precision was named, whether each tower has a graph
        that is."""
        taken = [graph for graph in self.graphs if graph.verdict in ("accepted", "rewritten")]
        if self.narrowed:
            asked = {(graph.tower, graph.precision) for graph in self.graphs}
            return asked == {(graph.tower, graph.precision) for graph in taken}
        return {graph.tower for graph in self.graphs} == {graph.tower for graph in taken}


def check_bundle(
    bundle: Bundle | Path,
    target: EngineTarget,
    *,
    precisions: Sequence[Precision] = (),
    towers: Sequence[Tower] = tuple(Tower),
    progress: Progress = silent,
) -> CheckOutcome:
    """Whether a target takes a bundle's graphs.

    Args:
        bundle: the bundle or its folder; it is not changed.
        target: what engines would be built for.
        precisions: only these; empty takes all.
        towers: only these.
        progress: told how far the work is.
    """
    if isinstance(bundle, Path):
        bundle = Bundle.open(bundle, check_hashes=False)
    device = device_findings(target)
    asked = [(tower, precision) for tower in towers for precision in (precisions or tuple(Precision))]
    graphs: list[GraphCheck] = []
    for done, (tower, precision) in enumerate(asked):
        progress("checking", done, len(asked))
        found = {
            name: entry
            for name, entry in bundle.manifest.files.items()
            if entry.kind == "graph" and entry.tower is tower and entry.precision is precision
        }
        graphs += [_check_graph(bundle, name, entry, target, device) for name, entry in found.items()]
        if not found:
            graphs.append(_absent(bundle, tower, precision, target, device))
    progress("checking", len(asked), len(asked))
    return CheckOutcome(str(bundle.folder), str(target), device, tuple(graphs), narrowed=bool(precisions))


def before_building(
    graph: Path,
    target: EngineTarget,
    scratch: Path,
    *,
    precision: Precision = Precision.FP32,
    allow: Collection[str] = (),
) -> Prepared:
    """The graph as the target takes it.

    Args:
        graph: an ONNX file; it is not changed.
        target: what the engine is for.
        scratch: a folder; a rewritten graph is written into it.
        precision: what the bundle calls the graph, for messages.
        allow: names of known bad patterns to build in spite of; each stays among the findings, as a note.

    Raises:
        EngineError: the target refuses it, and no rewrite helps; with the reason, its source, and the way out.
    """
    model = load_graph(graph)
    any_length = longest(model) is not None
    rewrites, findings = _prepare(model, target, precision, allow)
    findings = (*(each for each in device_findings(target) if each.state == "bad"), *findings)
    bad = [finding for finding in findings if finding.state == "bad"]
    if bad:
        raise EngineError(
            f"{target} does not take {graph.name}: " + "; ".join(f"{each.check}: {each.message}" for each in bad),
            fix="; ".join(dict.fromkeys(each.fix for each in bad if each.fix)) or None,
        )
    notes = tuple(finding for finding in findings if finding.state != "good")
    if not rewrites and not any_length:
        return Prepared(graph, notes)
    place = scratch / graph.name
    if place.resolve() == graph.resolve():
        raise InputError(f"{scratch} holds the graph itself", fix="name another folder for rewritten graphs")
    save_graph(model, place)
    return Prepared(place, notes, rewrites)


def key_flags(
    graph: Path, operators: Collection[str], target: EngineTarget, allow: Collection[str] = ()
) -> tuple[str, ...]:
    """What `before_building` does to a graph, as an engine's key holds it; sorted.

    An engine of a rewritten graph is another engine, so that one from before a row came, or went, is not taken for it.

    Args:
        graph: as `before_building` takes it, and so `target` and `allow`.
        operators: of the graph; it is read whole only where they, and the table, leave something to do.

    Returns:
        `rewritten=NAME` for each rewrite, `allow=NAME` for each pattern that is built in spite of.
    """
    rows = [row for row in known_bad.KNOWN_BAD if row.concerns(target)]
    named = {row.name for row in rows if row.remedy != "warn"} & set(allow)
    ways = {row.way for row in rows if row.remedy == "rewrite"}
    ways -= set(LOWERINGS.values())  # these have nothing to do where their operator is not
    if not (named or ways or set(operators) & set(LOWERINGS)):
        return ()
    rewrites, findings = _prepare(load_graph(graph), target, Precision.FP32, allow)
    built = {finding.check for finding in findings} & named
    return tuple(sorted([*(f"allow={name}" for name in built), *(f"{REWRITTEN}={flag_name(r)}" for r in rewrites)]))


def flag_name(rewrite: str) -> str:
    """A rewrite's name as flags are written."""
    return rewrite.replace("_", "-")


def _prepare(
    model: ir.Model, target: EngineTarget, precision: Precision, allow: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """Rewrite a graph in place to what the target takes; the rewrites, and what is to be told of the result."""
    fix_length(model)
    ShapeInferencePass()(model)
    before = known_bad.look_up(model, target)
    done, told = [], []
    for rewrite in REWRITES.values():
        # asked anew each time: Attention, written out, may turn out to have a single row
        if rewrite.name in _wanted(model, target, allow) and (count := rewrite.apply(model)):
            RemoveUnusedNodesPass()(model)
            ShapeInferencePass()(model)
            done.append(rewrite.name)
            told.append(Finding("rewritten", "note", f"{rewrite.told}, {count}x{_why(rewrite.name)}"))
    left = [hit for hit in before if hit[0].remedy != "rewrite"]
    left += [hit for hit in known_bad.look_up(model, target) if hit[0].remedy == "rewrite"]
    told += [known_bad.finding(*hit, target, allowed=hit[0].name in allow) for hit in left]
    return tuple(done), (*told, *accepts(model, target, precision))


def _wanted(model: ir.Model, target: EngineTarget, allow: Collection[str]) -> set[str]:
    """Names of the rewrites that the target asks for."""
    lowered = {LOWERINGS[name] for name in missing_operators(model, target) if name in LOWERINGS}
    rows = (row for row, _ in known_bad.look_up(model, target) if row.name not in allow)
    return lowered | {row.way for row in rows if row.remedy == "rewrite"}


def _why(rewrite: str) -> str:
    """Which known bad pattern a rewrite is for."""
    rows = [row for row in known_bad.KNOWN_BAD if row.remedy == "rewrite" and row.way == rewrite]
    return "".join(f": {row.name}, {row.effect} ({', '.join(row.threads)})" for row in rows)


def _check_graph(
    bundle: Bundle, name: str, entry: FileEntry, target: EngineTarget, device: Sequence[Finding]
) -> GraphCheck:
    assert entry.tower is not None and entry.precision is not None
    facts = (name, entry.tower, entry.precision, entry.target, entry.opset)
    if entry.target == "cpu":
        finding = Finding(
            "made for processors",
            "bad",
            "8 bits are placed and typed for ONNX Runtime on a processor",
            f"make TensorRT's: clipdeploy quantize {bundle.folder} --precision {entry.precision.value} "
            f"--tower {entry.tower.value} --target tensorrt --calibration-data PICTURES",
        )
        return GraphCheck(*facts, verdict="refused", findings=(finding,))
    model = load_graph(bundle.path(name))
    rewrites, findings = _prepare(model, target, entry.precision)
    refused = "bad" in (worst(findings), worst(device))
    verdict: Verdict = "refused" if refused else "rewritten" if rewrites else "accepted"
    return GraphCheck(*facts, verdict=verdict, findings=findings, rewrites=rewrites)


def _absent(
    bundle: Bundle, tower: Tower, precision: Precision, target: EngineTarget, device: Sequence[Finding]
) -> GraphCheck:
    """A graph that the bundle lacks: whether the target would compute it, and how it is made."""
    finding = precision_finding(target, precision)
    if worst(device) == "bad":
        finding = Finding("not there", "note", "the bundle has none, and the target takes none")
    elif finding.state != "bad":
        make = f"clipdeploy quantize {bundle.folder} --precision {precision.value} --tower {tower.value}"
        make += " --calibration-data PICTURES" + (" --texts FILE" if tower is Tower.TEXT else "")
        fix = "export the checkpoint again" if precision is Precision.FP32 else f"make it: {make}"
        finding = Finding("not there", "note", f"the bundle has none; {finding.message}", fix)
    return GraphCheck(tower.graph_name(precision), tower, precision, None, None, verdict="absent", findings=(finding,))
