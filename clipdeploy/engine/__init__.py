"""A typed graph of a bundle to a TensorRT engine, of TensorRT or TensorRT for RTX."""
