"""The stages in order, each one call: what the command line runs, and what a script calls to do the same."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
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
)
from clipdeploy.errors import ParityError
from clipdeploy.progress import Progress, silent
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Precision, Tower
from clipdeploy.versions import installed

if TYPE_CHECKING:
    from clipdeploy.export.checkpoint import Checkpoint
    from clipdeploy.export.tower import TowerResult
    from clipdeploy.verify.records import ParityReport
    from clipdeploy.verify.reference import Reference

TOKENIZER = "tokenizer.json"
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
    """

    checkpoint: CheckpointRequest
    output: Path
    opset: int = 19
    simplify: bool = True
    measure: bool = False
    verify: bool = True
    overwrite: bool = False
    golden_images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ExportOutcome:
    """What an export wrote, and what it measured."""

    bundle: Path
    towers: tuple[TowerResult, ...]
    report: ParityReport | None
    seconds: float
    size_bytes: int


@dataclass(frozen=True)
class VerifyRequest:
    """Which bundle to verify, and against what.

    Attributes:
        bundle: the bundle's folder.
        checkpoint: what to compare with; None verifies against the bundle's golden samples, without PyTorch.
        precision: which graphs.
        backend: which engine.
        images: pictures to compare on with a checkpoint, in place of the golden ones.
        html: where to write the report as a page.
    """

    bundle: Path
    checkpoint: CheckpointRequest | None = None
    precision: str = "fp32"
    backend: str = "auto"
    images: tuple[Path, ...] = ()
    html: Path | None = None


def export_bundle(request: ExportRequest, *, progress: Progress = silent) -> ExportOutcome:
    """Checkpoint to verified bundle.

    Raises:
        CheckpointError: the checkpoint cannot be found, read or trusted.
        ExportError: a tower cannot be traced or simplified.
        ParityError: the graphs drift from the checkpoint; no bundle is left.
        OutputError: the folder exists already or cannot be written.
    """
    import clipdeploy.export  # noqa: F401  what is missing is better told now than after minutes of tracing
    from clipdeploy.runtime.backends import choose_backend

    started = time.perf_counter()
    check_target(request.output, overwrite=request.overwrite)
    if request.simplify or request.verify:
        choose_backend("auto")
    checkpoint = _load(request.checkpoint, progress)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / TOKENIZER
        checkpoint.write_tokenizer(tokenizer)
        manifest = _manifest(checkpoint, sha256_file(tokenizer))
        with create_bundle(request.output, manifest, overwrite=request.overwrite) as bundle:
            bundle.add(TOKENIZER, tokenizer, kind="tokenizer", origin=f"export of {checkpoint.source}")
            towers = tuple(_export_tower(checkpoint, tower, bundle, request, progress) for tower in Tower)
            _add_golden(checkpoint, bundle, request, progress)
            report = _verify_new(checkpoint, bundle, request, progress) if request.verify else None
            size = sum(entry.size_bytes for entry in bundle.manifest.files.values())
    return ExportOutcome(request.output, towers, report, time.perf_counter() - started, size)


def verify_bundle(request: VerifyRequest, *, progress: Progress = silent) -> ParityReport:
    """Climb the parity ladder with an existing bundle; the report says which gates held."""
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.ladder import verify
    from clipdeploy.verify.page import write_html

    bundle = Bundle.open(request.bundle)
    reference = _reference(bundle, request, progress)
    with load(bundle, precision=request.precision, backend=request.backend, check_hashes=False) as clip:
        report = verify(bundle, reference=reference, clip=clip, progress=progress)
    if request.html is not None:
        write_html(report, request.html)
    return report


def _load(request: CheckpointRequest, progress: Progress) -> Checkpoint:
    from clipdeploy.export.load import load_checkpoint

    progress(f"loading {request.model}", 0, 0)
    return load_checkpoint(request, progress=progress)


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


def _add_golden(checkpoint: Checkpoint, bundle: Bundle, request: ExportRequest, progress: Progress) -> None:
    from clipdeploy.verify.golden import write_golden

    progress("golden samples", 0, 0)
    write_golden(checkpoint, bundle, images=request.golden_images or None)


def _verify_new(checkpoint: Checkpoint, bundle: Bundle, request: ExportRequest, progress: Progress) -> ParityReport:
    """Verify a bundle that is not in its place yet, and put the report into it."""
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.golden import read_golden
    from clipdeploy.verify.ladder import verify
    from clipdeploy.verify.page import write_html
    from clipdeploy.verify.reference import CheckpointReference
    from clipdeploy.verify.report import to_json

    golden = read_golden(bundle)
    reference = CheckpointReference(checkpoint, golden.pictures, golden.texts)
    with load(bundle, check_hashes=False) as clip:
        report = verify(bundle, reference=reference, clip=clip, name=request.output.name, progress=progress)
    if not report.passed:
        raise ParityError(
            f"the exported graphs of {checkpoint.source} drift from the checkpoint: {report.summary}",
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
