"""The import: a folder of others to a bundle, or to the list of what is wrong with it."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
from clipdeploy.errors import ParityError
from clipdeploy.findings import Finding, worst
from clipdeploy.importing import probes
from clipdeploy.importing.describe import describe, same_precision, stated_findings
from clipdeploy.importing.files import licence
from clipdeploy.importing.graphs import import_onnx, weights_sha256
from clipdeploy.importing.layouts import read_layout
from clipdeploy.importing.looks import pooling_of, vocabulary
from clipdeploy.importing.original import LIBRARIES, NOT_PYTORCH, OriginalGraphs
from clipdeploy.importing.pixels import of_family, pixel_spec
from clipdeploy.importing.ports import ImagePort, TextPort
from clipdeploy.importing.records import ImportOutcome, ImportRequest, Stated
from clipdeploy.importing.texts import Words, read_words
from clipdeploy.importing.tower import Found, Imported, find_tower, look_at, run_tower, write_tower
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import ModelSpec, PixelSpec, Precision, Tower, to_dict
from clipdeploy.verify.golden import GOLDEN_TEXTS, write_golden
from clipdeploy.verify.reference import made_with
from clipdeploy.versions import installed

TOKENIZER = "tokenizer.json"
FINDINGS = "report/preflight.json"
_TOOLS = ("clipdeploy", *LIBRARIES)
_SAMPLES = 4


@dataclass(frozen=True, eq=False)
class _Folder:
    """A folder read and run."""

    stated: Stated
    words: Words
    tokenizer: Tokenizer
    model: ModelSpec
    precision: Precision
    image: Imported
    text: Imported
    pixels: NDArray[np.float32]
    ids: NDArray[np.int64]
    findings: tuple[Finding, ...]


def import_bundle(request: ImportRequest, *, progress: Progress = silent) -> ImportOutcome:
    """Graphs of others to a verified bundle.

    The golden samples are what these graphs gave before anything was changed, so that `verify` finds faults of the
    import and of devices; whether the graphs are right about their checkpoint, only the checkpoint can say.

    Raises:
        CheckpointError: the folder is not understood, something is not stated (the fix names the flag), or a graph
            cannot be made to keep the bundle's contract.
        MissingExtraError: onnx, onnxruntime or tokenizers is not installed.
        ParityError: what was written answers otherwise than what came; no bundle is left.
        OutputError: the folder exists already or cannot be written.
    """
    import_onnx()
    started = time.perf_counter()
    check_target(request.output, overwrite=request.overwrite)
    progress(f"reading {request.folder}", 0, 0)
    stated = read_layout(request)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _read(request, stated, Path(scratch) / TOKENIZER, progress)
        bundle, size = None, 0
        if request.accept_bad or worst(folder.findings) != "bad":
            size = _write(request, folder, Path(scratch) / TOKENIZER, progress)
            bundle = request.output
    seconds = time.perf_counter() - started
    return ImportOutcome(bundle, stated.layout, folder.findings, folder.precision, seconds, size)


def _read(request: ImportRequest, stated: Stated, tokenizer_file: Path, progress: Progress) -> _Folder:
    """Find both towers, run them on samples, and look at them."""
    image, text, pixels, words = _find(request, stated)
    tokenizer_file.write_text(words.content, encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_file, words.spec)
    samples = _pictures(pixels)
    ids = tokenizer(list(GOLDEN_TEXTS[:_SAMPLES]))
    masks, size = stated.masks_padding is not False, (pixels.height, pixels.width)
    progress("running the image tower", 0, 0)
    seen_image, image_findings = run_tower(image, pixels, samples, masks=masks, size_px=size)
    progress("running the text tower", 0, 0)
    seen_text, text_findings = run_tower(text, words.spec, ids, masks=masks, size_px=size)
    precision = same_precision(image, text)
    model = describe(request, stated, seen_image, seen_text, pixels, words.spec, samples, ids)
    behind = _behind_end(request, stated, seen_text, words, ids)
    findings = [
        *stated_findings(stated, image, text, pixels, words.spec, model),
        *look_at(image, activation=stated.activation),
        *image_findings,
        *look_at(text, activation=stated.activation),
        *text_findings,
        *([behind] if behind else []),
    ]
    return _Folder(stated, words, tokenizer, model, precision, seen_image, seen_text, samples, ids, tuple(findings))


def _behind_end(
    request: ImportRequest, stated: Stated, text: Imported, words: Words, ids: NDArray[np.int64]
) -> Finding | None:
    """Whether the causal mask is there; of a tower that is told what is padding, only where it must have one."""
    causal = stated.causal if request.causal_mask is None else request.causal_mask
    assert isinstance(text.found.port, TextPort)
    if causal is None and text.found.port.mask is not None:
        return None
    return probes.behind_end(text.unmasked, ids, words.spec, text.found.name, causal=causal, noise=text.noise)


def _pictures(spec: PixelSpec) -> NDArray[np.float32]:
    """Pictures of coloured squares, `(N, 3, H, W)`, normalised."""
    squares = np.random.default_rng(0).integers(0, 256, (_SAMPLES, 8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(spec.height) * 8 // spec.height, np.arange(spec.width) * 8 // spec.width
    return ImageProcessor(spec).normalize(squares[:, rows][:, :, columns])


def _find(request: ImportRequest, stated: Stated) -> tuple[Found, Found, PixelSpec, Words]:
    """Both towers in their files, and what goes into them."""
    image = find_tower(stated.image_graph, Tower.IMAGE, output=request.image_output, projects=stated.projects)
    text = find_tower(stated.text_graph, Tower.TEXT, output=request.text_output, projects=stated.projects)
    assert isinstance(image.port, ImagePort) and isinstance(text.port, TextPort)
    facts = of_family(request.preprocessing) if request.preprocessing else stated.pixels
    pixels = pixel_spec(facts, (image.port.height, image.port.width), request.image_size)
    words = read_words(
        stated,
        request,
        fixed_length=text.port.length,
        vocab_size=vocabulary(text.model, text.port.ids.name),
        pooling=pooling_of(text.model, text.port.ids.name) or stated.pooling or "other",
    )
    return image, text, pixels, words


def _write(request: ImportRequest, folder: _Folder, tokenizer: Path, progress: Progress) -> int:
    """Write the bundle, verify it against the graphs as they came, and put it in its place; returns its bytes."""
    hashed = weights_sha256(folder.image.found.model, folder.text.found.model)
    manifest = _manifest(request, folder, hashed, sha256_file(tokenizer))
    origin = f"import of {request.folder}"
    with create_bundle(request.output, manifest, overwrite=request.overwrite) as bundle:
        bundle.add(TOKENIZER, tokenizer, kind="tokenizer", origin=origin)
        _add_golden(request, folder, hashed, bundle, progress)
        for imported in (folder.image, folder.text):
            progress(f"adapting the {imported.found.tower.value} tower", 0, 0)
            _add_tower(imported, folder, bundle, origin)
        _add_findings(folder.findings, bundle)
        _verify(request, folder, bundle, progress)
        return sum(entry.size_bytes for entry in bundle.manifest.files.values())


def _manifest(request: ImportRequest, folder: _Folder, hashed: str, tokenizer_sha256: str) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=folder.model,
        embedding_space=embedding_space_id(folder.model, hashed, tokenizer_sha256),
        provenance=Provenance(
            source=str(request.folder),
            weights_sha256=hashed,
            licence=licence(folder.stated.card),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
        tools=installed(_TOOLS),
    )


def _add_golden(request: ImportRequest, folder: _Folder, hashed: str, bundle: Bundle, progress: Progress) -> None:
    """Samples of the graphs as they came."""
    progress("golden samples", 0, 0)
    original = OriginalGraphs(
        spec=folder.model,
        source=f"the graphs in {request.folder} as they came",
        weights_sha256=hashed,
        image=folder.image.run,
        text=folder.text.run,
        images=ImageProcessor(folder.model.pixels),
        tokenizer=folder.tokenizer,
    )
    tools = {**made_with(LIBRARIES), "reference": NOT_PYTORCH}
    write_golden(original, bundle, images=request.golden_images or None, tools=tools)


def _add_tower(imported: Imported, folder: _Folder, bundle: Bundle, origin: str) -> None:
    tower, model = imported.found.tower, folder.model
    record, name = model.tower(tower), tower.graph_name(folder.precision)
    spec, samples = (model.pixels, folder.pixels) if tower is Tower.IMAGE else (model.tokens, folder.ids)
    opset, weights = write_tower(imported, spec, (record.input, record.output), bundle.folder / name, samples)
    bundle.add(
        name,
        bundle.folder / name,
        kind="graph",
        origin=origin,
        tower=tower,
        precision=folder.precision,
        opset=opset,
    )
    if weights is not None:
        bundle.add(weights.name, weights, kind="weights", origin=origin, tower=tower)


def _add_findings(findings: tuple[Finding, ...], bundle: Bundle) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "findings.json"
        write_text(file, json.dumps(to_dict(findings), indent=2, ensure_ascii=False) + "\n")
        bundle.add(FINDINGS, file, kind="report", origin="what the import found")


def _verify(request: ImportRequest, folder: _Folder, bundle: Bundle, progress: Progress) -> None:
    """Climb the ladder against the golden samples, and put the report into the bundle."""
    from clipdeploy.runtime.backends import ONNXRUNTIME
    from clipdeploy.runtime.clip import load
    from clipdeploy.verify.golden_reference import GoldenReference
    from clipdeploy.verify.ladder import verify
    from clipdeploy.verify.page import write_html
    from clipdeploy.verify.report import to_json

    with load(bundle, precision=folder.precision, backend=ONNXRUNTIME, check_hashes=False, self_test=False) as clip:
        report = verify(
            bundle, reference=GoldenReference(bundle), clip=clip, name=request.output.name, progress=progress
        )
    if not report.passed and not request.accept_bad:
        raise ParityError(
            f"the bundle answers otherwise than the graphs in {request.folder}: {report.summary}",
            fix="import the fp32 graphs, or keep the bundle with --accept-bad and see clipdeploy verify BUNDLE",
        )
    with tempfile.TemporaryDirectory() as scratch:
        page, data = Path(scratch) / "parity.html", Path(scratch) / "parity.json"
        write_html(report, page)
        data.write_text(to_json(report), encoding="utf-8")
        origin = "verify against the imported graphs as they came"
        bundle.add("report/parity.html", page, kind="report", origin=origin)
        bundle.add("report/parity.json", data, kind="report", origin=origin)
