"""Two graphs and little else: `visual.onnx` and `textual.onnx`, as CLIP-ONNX, clip-as-service and many scripts write.

What lies beside them is read where its name says what it is; all else comes from flags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.files import first_file, part, read_json
from clipdeploy.importing.layouts.immich import open_clip_activation, open_clip_text
from clipdeploy.importing.pixels import of_open_clip, of_transformers
from clipdeploy.importing.records import ImportRequest, PixelFacts, Stated

_PAIRS = (
    ("visual.onnx", "textual.onnx"),
    ("clip_visual.onnx", "clip_textual.onnx"),
    ("image_encoder.onnx", "text_encoder.onnx"),
    ("vision_encoder.onnx", "text_encoder.onnx"),
    ("clip_image_encoder.onnx", "clip_text_encoder.onnx"),
)


def fits(folder: Path) -> bool:
    """Whether a known pair of names is there."""
    return bool(_pairs(folder))


def read(request: ImportRequest) -> Stated:
    """What the folder states, and what its neighbours' files do."""
    folder = request.folder
    image, text = _chosen(request)
    config = read_json(folder / "open_clip_config.json")
    model = part(config, "model_cfg")
    facts: dict[str, Any] = {}
    if part(model, "text_cfg"):
        facts = {**open_clip_text(model), "activation": open_clip_activation(model)}
        facts["embed_dim"] = model.get("embed_dim")
    return Stated(
        layout="plain",
        name=folder.resolve().name,
        image_graph=image,
        text_graph=text,
        pixels=_pixels(folder, config),
        tokenizer=first_file(folder, "tokenizer.json"),
        tokenizer_config=read_json(folder / "tokenizer_config.json"),
        card=first_file(folder, "README.md"),
        **facts,
    )


def _chosen(request: ImportRequest) -> tuple[Path, Path]:
    """The user's two graphs, or the one pair that is there."""
    if request.variant is not None:
        raise CheckpointError("two plain graphs have no variants", fix="leave out --variant, or name both graphs")
    if request.image_graph is not None or request.text_graph is not None:
        if request.image_graph is None or request.text_graph is None:
            raise CheckpointError("one graph is named, two are needed", fix="say --image-graph and --text-graph")
        graphs = (request.image_graph, request.text_graph)
        chosen = [path if path.is_file() else request.folder / path for path in graphs]
        missing = [str(path) for path in chosen if not path.is_file()]
        if missing:
            raise CheckpointError(f"there is no file {' and no '.join(missing)}", fix="check the paths of the graphs")
        return chosen[0], chosen[1]
    pairs = _pairs(request.folder)
    if len(pairs) > 1:
        names = "; ".join(f"{image.name} and {text.name}" for image, text in pairs)
        raise CheckpointError(
            f"{request.folder} holds several pairs of graphs: {names}", fix="say --image-graph and --text-graph"
        )
    return pairs[0]


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    pairs = [(folder / image, folder / text) for image, text in _PAIRS]
    return [(image, text) for image, text in pairs if image.is_file() and text.is_file()]


def _pixels(folder: Path, config: dict[str, Any]) -> PixelFacts | None:
    """From the first file that states a preprocessing."""
    cfg, processor = folder / "preprocess_cfg.json", folder / "preprocessor_config.json"
    return (
        of_open_clip(part(config, "preprocess_cfg"), folder / "open_clip_config.json")
        or of_open_clip(read_json(cfg), cfg)
        or of_transformers(read_json(processor), processor)
    )
