"""Typed graphs for what only builds engines: as `clipdeploy quantize` writes them, with ranges that nobody measured.

A builder does not look at ranges, and measuring them costs a minute a graph of ViT-B/32.
"""

from __future__ import annotations

from pathlib import Path

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.calibration.half import tensors_to_measure, to_half
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import place
from clipdeploy.calibration.qdq import insert_qdq
from clipdeploy.calibration.records import Range
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.spec import Precision, Tower

_REACH = Range(-4.0, 4.0)


def typed_graph(source: Path, target: Path, tower: Tower, precision: Precision) -> Path:
    """Write `source`, a float32 graph of `tower`, in another precision, for TensorRT."""
    work = source
    if precision.quantised:
        model = load_graph(source)
        layers = [choice.layer for choice in place(model, find_layers(model, tower)) if choice.quantise]
        insert_qdq(model, layers, {layer.input: _REACH for layer in layers}, precision=precision)
        work = target.with_suffix(".float32.onnx")
        save_graph(model, work)
    half = precision if precision is Precision.BF16 else Precision.FP16
    to_half(work, target, precision=half, stats=dict.fromkeys(tensors_to_measure(work), _REACH.high))
    if work != source:
        work.unlink()
    return target


def add_typed(folder: Path, precision: Precision, scratch: Path, towers: tuple[Tower, ...] = tuple(Tower)) -> None:
    """Give a bundle typed graphs."""
    bundle = Bundle.open(folder, check_hashes=False)
    new = []
    for tower in towers:
        target = "tensorrt" if precision.quantised else None
        name = tower.graph_name(precision, target)
        path = typed_graph(bundle.graph(tower), scratch / name, tower, precision)
        opset = load_graph(path).opset_imports[""]
        new.append(
            NewFile(
                name, path, "graph", "ranges not measured", tower=tower, precision=precision, opset=opset, target=target
            )
        )
    bundle.add_all(new)
    for file in new:
        file.source.unlink()
