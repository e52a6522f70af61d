"""Which operators of ONNX a parser takes, from the lists that onnx-tensorrt publishes with its releases.

Three lists were read whole, of 9.1, 10.6 and 11.0 (https://github.com/onnx/onnx-tensorrt/blob/COMMIT/docs/operators.md,
commits 877b5dc, 0137504, 2f3fa34), and the changelog between them (docs/Changelog.md, up to 10.15). An operator that
stands in a later list, and that the changelog does not date, counts from that list on.
"""

from __future__ import annotations

from clipdeploy.engine.targets.target import EngineTarget, Version

_LIST = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
_CHANGES = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/Changelog.md"
PARSER = "https://github.com/onnx/onnx-tensorrt/blob/main/ModelImporter.cpp"

_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSwish HardSigmoid Identity
If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM
LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero
Not OneHot Or Pad Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan Scatter ScatterElements ScatterND Selu
Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan
Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
_ALWAYS = frozenset(_NAMES.split())
"""In the list of TensorRT 9.1, and in every later one that was read."""

_SINCE: dict[str, tuple[Version, str]] = {
    "Hardmax": ((9, 2), _CHANGES),
    "DeformConv": ((10, 1), _CHANGES),
    "BlackmanWindow": ((10, 4), _CHANGES),
    "HammingWindow": ((10, 4), _CHANGES),
    "HannWindow": ((10, 4), _CHANGES),
    "STFT": ((10, 5), _CHANGES),
    "Gelu": ((10, 6), _LIST),
    "Mish": ((10, 6), _LIST),
    "Attention": ((10, 14), _CHANGES),
    "RMSNormalization": ((10, 15), _CHANGES),
    "RotaryEmbedding": ((10, 15), _CHANGES),
    "TensorScatter": ((10, 15), _CHANGES),
    "Swish": ((11, 0), _LIST),
    "DFT": (
        (11, 2, 1),
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-11/11.2.1.html",
    ),
}

# What a list says of the opsets that it was written for. 11.5: https://github.com/NVIDIA/TensorRT/releases/tag/v11.5
_OPSETS: tuple[tuple[Version, int, str], ...] = (
    ((9, 1), 19, _LIST),
    ((10, 6), 22, _LIST),
    ((10, 15), 24, _LIST),
    ((11, 5), 25, "https://github.com/NVIDIA/TensorRT/releases/tag/v11.5"),
)

_RTX_PARSERS: tuple[tuple[Version, Version], ...] = (((1, 0), (10, 6)), ((1, 7), (11, 0)))
"""TensorRT for RTX -> the parser that it is taken for. Its documentation has no list of its own; 1.7.1 parses and
builds Gelu, Mish, Swish and RMSNormalization."""


def takes(target: EngineTarget, operator: str) -> tuple[bool, str]:
    """Whether the target's parser takes an operator of the standard domain, and where that is said."""
    if operator in _ALWAYS:
        return True, _LIST
    since, source = _SINCE.get(operator, (None, _LIST))
    return since is not None and _parser(target).since(since), source


def since(operator: str) -> str | None:
    """The first TensorRT whose parser takes an operator, such as `10.14`; None where none does."""
    found = _SINCE.get(operator)
    return None if found is None else ".".join(map(str, found[0]))


def documented_opset(target: EngineTarget) -> tuple[int, str]:
    """The highest opset that is documented for the target's parser, and where."""
    fitting = [(opset, source) for first, opset, source in _OPSETS if _parser(target).since(first)]
    return fitting[-1]


def _parser(target: EngineTarget) -> EngineTarget:
    """The target by the version of its parser."""
    if target.backend == "tensorrt":
        return target
    version = [parser for first, parser in _RTX_PARSERS if target.since(first)][-1]
    return EngineTarget("tensorrt", version, target.compute_capabilities)
