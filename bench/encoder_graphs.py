"""Graphs of one image encoder at any picture size, made once and kept in out/bench/encoders.

Weights are random and the 8-bit ranges nobody measured: neither changes a time. They are no bundles, since such a graph
passes no self-test; the runtime's own sessions run them all the same.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.common import OUT
from bench.products import products_of
from bench.typed_graphs import typed_graph
from clipdeploy.bundle import write_text
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import place
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.load import load_checkpoint
from clipdeploy.export.tower import ExportOptions, export_tower
from clipdeploy.graphs.files import load_graph
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Precision, Tower

ENCODERS = OUT / "encoders"
_FACTS = "facts.json"


@dataclass(frozen=True)
class Encoder:
    """An image encoder with random weights.

    Attributes:
        model: its architecture in open_clip.
        side: of its pictures, in px.
        gflop: matrix products of one picture.
        parameters: of the image encoder.
        products_in_int8: its products that `clipdeploy quantize` computes in 8 bits, of all; 0 for none.
    """

    model: str
    side: int
    gflop: float
    parameters: int
    products_in_int8: int

    @property
    def folder(self) -> Path:
        """Where its graphs lie."""
        return ENCODERS / f"{self.model}-{self.side}"

    def graph(self, precision: Precision) -> Path:
        """What a session reads to compute in `precision`: bf16 is made by the engine itself."""
        return self.folder / ("visual_int8.onnx" if precision is Precision.INT8 else "visual.onnx")


def encoder(model: str, side: int | None = None) -> Encoder:
    """The encoder, its graphs made when they are not there; `side` in px, None being the architecture's own."""
    if side is not None and (facts := ENCODERS / f"{model}-{side}" / _FACTS).is_file():
        return Encoder(**json.loads(facts.read_text("utf-8")))
    size = None if side is None else (side, side)
    request = CheckpointRequest(model, random_weights=True, preprocessing="openai", image_size=size)
    checkpoint = load_checkpoint(request)
    side = checkpoint.spec.pixels.height
    if (facts := ENCODERS / f"{model}-{side}" / _FACTS).is_file():
        return Encoder(**json.loads(facts.read_text("utf-8")))
    print(f"exporting the image encoder of {model} at {side} px", flush=True)
    return _made(checkpoint, model, side)


def _made(checkpoint: Checkpoint, model: str, side: int) -> Encoder:
    final = ENCODERS / f"{model}-{side}"
    work = final.with_name(f".{final.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    graph = export_tower(checkpoint, Tower.IMAGE, work, ExportOptions()).graph
    read = load_graph(graph)
    quantised = len([one for one in place(read, find_layers(read, Tower.IMAGE)) if one.quantise])
    if quantised:
        typed_graph(graph, work / "visual_int8.onnx", Tower.IMAGE, Precision.INT8)
    flop = sum(one.flop for one in products_of(checkpoint.model, (1, 3, side, side)))
    parameters = sum(one.numel() for one in checkpoint.model.visual.parameters())  # type: ignore[operator, union-attr]
    made = Encoder(model, side, flop / 1e9, parameters, quantised)
    write_text(work / _FACTS, json.dumps(asdict(made), indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return made
