"""The stages in order, each one call: what the command line runs, and what a script calls to do the same."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from clipdeploy.bundle import (
    SCHEMA_VERSION,
    Bundle,
    Manifest,
    Provenance,
    check_target,
    create_bundle,
    embedding_space_id,
    sha256_file,
    write_text,
)
from clipdeploy.errors import InputError, ParityError
from clipdeploy.findings import Finding
from clipdeploy.progress import Progress, silent
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import FrameSpec, Precision, Target, Tower, to_dict
from clipdeploy.versions import installed

if TYPE_CHECKING:
    from clipdeploy.export.checkpoint import Checkpoint
    from clipdeploy.export.tower import TowerResult
    from clipdeploy.frames.records import FrameOutcome
    from clipdeploy.runtime.choose import StandIns
    from clipdeploy.verify.records import ParityReport
    from clipdeploy.verify.reference import Reference

TOKENIZER = "tokenizer.json"
PREFLIGHT_JSON = "report/preflight.json"
PARITY_JSON = "report/parity.json"
PARITY_HTML = "report/parity.html"
_TOOLS = ("clipdeploy", "torch", "open-clip-torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class ExportRequest:
    """What to export and where to.

    Attributes:
        checkpoint: which checkpoint.
        output: the bundle's folder; it must not exist, unless `overwrite`.
        opset: ONNX operator set of the graphs.
        simplify: run onnxsim and the passes.
        measure: time the graph before and after each simplifying step.
        verify: climb the parity ladder against the checkpoint before the bundle takes its place.
        overwrite: replace a bundle that is already there.
        golden_images: pictures for the golden samples, besides the drawn ones.
        frames: a camera's, that the bundle takes as they come, such as `1920x1080:bgr`.
    """

    checkpoint: CheckpointRequest
    output: Path
    opset: int = 19
    simplify: bool = True
    measure: bool = False
    verify: bool = True
    overwrite: bool = False
    golden_images: tuple[Path, ...] = ()
    frames: tuple[FrameSpec | str, ...] = ()


@dataclass(frozen=True)
class ExportOutcome:
    """What an export wrote, what it measured, and what was found of the checkpoint before."""

    bundle: Path
    towers: tuple[TowerResult, ...]
    report: ParityReport | None
    seconds: float
    size_bytes: int
    findings: tuple[Finding, ...] = ()
    frames: tuple[FrameOutcome, ...] = ()


@dataclass(frozen=True)
class VerifyRequest:
    """Which bundle to verify, and against what.

    Attributes:
        bundle: the bundle's folder.
        checkpoint: what to compare with; None verifies against the bundle's golden samples, without PyTorch.
        precision: which graphs; `auto` takes the fastest pair of precision and engine, as `clipdeploy.load` does.
        backend: which engine; `auto` takes the fastest.
        target: whose graphs, of 8-bit ones; None takes those made for the engine.
        images: pictures to compare on with a checkpoint, in place of the golden ones.
        html: where to write the report as a page.
    """

    bundle: Path
    checkpoint: CheckpointRequest | None = None
    precision: str = "fp32"
    backend: str = "auto"
    target: Target | None = None
    images: tuple[Path, ...] = ()
    html: Path | None = None


def export_bundle(request: ExportRequest, *, progress: Progress = silent) -> ExportOutcome:
    """Checkpoint to verified bundle.

    Raises:
        CheckpointError: the checkpoint cannot be found, read or trusted, or preflight finds something bad.
        ExportError: a tower cannot be traced or simplified.
        ParityError: the graphs drift from the checkpoint; no bundle is left.
        InputError: no such frames.
        OutputError: the folder exists already or cannot be written.
    """
    import clipdeploy.export  # noqa: F401  what is missing is better told now than after minutes of tracing
    from clipdeploy.runtime.backends import ONNXRUNTIME, choose_backend

    started = time.perf_counter()
    check_target(request.output, overwrite=request.overwrite)
    frames = tuple(FrameSpec.parse(frame) for frame in request.frames)
    if request.simplify or request.verify:
        choose_backend(ONNXRUNTIME)
    checkpoint = _load(request.checkpoint, progress)
    findings = _preflight(checkpoint, progress)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / TOKENIZER
        checkpoint.write_tokenizer(tokenizer)
        manifest = _manifest(checkpoint, sha256_file(tokenizer))
        with create_bundle(request.output, manifest, overwrite=request.overwrite) as bundle:
            bundle.add(TOKENIZER, tokenizer, kind="tokenizer", origin=f"export of {checkpoint.source}")
            towers = tuple(_export_tower(checkpoint, tower, bundle, request, progress) for tower in Tower)
            _add_golden(checkpoint, bundle, request, progress)
            framed = _add_frames(bundle, frames, progress)  # behind the golden samples, which it answers as frames
            _add_findings(findings, bundle)
            reference = _new_reference(checkpoint, bundle) if request.verify else None
            del checkpoint  # the reference lets go of it too, before the graphs are loaded
            report = _verify_new(reference, bundle, request, progress) if reference is not None else None
            size = sum(entry.size_bytes for entry in bundle.manifest.files.values())
    return ExportOutcome(request.output, towers, report, time.perf_counter() - started, size, findings, framed)


def verify_bundle(request: VerifyRequest, *, progress: Progress = silent) -> ParityReport:
    """Climb the parity ladder with an existing bundle; the report says which gates held."""
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.ladder import verify
    from clipdeploy.verify.page import write_html

    bundle = Bundle.open(request.bundle)
    if bundle.manifest.baked is not None:
        return _verify_baked(bundle, request, progress)
    request = _settled(bundle, request, progress)
    reference = _reference(bundle, request, progress)
    with (
        tempfile.TemporaryDirectory() as scratch,
        load(
            bundle,
            precision=request.precision,
            backend=request.backend,
            target=request.target,
            check_hashes=False,
            self_test=False,  # the ladder is one
            stand_ins=_stand_ins(bundle, request, Path(scratch)),
        ) as clip,
    ):
        report = verify(bundle, reference=reference, clip=clip, progress=progress)
    if request.html is not None:
        write_html(report, request.html)
    return report


def _verify_baked(bundle: Bundle, request: VerifyRequest, progress: Progress) -> ParityReport:
    """Climb the ladder of a baked bundle, whose own golden samples are the reference."""
    from clipdeploy.runtime.baked import load_baked
    from clipdeploy.verify.baked import verify_baked
    from clipdeploy.verify.page import write_html

    if request.checkpoint is not None or request.images:
        raise InputError(
            f"bundle {bundle.folder} is baked: it is compared with its own golden samples, and nothing else",
            fix="leave out --checkpoint and --images; or verify the bundle that it was baked from",
        )
    request = _settled(bundle, request, progress)
    how = {"precision": request.precision, "backend": request.backend, "target": request.target}
    with load_baked(bundle, self_test=False, **how) as baked:  # type: ignore[arg-type]  # the ladder is one
        report = verify_baked(bundle, baked=baked, progress=progress)
    if request.html is not None:
        write_html(report, request.html)
    return report


def _settled(bundle: Bundle, request: VerifyRequest, progress: Progress) -> VerifyRequest:
    """The request with precision and backend by name: what `load` takes for `auto`.

    Where nothing passes the self-test, it is the likely backend: the ladder is there to tell what is wrong.
    """
    from clipdeploy.errors import BackendError
    from clipdeploy.runtime.auto import choose
    from clipdeploy.runtime.backends import AUTO, choose_backend, parse_backend
    from clipdeploy.runtime.choose import check_target, parse_precision

    check_target(request.target)
    backend, precision = parse_backend(request.backend), parse_precision(request.precision)
    if backend != AUTO and precision is not None:
        return request
    progress("choosing a backend", 0, 0)
    try:
        chosen = choose(bundle, precision=precision, backend=backend, target=request.target)
        backend, precision = chosen.backend.name, chosen.precision
    except BackendError:
        backend, precision = choose_backend(backend).name, precision or Precision.FP32
    return replace(request, backend=backend, precision=precision.value)


def _stand_ins(bundle: Bundle, request: VerifyRequest, scratch: Path) -> StandIns | None:
    """For bf16, which ONNX Runtime on the CPU does not compute: the graphs with their rounding spelled out."""
    from clipdeploy.runtime.backends import ONNXRUNTIME, parse_backend
    from clipdeploy.runtime.choose import StandIns

    precision = Precision.parse(request.precision)
    towers = [tower for tower in Tower if precision in bundle.precisions(tower)]
    if precision is not Precision.BF16 or not towers or parse_backend(request.backend) != ONNXRUNTIME:
        return None
    from clipdeploy.calibration.half import emulated

    graphs = {tower: scratch / tower.graph_name() for tower in towers}
    for tower, path in graphs.items():
        emulated(bundle.graph(tower, precision), path)
    return StandIns(graphs, "bf16 emulated: its rounding spelled out in float32")


def _load(request: CheckpointRequest, progress: Progress) -> Checkpoint:
    from clipdeploy.export.load import load_checkpoint

    progress(f"loading {request.model}", 0, 0)
    return load_checkpoint(request, progress=progress)


def _preflight(checkpoint: Checkpoint, progress: Progress) -> tuple[Finding, ...]:
    """What is found of the checkpoint; anything bad ends the export before minutes of tracing."""
    from clipdeploy.export.preflight.run import preflight, require

    findings = preflight(checkpoint, progress=progress)
    require(findings, label=checkpoint.source)
    return findings


def _add_findings(findings: tuple[Finding, ...], bundle: Bundle) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "preflight.json"
        write_text(file, json.dumps(to_dict(findings), indent=2, ensure_ascii=False) + "\n")
        bundle.add(PREFLIGHT_JSON, file, kind="report", origin="preflight of the checkpoint")


def _manifest(checkpoint: Checkpoint, tokenizer_sha256: str) -> Manifest:
    spec = checkpoint.spec
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=spec,
        embedding_space=embedding_space_id(spec, checkpoint.weights_sha256, tokenizer_sha256),
        provenance=Provenance(
            source=checkpoint.source,
            weights_sha256=checkpoint.weights_sha256,
            licence=checkpoint.licence,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
        tools=installed(_TOOLS),
    )


def _export_tower(
    checkpoint: Checkpoint, tower: Tower, bundle: Bundle, request: ExportRequest, progress: Progress
) -> TowerResult:
    from clipdeploy.export.tower import ExportOptions, export_tower

    options = ExportOptions(opset=request.opset, simplify=request.simplify, measure=request.measure)
    result = export_tower(checkpoint, tower, bundle.folder, options, progress)
    origin = f"export of {checkpoint.source}" + (", simplified" if request.simplify else "")
    bundle.add(
        result.graph.name,
        result.graph,
        kind="graph",
        origin=origin,
        tower=tower,
        precision=Precision.FP32,
        opset=result.opset,
    )
    if result.weights is not None:
        bundle.add(result.weights.name, result.weights, kind="weights", origin=origin, tower=tower)
    return result


def _add_frames(bundle: Bundle, frames: tuple[FrameSpec, ...], progress: Progress) -> tuple[FrameOutcome, ...]:
    from clipdeploy.frames.job import add_to

    return add_to(bundle, tuple(dict.fromkeys(frames)), progress=progress) if frames else ()


def _add_golden(checkpoint: Checkpoint, bundle: Bundle, request: ExportRequest, progress: Progress) -> None:
    from clipdeploy.verify.golden import write_golden

    progress("golden samples", 0, 0)
    write_golden(checkpoint, bundle, images=request.golden_images or None)


def _new_reference(checkpoint: Checkpoint, bundle: Bundle) -> Reference:
    """The checkpoint on the golden samples of the bundle."""
    from clipdeploy.verify.golden import read_golden
    from clipdeploy.verify.reference import CheckpointReference

    golden = read_golden(bundle)
    return CheckpointReference(checkpoint, golden.pictures, golden.texts)


def _verify_new(reference: Reference, bundle: Bundle, request: ExportRequest, progress: Progress) -> ParityReport:
    """Verify a bundle that is not in its place yet, and put the report into it."""
    from clipdeploy.runtime.backends import ONNXRUNTIME
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.ladder import verify
    from clipdeploy.verify.page import write_html
    from clipdeploy.verify.report import to_json

    with load(bundle, backend=ONNXRUNTIME, check_hashes=False, self_test=False) as clip:
        report = verify(bundle, reference=reference, clip=clip, name=request.output.name, progress=progress)
    if not report.passed:
        raise ParityError(
            f"the exported graphs of {bundle.manifest.provenance.source} drift from the checkpoint: {report.summary}",
            fix="export with --no-verify to keep the bundle, then see clipdeploy verify BUNDLE --html FILE",
        )
    with tempfile.TemporaryDirectory() as scratch:
        page, data = Path(scratch) / "parity.html", Path(scratch) / "parity.json"
        write_html(report, page)
        data.write_text(to_json(report), encoding="utf-8")
        bundle.add(PARITY_HTML, page, kind="report", origin="verify against the checkpoint")
        bundle.add(PARITY_JSON, data, kind="report", origin="verify against the checkpoint")
    return report


def _reference(bundle: Bundle, request: VerifyRequest, progress: Progress) -> Reference:
    from clipdeploy.verify.golden import load_pictures, read_golden
    from clipdeploy.verify.golden_reference import GoldenReference
    from clipdeploy.verify.reference import CheckpointReference

    if request.checkpoint is None:
        return GoldenReference(bundle)
    checkpoint = _load(request.checkpoint, progress)
    golden = read_golden(bundle)
    pictures = load_pictures(request.images) if request.images else golden.pictures
    return CheckpointReference(checkpoint, pictures, golden.texts)
