"""Tiny bundles for tests: two seeded ONNX graphs of one matrix each, in the layout of the real thing.

`make_bundle(folder)` takes a tenth of a second and needs onnx and tokenizers, never PyTorch.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clipdeploy.bundle import SCHEMA_VERSION, Manifest, Provenance, create_bundle, embedding_space_id, sha256_file
from clipdeploy.runtime.clip_words import WORDS_MARK
from clipdeploy.spec import (
    LENGTH_AXIS,
    LONGEST_NOTE,
    ModelSpec,
    PixelSpec,
    Precision,
    TensorSpec,
    TokenSpec,
    Tower,
    TowerSpec,
)

IMAGE_SIZE = 32
EMBED_DIM = 16
CONTEXT_LENGTH = 77
SEED = 0

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def pixel_spec(height: int = IMAGE_SIZE, width: int = IMAGE_SIZE, **changes: Any) -> PixelSpec:
    """CLIP's own preprocessing at a small size."""
    spec = PixelSpec(height=height, width=width, resize="shortest", interpolation="bicubic", mean=MEAN, std=STD)
    return replace(spec, **changes)


def token_spec(vocab_size: int) -> TokenSpec:
    """CLIP's own token layout over a small vocabulary; its last two ids are start and end."""
    return TokenSpec(
        context_length=CONTEXT_LENGTH,
        vocab_size=vocab_size,
        start_id=vocab_size - 2,
        end_id=vocab_size - 1,
        pad_id=0,
        cleaning="lower",
        pooling="eot_argmax",
    )


def model_spec(vocab_size: int, **changes: Any) -> ModelSpec:
    """The record of the tiny CLIP; `changes` replace fields of it."""
    image = TowerSpec(
        tower=Tower.IMAGE,
        architecture="linear",
        parameters=3 * IMAGE_SIZE * IMAGE_SIZE * EMBED_DIM,
        input=TensorSpec("pixel_values", "float32", ("batch", 3, IMAGE_SIZE, IMAGE_SIZE)),
        output=TensorSpec("image_embeds", "float32", ("batch", EMBED_DIM)),
    )
    text = TowerSpec(
        tower=Tower.TEXT,
        architecture="bag-of-tokens",
        parameters=vocab_size * EMBED_DIM,
        input=TensorSpec("input_ids", "int64", ("batch", CONTEXT_LENGTH)),
        output=TensorSpec("text_embeds", "float32", ("batch", EMBED_DIM)),
    )
    spec = ModelSpec(
        name="tiny-linear",
        embed_dim=EMBED_DIM,
        image=image,
        text=text,
        pixels=pixel_spec(),
        tokens=token_spec(vocab_size),
        activation="gelu",
        logit_scale=100.0,
        logit_bias=0.0,
        probability="softmax",
    )
    return replace(spec, **changes)


def image_weights(seed: int = SEED) -> np.ndarray:
    """The image graph's matrix, (3 * 32 * 32, 16) float32."""
    return np.random.default_rng(seed).standard_normal((3 * IMAGE_SIZE * IMAGE_SIZE, EMBED_DIM)).astype(np.float32)


def text_weights(vocab_size: int, seed: int = SEED) -> np.ndarray:
    """The text graph's table, (vocab_size, 16) float32; the padding id's row is zero."""
    table = np.random.default_rng(seed + 1).standard_normal((vocab_size, EMBED_DIM)).astype(np.float32)
    table[0] = 0.0
    return table


def write_image_graph(path: Path, weights: np.ndarray, *, size: int = IMAGE_SIZE) -> Path:
    """`pixel_values` (N, 3, size, size) -> flatten -> matrix -> L2 norm -> `image_embeds` (N, D)."""
    from onnx import TensorProto, helper

    return _write_graph(
        path,
        nodes=[
            helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        ],
        source=helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, size, size]),
        output="image_embeds",
        constants={"weights": weights},
    )


def write_text_graph(path: Path, weights: np.ndarray, *, any_length: bool = False) -> Path:
    """`input_ids` (N, 77) int64 -> table -> mean over the text -> L2 norm -> `text_embeds` (N, D).

    Of `any_length` it takes texts of up to 77 ids, as exporting notes it in a graph; the mean depends on their number.
    """
    from onnx import TensorProto, helper

    length = LENGTH_AXIS if any_length else CONTEXT_LENGTH
    return _write_graph(
        path,
        nodes=[
            helper.make_node("Gather", ["weights", "input_ids"], ["rows"], axis=0),
            helper.make_node("ReduceMean", ["rows", "text_axis"], ["features"], keepdims=0),
        ],
        source=helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", length]),
        output="text_embeds",
        constants={"weights": weights, "text_axis": np.array([1], dtype=np.int64)},
        notes={LONGEST_NOTE: str(CONTEXT_LENGTH)} if any_length else {},
    )


def _write_graph(
    path: Path,
    *,
    nodes: Sequence[Any],
    source: Any,
    output: str,
    constants: dict[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
) -> Path:
    """A graph of `nodes` from `source` to `features`, followed by the L2 norm."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    dim = constants["weights"].shape[1]
    norm = [
        helper.make_node("ReduceL2", ["features", "last_axis"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe_norm"]),
        helper.make_node("Div", ["features", "safe_norm"], [output]),
    ]
    constants = {**constants, "last_axis": np.array([-1], dtype=np.int64), "tiny": np.array(1e-12, dtype=np.float32)}
    graph = helper.make_graph(
        [*nodes, *norm],
        "tiny",
        [source],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dim])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    helper.set_model_props(model, dict(notes or {}))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def write_tiny_tokenizer(path: Path) -> int:
    """CLIP's tokenizer.json over single bytes, without merges; returns the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["!", *(c for c in letters if c != "!"), *(f"{c}</w>" for c in letters), START, END]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS_MARK + WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocab[START]), (END, vocab[END])]
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=0, pad_token="!")
    tokenizer.save(str(path))
    return len(pieces)


START, END = "<start_of_text>", "<end_of_text>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[A-Za-z\u00aa-\uffff]+|[0-9]|[^\sA-Za-z0-9\u00aa-\uffff]+"


def make_bundle(
    folder: str | Path,
    *,
    precisions: Sequence[Precision] = (Precision.FP32,),
    seed: int = SEED,
    **changes: Any,
) -> Path:
    """A whole bundle with random seeded weights: pictures of 32 x 32, D = 16, context 77.

    Args:
        folder: where it goes; must not exist.
        precisions: the graphs it holds; all compute the same in float32.
        seed: of the weights.
        changes: fields of the ModelSpec to replace, such as `probability="sigmoid"` or `pixels=pixel_spec(...)`.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        vocab_size = write_tiny_tokenizer(work / "tokenizer.json")
        spec = model_spec(vocab_size, **changes)
        visual = write_image_graph(work / "visual.onnx", image_weights(seed))
        textual = write_text_graph(work / "textual.onnx", text_weights(vocab_size, seed))
        weights = hashlib.sha256(visual.read_bytes() + textual.read_bytes()).hexdigest()
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            model=spec,
            embedding_space=embedding_space_id(spec, weights, sha256_file(work / "tokenizer.json")),
            provenance=Provenance("tests/bundles.py", weights, "Apache-2.0", "2026-01-01T00:00:00+00:00"),
            tools={"clipdeploy": "tests"},
        )
        with create_bundle(folder, manifest) as bundle:
            bundle.add("tokenizer.json", work / "tokenizer.json", kind="tokenizer", origin="tests")
            for precision in precisions:
                for tower, graph in ((Tower.IMAGE, visual), (Tower.TEXT, textual)):
                    bundle.add(
                        tower.graph_name(precision),
                        graph,
                        kind="graph",
                        origin="tests",
                        tower=tower,
                        precision=precision,
                        opset=19,
                    )
    return folder
