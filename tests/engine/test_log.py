from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from clipdeploy.engine.builder.log import BuilderLog

RTX_LAYERS = """Layers:
Name: a, LayerType: kgen
Name: b, LayerType: gemm

I/O Tensors:
 Name: x, IOMode: Input

Engine Metadata:
 Multi-Device: Disabled"""


def test_of_thousands_of_lines_the_layers_are_kept() -> None:
    log = BuilderLog()
    log.take("VERBOSE", "Adding network input: pixel_values")
    log.take("INFO", "Detected 1 inputs and 1 output network tensors.")
    log.take("VERBOSE", "Found node_matmul to be part of self-attention pattern.")
    log.take("VERBOSE", RTX_LAYERS)
    assert log.layers == [
        "Found node_matmul to be part of self-attention pattern.",
        "Layers:",
        "Name: a, LayerType: kgen",
        "Name: b, LayerType: gemm",
    ]
    assert (log.warnings, log.errors) == ([], [])


def test_layers_of_tensorrt_10() -> None:
    log = BuilderLog()
    log.take("VERBOSE", "Engine Layer Information:\nLayer(gemm): a, Tactic: 0x0, x (Half[1]) -> y (Half[1])")
    assert log.layers[1:] == ["Layer(gemm): a, Tactic: 0x0, x (Half[1]) -> y (Half[1])"]


def test_a_warning_is_kept_once_and_without_its_place_in_the_source() -> None:
    log = BuilderLog()
    for _ in range(56):
        log.take("WARNING", " (foreignNode) Converting conv weight scales to fp32.")
    log.take("WARNING", "onnxOpImporters.cpp:1980: UINT8 is for DLA")
    assert log.warnings == ["Converting conv weight scales to fp32.", "UINT8 is for DLA"]


def test_a_warning_that_says_nothing_is_left() -> None:
    log = BuilderLog()
    log.take("WARNING", "ModelImporter.cpp:1071: Make sure input input_ids has Int64 binding.")
    assert log.warnings == []


def test_kernels_skipped_for_memory_are_counted() -> None:
    log = BuilderLog()
    log.take("WARNING", "Tactic Device request: 4128MB Available: 2500MB. Device memory is insufficient to use tactic.")
    log.take(
        "WARNING", "UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 4329572864"
    )
    assert (log.skipped_for_memory, log.warnings) == (2, [])


def test_errors_are_kept() -> None:
    log = BuilderLog()
    log.take("ERROR", "first")
    log.take("INTERNAL_ERROR", "second")
    assert log.errors == ["first", "second"]
