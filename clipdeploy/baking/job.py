"""The stage: an image graph with frames before it and labels behind it, in a bundle of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.baking.golden import Samples, make_samples
from clipdeploy.baking.labels import all_templates, check_lines, label_rows
from clipdeploy.baking.records import LABELS_FILE, BakedGraph, BakeOutcome, BakeRequest
from clipdeploy.bundle import Bundle, NewFile, check_target, create_bundle
from clipdeploy.errors import InputError, MissingExtraError, OutputError
from clipdeploy.manifest import Manifest
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.backends import ONNXRUNTIME, BackendChoice
from clipdeploy.runtime.choose import GraphChoice
from clipdeploy.runtime.chosen import open_encoder, settle
from clipdeploy.runtime.selftest.baked import feeds_of, hold_baked, scaled
from clipdeploy.runtime.selftest.golden import BAKED_ARRAYS, BAKED_INDEX
from clipdeploy.spec import BakedSpec, Precision, TensorSpec, Tower
from clipdeploy.versions import installed
from clipdeploy.writing import check_space

_SEVERAL = 4
_TOOLS = ("clipdeploy", "onnx", "onnx-ir", "onnxruntime", "numpy", "pillow")


def bake_bundle(request: BakeRequest, *, progress: Progress = silent) -> BakeOutcome:
    """Write a baked bundle, whole or not at all; the bundle it is made from stays as it is.

    Every graph that ONNX Runtime computes is run, and held against the unbaked one, before it is taken in.

    Raises:
        TextError: a label or template is empty, given twice, of several lines, or too long for the model; or unknown
            to a bundle without a text encoder.
        InputError: the bundle is baked already, has no image encoder, or not in that precision.
        BundleError: the bundle cannot be opened, or a file of it is not what the manifest says.
        MissingExtraError: onnx, onnx-ir or onnxruntime is not installed.
        BackendError: an engine fails; or a baked graph does not answer as the unbaked one.
        OutputError: the output exists already, lies in the bundle, or cannot be written.
    """
    started = time.perf_counter()
    _check_libraries()
    check_target(request.output, overwrite=request.overwrite)
    templates = all_templates(request.templates) if request.labels is not None else ()
    labels = check_lines(request.labels) if request.labels is not None else ()
    bundle = Bundle.open(request.bundle)
    bundle.check_unbaked("bake")
    _check_apart(bundle.folder, request.output)
    graphs = _graphs(bundle, request)
    progress("labels", 0, 0)
    rows = label_rows(bundle, labels, templates) if labels else None
    baked = BakedSpec(labels, templates, request.frame, bundle.manifest.embedding_space)
    with TemporaryDirectory(prefix="clipdeploy-") as scratch:
        front = None
        if request.frame is not None:
            from clipdeploy.baking.front import front_graph

            progress(f"frames of {request.frame}", 0, 0)
            front = front_graph(bundle, request.frame, Path(scratch))
        samples = make_samples(bundle, baked, rows, graphs, front, progress)
        made = _write(bundle, request, baked, rows, graphs, front, samples, progress)
    notes = list(samples.notes) if samples else []
    if samples is None:
        notes.append("it holds no golden samples, since the bundle has none: nothing tests it on the device")
    return BakeOutcome(
        bundle=request.bundle,
        output=request.output,
        labels=labels,
        templates=templates,
        frame=request.frame,
        graphs=tuple(made),
        samples=len(samples.crops) if samples else 0,
        size_bytes=sum(path.stat().st_size for path in request.output.rglob("*") if path.is_file()),
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _check_libraries() -> None:
    try:
        import onnx
        import onnx_ir
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="frames", needed_for="baking labels into a graph") from error
    del onnx, onnx_ir


def _check_apart(folder: Path, output: Path) -> None:
    here, there = folder.resolve(), output.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise OutputError(f"{output} is not apart from the bundle {folder}", fix="choose another folder with -o")


def _graphs(bundle: Bundle, request: BakeRequest) -> dict[str, GraphChoice]:
    """The graphs to bake, by name; raises InputError where one is not there."""
    if not bundle.precisions(Tower.IMAGE):
        bundle.graph_name(Tower.IMAGE)  # raises
    if not request.precisions:
        raise InputError("no precision to bake", fix="pass --precision fp32")
    found = {}
    for precision in dict.fromkeys(map(Precision.parse, request.precisions)):
        target = request.target if precision.quantised else None
        targets = [target] if target else bundle.targets(Tower.IMAGE, precision) or [None]
        for each in targets:
            name = bundle.graph_name(Tower.IMAGE, precision, each)  # raises
            found[name] = GraphChoice(name, bundle.path(name), precision, bundle.manifest.files[name].target)
    return found


def _write(
    bundle: Bundle,
    request: BakeRequest,
    baked: BakedSpec,
    rows: NDArray[np.float32] | None,
    graphs: dict[str, GraphChoice],
    front: Path | None,
    samples: Samples | None,
    progress: Progress,
) -> list[BakedGraph]:
    from clipdeploy.baking.graph import head_model, write_baked

    files = bundle.manifest.files
    entry_bytes = {name: sum(files[f].size_bytes for f in (name, f"{name}.data") if f in files) for name in graphs}
    with create_bundle(request.output, _manifest(bundle, baked), overwrite=request.overwrite) as draft:
        check_space(draft.folder, sum(entry_bytes.values()))
        new = _beside(draft.folder, baked, samples)
        for index, (name, graph) in enumerate(graphs.items()):
            progress(f"baking {name}", index, len(graphs))
            place = draft.folder / name
            opset, weights = write_baked(
                graph.path,
                place,
                front=front,
                head=None if rows is None else head_model(rows, bundle.model),
                for_processors=request.target == "cpu" or graph.target == "cpu",
            )
            told: dict[str, Any] = {"tower": Tower.IMAGE, "precision": graph.precision, "target": graph.target}
            origin = f"bake of {name}"
            new.append(NewFile(name, place, "graph", origin, opset=opset, **told))
            if weights is not None:
                new.append(NewFile(weights.name, weights, "weights", origin, **told))
        draft.add_all(new)
        made = []
        for index, (name, graph) in enumerate(graphs.items()):
            progress(f"checking {name}", index, len(graphs))
            size = sum(draft.manifest.files[f].size_bytes for f in (name, f"{name}.data") if f in draft.manifest.files)
            max_abs = _held(draft, graph, samples)
            made.append(BakedGraph(name, graph.precision.value, graph.target, size, max_abs))
        return made


def _manifest(bundle: Bundle, baked: BakedSpec) -> Manifest:
    model = bundle.model
    given = model.image.input if baked.frame is None else baked.frame.tensor
    answer = TensorSpec("logits", "float32", ("batch", len(baked.labels))) if baked.labels else model.image.output
    return replace(
        bundle.manifest,
        model=replace(model, image=replace(model.image, input=given, output=answer)),
        tools={**bundle.manifest.tools, **installed(_TOOLS)},
        files={},
        baked=baked,
    )


def _beside(folder: Path, baked: BakedSpec, samples: Samples | None) -> list[NewFile]:
    """What lies beside the graphs, written."""
    new = []
    if baked.labels:
        path = folder / LABELS_FILE
        path.write_text("".join(f"{label}\n" for label in baked.labels), encoding="utf-8", newline="\n")
        new.append(NewFile(LABELS_FILE, path, "labels", "bake"))
    if samples is not None:
        (folder / BAKED_INDEX).parent.mkdir()
        samples.write(folder / BAKED_INDEX, folder / BAKED_ARRAYS)
        new += [NewFile(name, folder / name, "golden", "bake") for name in (BAKED_INDEX, BAKED_ARRAYS)]
    return new


def _held(draft: Bundle, graph: GraphChoice, samples: Samples | None) -> float | None:
    """How far a baked graph is from the unbaked one in ONNX Runtime; raises BackendError where that is too far."""
    if samples is None or graph.name not in samples.answers:
        return None
    backend = BackendChoice(ONNXRUNTIME, "to check what was baked")
    chosen = settle(draft, graph.precision, backend, target=graph.target)
    session = open_encoder(chosen, Tower.IMAGE)
    try:
        hold_baked(chosen, session, _SEVERAL)
        baked = draft.manifest.baked
        assert baked is not None
        ours = [session.run(feeds_of(crop[None], baked, draft.model)) for crop in samples.crops]
    finally:
        session.close()
    off = scaled(np.concatenate(ours), baked, draft.model) - scaled(samples.answers[graph.name], baked, draft.model)
    return float(np.abs(off).max())
