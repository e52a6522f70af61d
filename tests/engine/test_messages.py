"""Messages of real builders, as sentences. Those of TensorRT are from threads of its issue tracker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from clipdeploy.engine.builder.messages import ParserError, build_failure, check_domains, parse_failure
from clipdeploy.engine.builder.outline import NodeOutline, Outline
from clipdeploy.engine.product import Product
from clipdeploy.errors import EngineError

FULL = Product("tensorrt", None, "10.3.0")
RTX = Product("tensorrt-rtx", None, "1.7.1.116")
MIB = 1024**2
NODES = (NodeOutline("node_a", "MatMul", ""), NodeOutline("node_b", "Wonder", "acme.ai"))
PLUGIN = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
CANNOT = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:1500: run_passes] Cannot compile for target(s) "
)


def outline(*nodes: NodeOutline) -> Outline:
    return Outline(Path("visual.onnx"), 19, nodes or NODES, (), frozenset(), 1000)


def read(error: ParserError, *log: str, nodes: tuple[NodeOutline, ...] = NODES) -> EngineError:
    return parse_failure([error], log, outline(*nodes), RTX)


def test_an_unknown_operator_names_node_operator_and_domain() -> None:
    error = read(ParserError("INVALID_NODE", PLUGIN, 1, "node_b", "Wonder"))
    assert error.message == (
        "TensorRT for RTX 1.7.1.116 does not know node 'node_b' (Wonder of acme.ai): it has no such operator or plugin"
    )
    assert error.fix is not None and "export or import the checkpoint with clipdeploy" in error.fix


def test_an_operator_that_is_known_and_not_computed() -> None:
    error = read(ParserError("UNSUPPORTED_NODE", "false", 0, "node_det", "Det"))
    assert error.message == "TensorRT for RTX 1.7.1.116 does not compute node 'node_det' (Det)"


def test_types_that_do_not_fit() -> None:
    text = (
        "Invalid Node - node_a\nITensor::getDimensions: Error Code 4: API Usage Error (node_a: IMatrixMultiplyLayer "
        "must have same input types. `A` is of type Float and `B` is of type Half. In validateTypes at "
        "/_src/optimizer/common/nodes/matrixMultiplyNode.cpp:38)"
    )
    error = read(ParserError("INVALID_NODE", text, 0, "node_a", "MatMul"))
    assert error.message == (
        "TensorRT for RTX 1.7.1.116 takes every type from the graph, and node 'node_a' (MatMul) mixes types: node_a: "
        "IMatrixMultiplyLayer must have same input types. `A` is of type Float and `B` is of type Half"
    )


def test_a_graph_quantised_for_a_processor() -> None:
    text = (
        "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported. Please set kENABLE_UINT8"
    )
    node = NodeOutline("pixels_q", "QuantizeLinear", "")
    error = read(ParserError("INVALID_NODE", text, 0, "pixels_q", "QuantizeLinear"), nodes=(node,))
    assert "was made for a processor" in error.message
    assert error.fix is not None and "--precision int8 --target tensorrt" in error.fix


def test_operators_of_onnx_runtime_are_refused_before_they_are_taken_for_others() -> None:
    graph = outline(NODES[0], NodeOutline("attention", "Attention", "com.microsoft"))
    with pytest.raises(
        EngineError, match=r"made for ONNX Runtime: node 'attention' \(Attention of com\.microsoft\)"
    ) as caught:
        check_domains(graph, RTX)
    assert caught.value.fix is not None and "--target tensorrt" in caught.value.fix
    check_domains(outline(), RTX)  # another domain may be that of a plugin


@pytest.mark.parametrize(
    ("error", "log", "message"),
    [
        (
            ParserError("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.", -1, "", ""),
            "",
            "cut off, or no ONNX",
        ),
        (ParserError("MEM_ALLOC_FAILED", "", -1, "", ""), "", "memory ran out while visual.onnx was read"),
        (
            ParserError("INVALID_GRAPH", "Failed to import initializer: visual.bias", -1, "", ""),
            "WeightsContext.cpp:203: Failed to open file: ext.onnx.data",
            "cannot read the weights of visual.onnx: Failed to open file: ext.onnx.data",
        ),
        (
            ParserError("INTERNAL_ERROR", "x.cpp:1: something new", 0, "node_a", "MatMul"),
            "",
            r"\(MatMul\): something new",
        ),
    ],
)
def test_what_else_a_parser_says(error: ParserError, log: str, message: str) -> None:
    assert re.search(message, read(error, *filter(None, [log])).message)


def test_a_file_without_any_error_or_network() -> None:
    error = parse_failure([], ["onnx.cpp:9: nothing here"], outline(), RTX)
    assert error.message == "TensorRT for RTX 1.7.1.116 finds no network in visual.onnx: nothing here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CANNOT + "sm80, sm86, because the model contains HW-specific datatypes: fp8_e4m3.",
            r"8\.0, 8\.6 does not compute in fp8",
        ),
        (CANNOT + "sm120, because the model contains HW-specific datatypes: b16.", r"capability 12\.0 does not"),
        (
            "Myelin ([pass.cpp:337: check_turing_op_compatibility] Cannot compile operation 'node_linear' for Turing "
            "(SM75): FP32 GEMM is not supported. In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)",
            r"node 'node_linear' for compute capability 7\.5: FP32 GEMM is not supported$",
        ),
        (
            "Error Code 1: Cuda Runtime (In generate at /_src/x.cpp:221 (cudaError 35: CUDA driver version is "
            "insufficient for CUDA runtime version))",
            "no GPU, or a driver too old",
        ),
        ("CUDA initialization failure with error: 35", "no GPU, or a driver too old"),
        ("Unable to load library: libnvinfer_lean.so.10: cannot open shared object file", "needs its lean runtime"),
        (
            "Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics to implement the "
            "operation within workspace limit. Consider increase the allowed workspace size if applicable.",
            r"within the scratch memory allowed, 2\.9 GiB were free$",
        ),
        (
            "Error Code 4: API Usage Error (something new. In run at /_src/x.cpp:1)",
            "could not build visual.onnx: something new$",
        ),
        ("", "could not build visual.onnx: it says no reason"),
    ],
)
def test_what_a_builder_says(text: str, message: str) -> None:
    error = build_failure([text] if text else [], outline(), RTX, free_bytes=3000 * MIB)
    assert re.search(message, error.message)
    assert "_src" not in error.message and ".cpp" not in error.message
    assert error.fix


@pytest.mark.parametrize(
    "text",
    [
        "2: [virtualMemoryBuffer.cpp::resizePhysical::127] Error Code 2: OutOfMemory (no further information)",
        "1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory (17179869184 bytes) could not be allocated.",
        "std::bad_alloc",
    ],
)
def test_memory_that_ran_out(text: str) -> None:
    error = build_failure([text], outline(), FULL, free_bytes=2048 * MIB)
    assert error.message == "memory ran out while TensorRT 10.3.0 built visual.onnx, 2.0 GiB were free"
    assert error.fix is not None
    for way in (
        "--workspace 1024MiB",
        "close other programs",
        "add swap",
        "--precision fp16",
        "smaller largest --batch",
    ):
        assert way in error.fix


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (
            "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any implementation "
            "for node {ForeignNode[onnx::MatMul_1...node_div]}.)",
            "{ForeignNode[onnx::MatMul_1...node_div]}",
        ),
        ("Error Code 10: Internal Error (Could not find any implementation for node node_Conv_143.)", "node_Conv_143"),
    ],
)
def test_no_implementation_is_mostly_no_memory(text: str, node: str) -> None:
    maybe = build_failure([text], outline(), FULL, free_bytes=2048 * MIB)
    assert maybe.message == (
        f"TensorRT 10.3.0 found no kernel for node {node} of visual.onnx; on a small device this is mostly want of "
        "memory, 2.0 GiB were free"
    )
    surely = build_failure([text], outline(), FULL, skipped_for_memory=12)
    assert surely.message == f"memory ran out while TensorRT 10.3.0 built visual.onnx at node {node}"


def test_too_little_scratch_memory_on_tensorrt() -> None:
    text = (
        "Could not find any implementation for node {ForeignNode[a...b]} due to insufficient workspace. See verbose log"
    )
    error = build_failure([text], outline(), FULL)
    assert "within the scratch memory allowed" in error.message
    assert error.fix is not None and "--workspace" in error.fix


def test_weights_are_left_out_only_where_there_is_a_gpu() -> None:
    text = (
        "Myelin ([myelin_graph.h:1295: f] MyelinCheckException: graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed"
    )
    error = build_failure([text], outline(), RTX, stripped=True)
    assert error.message == (
        "TensorRT for RTX 1.7.1.116 leaves weights out only where an NVIDIA GPU and its driver are"
    )
