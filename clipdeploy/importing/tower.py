"""One tower of others: found in its file, run on samples, looked at, and written as the bundle wants it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import CheckpointError
from clipdeploy.findings import Finding
from clipdeploy.importing import probes
from clipdeploy.importing.adapt import adapt_image_input, adapt_output, adapt_text_input
from clipdeploy.importing.batch import free_batch, frozen_error
from clipdeploy.importing.foreign import ForeignGraph, image_feeds, text_feeds
from clipdeploy.importing.graphs import cut, load_graph, opset, save_graph, tidy
from clipdeploy.importing.looks import look
from clipdeploy.importing.ports import ImagePort, Port, TextPort, choose_output, image_port, outputs, text_port
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import PixelSpec, TensorSpec, TokenSpec, Tower


@dataclass(frozen=True, eq=False)
class Found:
    """A tower in its file.

    Attributes:
        label: what errors call it: its file too.
        model: the graph, cut to what the embedding needs.
        output: the embedding.
    """

    tower: Tower
    label: str
    path: Path
    model: Any
    port: ImagePort | TextPort
    output: Port

    @property
    def name(self) -> str:
        """What findings call it."""
        return f"{self.tower.value} tower"


@dataclass(frozen=True, eq=False)
class Imported:
    """A tower that has been run.

    Attributes:
        run: the graph as it is, `(N, 3, H, W)` pixels or `(N, L)` ids to `(N, D)` as it gives them.
        unmasked: the same, but a mask that it asks for hides nothing.
        frozen: whether it takes one sample at a time.
        unit: whether its embeddings have length 1.
        embeds: what it gave for the samples, (N, D) float32.
        masks: whether a mask over padding hides anything.
        noise: by how much an embedding changes with what shares its batch.
    """

    found: Found
    run: probes.Run
    unmasked: probes.Run
    frozen: bool
    unit: bool
    embeds: NDArray[np.float32]
    masks: bool
    noise: float


def find_tower(path: Path, tower: Tower, *, output: str | None, projects: bool | None) -> Found:
    """Read a file and find a tower in it; see `choose_output` and `load_graph` for what is refused."""
    label = f"{path.name} ({tower.value} tower)"
    model = load_graph(path)
    name = choose_output(model, tower, output, projects=projects, label=label)
    cut(model, name)
    (chosen,) = outputs(model)
    port = image_port(model, label) if tower is Tower.IMAGE else text_port(model, label)
    if port.batch not in (None, 1):
        raise CheckpointError(
            f"{label} was exported for batches of exactly {port.batch}",
            fix='export it again with a dynamic batch: dynamic_axes={"INPUT": {0: "batch"}}',
        )
    return Found(tower, label, path, model, port, chosen)


def run_tower(
    found: Found, spec: PixelSpec | TokenSpec, samples: NDArray[Any], *, masks: bool, size_px: tuple[int, int]
) -> tuple[Imported, list[Finding]]:
    """Run a tower on samples, and say what is seen.

    Args:
        spec: PixelSpec of the image tower, TokenSpec of the text tower.
        samples: pixels or ids, three or more that differ.
        masks: whether a mask over padding hides anything.
        size_px: (height, width) of pictures, for a graph that asks for both towers' inputs.

    Raises:
        CheckpointError: it cannot be run, or gives no finite (N, D).
    """
    frozen, noise, findings = found.port.batch == 1, 0.0, []
    graph = ForeignGraph(found.path, [found.output.name], 1 if frozen else None, other_px=size_px)
    run = _runner(graph, found.port, spec, masks)
    try:
        embeds = probes.embeddings(run, samples, found.tower, found.label)
    except CheckpointError:
        if frozen:
            raise
        graph.batch = 1  # where this fails too, its error says why
        embeds, frozen = probes.embeddings(run, samples, found.tower, found.label), True
    unit, length = probes.norms(embeds, found.name, exact=found.output.dtype == "float32")
    findings += [length, probes.apart(embeds, found.name, "pictures" if found.tower is Tower.IMAGE else "texts")]
    if frozen:
        message = f"{found.name}: exported for one sample at a time; the import frees the batch"
        findings.append(Finding("batch", "note", message))
    else:
        noise, finding = probes.alone(run, samples, embeds, found.name)
        findings.append(finding)
    unmasked = _runner(graph, found.port, spec, False)
    return Imported(found, run, unmasked, frozen, unit, embeds, masks, noise), findings


def look_at(found: Found, *, activation: str | None) -> list[Finding]:
    """What is seen of a tower without running it: its operators, and the types at its borders."""
    findings = look(found.model, found.name, activation=activation)
    port = found.port.port if isinstance(found.port, ImagePort) else found.port.ids
    expected = "float32" if found.tower is Tower.IMAGE else "int64"
    if port.dtype != expected:
        what = "pictures as bytes, normalised inside" if port.dtype == "uint8" else port.dtype
        message = f"{found.name}: takes {what}, a bundle gives {expected}; the import converts inside the graph"
        findings.append(Finding("input type", "note", message))
    if isinstance(found.port, ImagePort) and found.port.channels_last:
        message = f"{found.name}: takes pictures as (N, H, W, 3); the import transposes inside the graph"
        findings.append(Finding("channels", "note", message))
    if found.output.dtype != "float32":
        message = f"{found.name}: gives {found.output.dtype}; the import gives float32"
        findings.append(Finding("output type", "note", message))
    if isinstance(found.port, TextPort) and found.port.mask is not None:
        message = f"{found.name}: asks for {found.port.mask.name}; the import makes it of the ids, inside the graph"
        findings.append(Finding("attention mask", "note", message))
    return findings


def write_tower(
    imported: Imported, spec: PixelSpec | TokenSpec, tensors: tuple[TensorSpec, TensorSpec], target: Path, samples: Any
) -> tuple[int, Path | None]:
    """Write the graph as a bundle wants it; returns its opset and the file of weights beside it.

    Raises:
        CheckpointError: the batch of a frozen graph cannot be freed.
    """
    found, (source, result) = imported.found, tensors
    if imported.frozen:
        source = replace(source, shape=(1, *source.shape[1:]))
    model = found.model
    if isinstance(found.port, ImagePort):
        assert isinstance(spec, PixelSpec)
        adapt_image_input(model, found.port, spec, source)
    else:
        assert isinstance(spec, TokenSpec)
        adapt_text_input(model, found.port, spec, source, masks=imported.masks)
    tidy(model)
    if imported.frozen:
        model = free_batch(model, found.label)
    adapt_output(model, result, found.output.dtype, normalise=not imported.unit)
    tidy(model)
    weights = save_graph(model, target)
    if imported.frozen:
        _check_freed(imported, target, samples)
    return opset(model), weights


def _check_freed(imported: Imported, target: Path, samples: NDArray[Any]) -> None:
    """Raise CheckpointError unless the freed graph answers a batch as the frozen one answers its samples."""
    from clipdeploy.errors import BackendError

    try:
        ours = OrtSession(target).run(samples)
    except BackendError as error:
        raise frozen_error(imported.found.label) from error
    expected = probes.unit_length(imported.embeds)
    if ours.shape != expected.shape or not np.abs(ours - expected).max() <= probes.SAME:
        raise frozen_error(imported.found.label)


def _runner(graph: ForeignGraph, port: ImagePort | TextPort, spec: PixelSpec | TokenSpec, masks: bool) -> probes.Run:
    """The file as it is, from our pixels or ids to its embeddings."""

    def run(samples: NDArray[Any]) -> NDArray[np.float32]:
        if isinstance(port, ImagePort):
            assert isinstance(spec, PixelSpec)
            feeds = image_feeds(port, samples, spec)
        else:
            assert isinstance(spec, TokenSpec)
            feeds = text_feeds(port, samples, spec, masks=masks)
        (embeds,) = graph.run(feeds)
        return embeds

    return run
