"""An ONNX file to a strongly typed network."""

from __future__ import annotations

from typing import Any

from clipdeploy.engine.builder import messages
from clipdeploy.engine.builder.log import BuilderLog
from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine.product import Product


def parse_network(builder: Any, logger: Any, log: BuilderLog, outline: Outline, product: Product) -> tuple[Any, Any]:
    """The network, and the parser that owns its weights and must live until the engine is built.

    Raises:
        EngineError: an operator is unknown, types do not fit, or the file is not readable.
    """
    module = product.module
    network = builder.create_network(_strongly_typed(module))
    parser = module.OnnxParser(network, logger)
    # By its path, so that weights beside the file are found.
    if not parser.parse_from_file(str(outline.path)) or parser.num_errors:
        errors = [messages.read_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise messages.parse_failure(errors, log.errors, outline, product)
    if not network.num_outputs:
        raise messages.parse_failure([], log.errors, outline, product)
    return network, parser


def _strongly_typed(module: Any) -> int:
    """The flag that lets the graph alone decide every type; TensorRT 11 knows nothing else but takes it."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)
