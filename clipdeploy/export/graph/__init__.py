"""ONNX graphs: trace, read and write, check, simplify."""
