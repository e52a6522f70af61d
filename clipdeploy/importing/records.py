"""What is imported, what a folder states about it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clipdeploy.findings import Finding
from clipdeploy.spec import CropRounding, Interpolation, Precision, ResizeMode, RgbConversion, TextCleaning, TextPooling

LayoutName = Literal["huggingface", "immich", "plain"]
Probability = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class ImportRequest:
    """What to import and where to; all that a folder does not state comes from here.

    Attributes:
        folder: where the graphs lie.
        output: the bundle's folder; it must not exist, unless `overwrite`.
        layout: which layout, where a folder fits several.
        variant: which of several precisions the folder holds, such as `fp16` or `quantized`.
        image_graph, text_graph: the two graphs, where the folder has no known layout.
        image_output, text_output: which output is the embedding, where a graph has several.
        preprocessing: family of the preprocessing (`openai`, `siglip`, ...).
        image_size: (height, width) in px.
        tokenizer: a `tokenizer.json`.
        context_length: ids a text.
        pad_id: id that fills the rest of a text.
        cleaning: text rules before the tokenizer.
        logit_scale: already exponentiated.
        logit_bias: of a checkpoint trained with a sigmoid.
        causal_mask: whether the text tower was trained with one; None where the folder says it or nobody knows.
        accept_bad: write the bundle though findings are bad.
        overwrite: replace a bundle that is already there.
        golden_images: pictures for the golden samples, besides the drawn ones.
    """

    folder: Path
    output: Path
    layout: LayoutName | None = None
    variant: str | None = None
    image_graph: Path | None = None
    text_graph: Path | None = None
    image_output: str | None = None
    text_output: str | None = None
    preprocessing: str | None = None
    image_size: tuple[int, int] | None = None
    tokenizer: Path | None = None
    context_length: int | None = None
    pad_id: int | None = None
    cleaning: TextCleaning | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None
    causal_mask: bool | None = None
    accept_bad: bool = False
    overwrite: bool = False
    golden_images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PixelFacts:
    """A preprocessing as a file or family states it; `size` is (height, width) in px, None where it is not stated.

    Attributes:
        where: the file or flag that states it, for messages.
    """

    where: str
    size: tuple[int, int] | None
    resize: ResizeMode
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_rounding: CropRounding = "round"
    rgb: RgbConversion = "after_resize"


@dataclass(frozen=True)
class Stated:
    """What a folder states of a CLIP; None for what it does not.

    Attributes:
        layout: which layout it is.
        name: of the model, for people.
        image_graph, text_graph: the ONNX files; one and the same where it holds both towers.
        scored: a file that gives `logits_per_image` too, from which scale and bias can be measured.
        tokenizer_config: the content of tokenizer_config.json.
        masks_padding: whether the text tower is told which ids are padding; None where nothing says so.
        projects: whether a projection follows the pooling, so that a pooled output alone is no embedding.
        causal: whether the text tower has a causal mask.
        activation: of the MLPs, named as ModelSpec names them.
        card: the model card's file.
    """

    layout: LayoutName
    name: str
    image_graph: Path
    text_graph: Path
    scored: Path | None = None
    pixels: PixelFacts | None = None
    tokenizer: Path | None = None
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    context_length: int | None = None
    cleaning: TextCleaning | None = None
    pooling: TextPooling | None = None
    causal: bool | None = None
    masks_padding: bool | None = None
    projects: bool | None = None
    activation: str | None = None
    probability: Probability | None = None
    embed_dim: int | None = None
    image_family: str = "unknown"
    text_family: str = "unknown"
    card: Path | None = None


@dataclass(frozen=True)
class ImportOutcome:
    """What an import found and wrote.

    Attributes:
        bundle: the bundle's folder; None when bad findings kept it from being written.
        findings: what was looked at, in order.
        precision: the number format that the graphs compute in.
    """

    bundle: Path | None
    layout: LayoutName
    findings: tuple[Finding, ...]
    precision: Precision
    seconds: float
    size_bytes: int
