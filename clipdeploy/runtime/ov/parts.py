"""A graph in parts, so that each is computed in the number format that is right for it.

OpenVINO rounds whole graphs to bf16 or f16, whatever their types say. Of a graph with camera frames or labels in it
only the encoder may be rounded: an 8-bit rounding of pixels, and logits of some tens, stand no bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PIXELS, EMBEDS = "pixel_values", "image_embeds"
"""What goes between frames and encoder, and between encoder and labels."""


@dataclass(frozen=True)
class Part:
    """A piece of a graph with one input and one output.

    Attributes:
        model: an `openvino.Model`.
        exact: whether it must be computed in float32, whatever the encoder is computed in.
    """

    model: Any
    exact: bool


def cut(model: Any, output: str) -> list[Part]:
    """An `openvino.Model` in the parts that it has: frames, encoder, labels; of most graphs one. It is used up.

    Args:
        model: with one input.
        output: the name of the output that is read; others go.
    """
    import openvino

    (given,) = model.get_parameters()
    result = model.output(output).get_node()
    between = {name: inner for name in (PIXELS, EMBEDS) if (inner := _inner(model, name)) is not None}
    parts: list[Part] = []
    for name, inner in between.items():
        source = openvino.opset13.parameter(inner.get_partial_shape(), inner.get_element_type(), name=name)
        source.output(0).get_tensor().set_names({name})
        for reader in inner.get_target_inputs():
            reader.replace_source_output(source.output(0))
        ends = openvino.opset13.result(inner)
        parts.append(Part(openvino.Model([ends], [given], f"to {name}"), exact=name == PIXELS))
        given = source
    whole = not parts and len(model.outputs) == 1
    last = model if whole else openvino.Model([result], [given], f"to {output}")
    return [*parts, Part(last, exact=EMBEDS in between)]


def _inner(model: Any, name: str) -> Any | None:
    """The tensor of that name, where it is neither given nor read from outside."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Parameter", "Result", "Constant"):
            continue
        for tensor in node.outputs():
            if name in tensor.get_names():
                outside = all(t.get_node().get_type_name() == "Result" for t in tensor.get_target_inputs())
                return None if outside else tensor
    return None
