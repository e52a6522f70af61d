"""The same graph in a form that OpenVINO runs fast: shapes change and the order of sums, no number else.

Measured on the image tower of ViT-B/32 in INT8 with OpenVINO 2026.4 on a processor with AMX, as processor time on one
core: 12 % less for one picture, 14 % less for eight. In bf16 and fp32 only the patches change, and hardly the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ELEMENTWISE = ("Convert", "ConvertLike", "Multiply", "Add")


def rewrite(model: Any) -> None:
    """Rewrite an `openvino.Model` in place."""
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            _norm_in_3d(node)
        elif kind == "Convolution":
            _patches_as_product(node)
    model.validate_nodes_and_infer_types()


def _norm_in_3d(quantize: Any) -> None:
    """Normalise rows as (1, rows, D), not (rows, D), where the result is quantised.

    OpenVINO quantises within the normalisation then; of two axes it does not, and reads and writes all once more.
    """
    import openvino.opset13 as ops

    norm = quantize.input_value(0).get_node()
    while norm.get_type_name() in _ELEMENTWISE:
        norm = norm.input_value(0).get_node()
    if norm.get_type_name() != "MVN" or _rank(norm.input_value(0)) != 2:
        return
    source = norm.input_value(0)
    width = source.get_partial_shape()[1]
    converts = [t.get_node() for t in quantize.output(0).get_target_inputs()]
    alone = all(len(list(n.output(0).get_target_inputs())) == 1 for n in _between(norm, quantize))
    if width.is_dynamic or not alone or len(converts) != 1 or converts[0].get_type_name() != "Convert":
        return
    rows = np.array([-1, width.get_length()], np.int64)
    told = norm.get_attributes()
    again = ops.mvn(
        ops.reshape(source, np.array([1, *rows], np.int64), False),
        np.array([-1], np.int64),
        normalize_variance=told["normalize_variance"],
        eps=told["eps"],
        eps_mode=told["eps_mode"].lower(),
    )
    norm.output(0).replace(again.output(0))
    # behind the conversion to integers, so that what is written is a fourth as long
    (integers,) = converts
    readers = list(integers.output(0).get_target_inputs())
    flat = ops.reshape(integers.output(0), rows, False)
    for reader in readers:
        reader.replace_source_output(flat.output(0))


def _between(norm: Any, quantize: Any) -> list[Any]:
    """The nodes from `norm` on whose results `quantize` is made of, itself left out."""
    nodes, node = [], quantize
    while node.get_friendly_name() != norm.get_friendly_name():
        node = node.input_value(0).get_node()
        nodes.append(node)
    return nodes


def _patches_as_product(convolution: Any) -> None:
    """The convolution of the graph's input over patches that do not overlap, as the product of matrices that it is."""
    import openvino.opset13 as ops

    pixels, weights = convolution.input_value(0), convolution.input_value(1)
    shape, told = pixels.get_partial_shape(), convolution.get_attributes()
    source = pixels.get_node()
    while source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Parameter" or _rank(pixels) != 4 or weights.get_partial_shape().is_dynamic:
        return
    if any(shape[axis].is_dynamic for axis in (1, 2, 3)):
        return
    channels, height, width = (shape[axis].get_length() for axis in (1, 2, 3))
    width_out, depth, rows, columns = weights.get_partial_shape().to_shape()
    padded = any([*told["pads_begin"], *told["pads_end"]]) or told["auto_pad"] not in ("explicit", "notset", "valid")
    plain = list(told["strides"]) == [rows, columns] and list(told["dilations"]) == [1, 1] and depth == channels
    if padded or not plain or height % rows or width % columns:
        return
    down, across = height // rows, width // columns
    cut = ops.reshape(pixels, np.array([-1, channels, down, rows, across, columns], np.int64), False)
    patches = ops.transpose(cut, np.array([0, 2, 4, 1, 3, 5], np.int64))  # (N, down, across, C, rows, columns)
    flat = ops.reshape(patches, np.array([-1, down * across, channels * rows * columns], np.int64), False)
    kernel = ops.reshape(weights, np.array([width_out, -1], np.int64), False)
    tokens = ops.matmul(flat, kernel, False, True)  # (N, down * across, D)
    planes = ops.transpose(tokens, np.array([0, 2, 1], np.int64))
    grid = ops.reshape(planes, np.array([-1, width_out, down, across], np.int64), False)
    convolution.output(0).replace(grid.output(0))


def _rank(output: Any) -> int:
    rank = output.get_partial_shape().rank
    return -1 if rank.is_dynamic else int(rank.get_length())
