"""ONNX graphs of others -> a bundle, and what is wrong with them. Needs onnx and onnxruntime, never PyTorch."""

from __future__ import annotations
