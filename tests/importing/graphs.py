"""Small graphs made by hand, each with one thing to be seen, and a small tokenizer: an import of them takes a moment.

The image tower is one matrix over all pixels; the text tower sums the table's rows up to the end token, which is what
a causal mask amounts to, and projects the sum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, WIDTH, ROWS, LENGTH = 8, 6, 30, 10
START, END, PAD = 28, 29, 0
SAID: dict[str, Any] = {"preprocessing": "openai", "cleaning": "lower", "pad_id": PAD, "logit_scale": 50.0}
"""What two plain graphs do not state, as fields of an ImportRequest."""

_RNG = np.random.default_rng(7)
PIXELS = _RNG.standard_normal((3 * SIZE * SIZE, WIDTH)).astype(np.float32)  # (3 * H * W, D)
TABLE = _RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)  # (V, D)
Node = Any


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Node:
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def model(
    nodes: Sequence[Node],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: dict[str, tuple[int, Sequence[int | str] | None]],
    constants: dict[str, Any],
    *,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> Any:
    """A ModelProto; values are (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def image(
    *,
    kind: int = TensorProto.FLOAT,
    batch: int | str = "n",
    channels_last: bool = False,
    name: str = "input",
    output: str = "output",
    between: Sequence[Node] = (),
    weights: Any = PIXELS,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> Any:
    """An image tower, unnormalised. `between` leads from `flat` (N, 3 * H * W) to `ready`; of bytes it normalises."""
    nodes, value = [], name
    constants: dict[str, Any] = {"weights": weights}
    if channels_last:
        nodes.append(node("Transpose", [value], "first", perm=[0, 3, 1, 2]))
        value = "first"
    if kind == TensorProto.UINT8:
        nodes += [node("Cast", [value], "levels", to=TensorProto.FLOAT), node("Sub", ["levels", "mean"], "centred")]
        nodes.append(node("Div", ["centred", "std"], "normal"))
        value = "normal"
        mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
        constants["mean"], constants["std"] = ((255 * v).astype(np.float32).reshape(1, 3, 1, 1) for v in (mean, std))
    nodes.append(node("Flatten", [value], "flat"))
    half = kind == TensorProto.FLOAT16
    if half:
        constants["weights"] = weights.astype(np.float16)
    nodes += [*between, node("MatMul", ["ready" if between else "flat", "weights"], output)]
    shape = (batch, SIZE, SIZE, 3) if channels_last else (batch, 3, SIZE, SIZE)
    inner = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    outputs: dict[str, Any] = {output: (inner, (batch, weights.shape[1]))}
    return model(nodes, {name: (kind, shape)}, outputs, constants, opset=opset, domains=domains)


def text(
    *,
    kind: int = TensorProto.INT64,
    causal: bool = True,
    mask: bool = False,
    extra: Sequence[str] = (),
    output: str = "output",
    length: int = LENGTH,
    table: Any = TABLE,
    half: bool = False,
) -> Any:
    """A text tower, unnormalised: the sum of the rows up to the end token, or of all; with `mask`, those it keeps."""
    constants: dict[str, Any] = {
        "table": table.astype(np.float16) if half else table,
        "places": np.arange(length, dtype=np.int64)[None],
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
        "projection": np.eye(table.shape[1], dtype=np.float16 if half else np.float32),
    }
    inputs: dict[str, Any] = {"input": (kind, ("n", length))}
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [node("Gather", ["table", "input"], "rows")]  # (N, L, D)
    if mask:
        inputs["attention_mask"] = (TensorProto.INT64, ("n", length))
        nodes.append(node("Cast", ["attention_mask"], "kept", to=real))
    elif causal:
        nodes.append(node("ArgMax", ["input"], "end", axis=1, keepdims=1))
        nodes.append(node("LessOrEqual", ["places", "end"], "until"))
        nodes.append(node("Cast", ["until"], "kept", to=real))
    else:
        nodes += [node("Equal", ["input", "input"], "all"), node("Cast", ["all"], "kept", to=real)]
    nodes += [
        node("Unsqueeze", ["kept", "last"], "column"),
        node("Mul", ["rows", "column"], "chosen"),
        node("ReduceSum", ["chosen", "middle"], "sum", keepdims=0),
        node("MatMul", ["sum", "projection"], output),
    ]
    for name in extra:  # inputs that change the answer when they are not what they should be
        inputs[name] = (TensorProto.INT64, ("n", length))
    nodes = [*nodes[:-1], *_extras(extra, real, output)] if extra else nodes
    outputs: dict[str, Any] = {output: (real, ("n", table.shape[1]))}
    return model(nodes, inputs, outputs, constants)


def expected_text(ids: Any, kept: Any) -> Any:
    """What `text` gives for (N, L) ids of which `kept` (N, L) count, of length 1."""
    found = (TABLE[ids] * np.asarray(kept, np.float32)[..., None]).sum(axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def expected_image(pixels: Any) -> Any:
    """What `image` gives for (N, 3, H, W), of length 1."""
    found = pixels.reshape(len(pixels), -1) @ PIXELS
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def write(folder: Path, image_model: Any = None, text_model: Any = None, *, tokenizer: bool = True) -> Path:
    """A folder of the plain layout."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(image_model or image(), str(folder / "visual.onnx"))
    onnx.save(text_model or text(), str(folder / "textual.onnx"))
    if tokenizer:
        write_tokenizer(folder / "tokenizer.json")
    return folder


def write_tokenizer(path: Path, *, end: bool = True) -> None:
    """A tokenizer that knows some words, each as one id, and puts an id before and behind a text."""
    words = "a photo of cat two dogs running on beach at sunset red bus the 7 blue circle square ships storm"
    vocabulary = {"[PAD]": PAD, "[UNK]": 1, **{word: 2 + i for i, word in enumerate(words.split())}}
    vocabulary |= {"[S]": START, "[E]": END}
    special = [("[PAD]", PAD), ("[S]", START), ("[E]", END)]
    single = [{"SpecialToken": {"id": "[S]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": "[E]", "type_id": 0}}] if end else []
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id_, "content": token, **added} for token, id_ in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in special[1:]},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def _extras(extra: Sequence[str], real: int, output: str) -> list[Node]:
    """Positions and token types summed onto the sum, so that a wrong one shows."""
    nodes, value = [], "sum"
    for name in extra:
        nodes += [
            node("Cast", [name], f"{name}_real", to=real),
            node("ReduceSum", [f"{name}_real", "middle"], f"{name}_sum", keepdims=1),
            node("Add", [value, f"{name}_sum"], f"with_{name}"),
        ]
        value = f"with_{name}"
    return [*nodes, node("MatMul", [value, "projection"], output)]
