"""Builds the graphs that a search tries: with Q/DQ for TensorRT, in half precision, in INT8 for processors."""
