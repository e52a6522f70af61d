"""TensorRT and TensorRT for RTX at run time: the product, the GPU's memory, and engines loaded from their files."""
