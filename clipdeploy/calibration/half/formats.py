"""The two half formats, and how far a graph may go in them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from clipdeploy.errors import InputError
from clipdeploy.spec import Precision

MARGIN = 2.0
"""Largest number of a format over what calibration may have measured: other pictures reach further."""


@dataclass(frozen=True)
class HalfFormat:
    """A number format of 16 bits.

    Attributes:
        name: behind the name of a tensor that exists in two types.
        dtype: the type in a graph.
        type_name: the type as operator schemas spell it.
        largest: its largest finite number.
        smallest: its smallest number above zero, a subnormal.
        epsilon: distance from 1 to the next number.
    """

    name: str
    dtype: ir.DataType
    type_name: str
    largest: float
    smallest: float
    epsilon: float

    @property
    def limit(self) -> float:
        """What a measured value may reach."""
        return self.largest / MARGIN


FORMATS = {
    Precision.FP16: HalfFormat("fp16", ir.DataType.FLOAT16, "tensor(float16)", 65504.0, 2.0**-24, 2.0**-10),
    Precision.BF16: HalfFormat(
        "bf16", ir.DataType.BFLOAT16, "tensor(bfloat16)", 3.3895313892515355e38, 2.0**-133, 2.0**-7
    ),
}


def half_format(precision: Precision) -> HalfFormat:
    """The format of a precision; raises InputError for one that has not 16 bits."""
    if precision not in FORMATS:
        raise InputError(f"{precision.value} is no format of 16 bits; expected fp16 or bf16")
    return FORMATS[precision]
