"""ONNX files: read, written whole or not at all, without PyTorch."""
