"""The checkpoint as ONNX, the way its users make it: torch's own exporter, without clipdeploy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

IMAGE, TEXT = "image.onnx", "text.onnx"
_OPSET = 20
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json")


class _Image(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=True)  # type: ignore[no-any-return]


class _Text(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]


class _AnyLength(nn.Module):
    """transformers' text encoder, which takes texts as long as the longest of a batch."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embeds = self.model(input_ids=input_ids, attention_mask=attention_mask).text_embeds
        return nn.functional.normalize(embeds, dim=-1)


def write_graphs(place: Path, weights: Path, published: Path) -> None:
    """Write all that the peers on ONNX Runtime and OpenVINO take.

    `image.onnx` and `text.onnx` of open_clip, the same with 8-bit weights by ONNX Runtime's `quantize_dynamic`, and
    under `any_length/` and `upper/` what fastembed and onnx-clip expect.

    Args:
        place: a folder.
        weights: a state dict for open_clip.
        published: the checkpoint for transformers, whose tokenizer is taken too.
    """
    import open_clip
    from onnxruntime.quantization import quantize_dynamic

    from bench.peers.checkpoint import MODEL

    model = open_clip.create_model(MODEL, pretrained=str(weights)).eval()
    _export(_Image(model), (torch.rand(2, 3, 224, 224),), place / IMAGE, ("pixels",))
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[:, 0], tokens[:, 1] = 49406, 49407
    _export(_Text(model), (tokens,), place / TEXT, ("tokens",))
    for graph in (IMAGE, TEXT):
        quantize_dynamic(place / graph, place / f"int8_{graph}")
    for name in _TOKENIZER:
        shutil.copy(published / name, place)
    _for_fastembed(place, published)
    _for_onnx_clip(place)


def _export(network: nn.Module, example: tuple[Tensor, ...], path: Path, names: tuple[str, ...]) -> None:
    any_ = torch.export.Dim("batch")
    shapes = tuple({0: any_} for _ in example)
    _traced(network, example, path, names, shapes)


def _traced(network: nn.Module, example: tuple[Tensor, ...], path: Path, names: tuple[str, ...], shapes: Any) -> None:
    torch.onnx.export(
        network.eval(),
        example,
        str(path),
        dynamo=True,
        opset_version=_OPSET,
        input_names=list(names),
        output_names=["embeds"],
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )


def _for_fastembed(place: Path, published: Path) -> None:
    """A folder for each encoder; its texts are as long as the longest of a batch."""
    from transformers import CLIPTextModelWithProjection

    folder = place / "any_length"
    for tower in ("vision", "text"):
        (folder / tower).mkdir(parents=True)
        for name in _TOKENIZER:
            shutil.copy(published / name, folder / tower)
    shutil.copy(place / IMAGE, folder / "vision" / "model.onnx")
    model = CLIPTextModelWithProjection.from_pretrained(published, attn_implementation="eager").eval()
    ids = torch.full((2, 9), 49407)
    ids[:, 0] = 49406
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=77)}
    example = (ids, torch.ones_like(ids))
    path, names = folder / "text" / "model.onnx", ("input_ids", "attention_mask")
    _traced(_AnyLength(model), example, path, names, (axes, axes))


def _for_onnx_clip(place: Path) -> None:
    """The two graphs with inputs as its own have them: named in capitals, tokens in int32."""
    from onnx import TensorProto, helper

    folder = place / "upper"
    folder.mkdir()
    for tower, name in (("image", "IMAGE"), ("text", "TEXT")):
        graph = onnx.load(place / f"{tower}.onnx")
        (given,) = graph.graph.input
        if tower == "text":
            graph.graph.node.insert(0, helper.make_node("Cast", [name], [given.name], to=TensorProto.INT64))
            given.type.tensor_type.elem_type = TensorProto.INT32
        else:
            for node in graph.graph.node:
                node.input[:] = [name if one == given.name else one for one in node.input]
        given.name = name
        onnx.save(graph, folder / f"clip_{tower}_model_vitb32.onnx")
