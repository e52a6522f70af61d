"""INT8 for processors: placed, typed and written so that ONNX Runtime computes in integers on x86 and ARM."""

from clipdeploy.calibration.cpu.placement import pixel_range, place_cpu, ranges_needed
from clipdeploy.calibration.cpu.quantise import CpuResult, quantise_cpu

__all__ = ["CpuResult", "pixel_range", "place_cpu", "quantise_cpu", "ranges_needed"]
