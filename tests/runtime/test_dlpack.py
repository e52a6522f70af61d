"""Capsules of DLPack, handed to and taken from NumPy, which reads those of the machine's memory."""

from __future__ import annotations

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from clipdeploy.runtime.trt import dlpack

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


class Owner:
    pass


class Exporter:
    """What `numpy.from_dlpack` takes."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __dlpack__(self, **asked: Any) -> Any:
        return self.made

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0


def exported(values: np.ndarray = VALUES) -> tuple[Any, weakref.ref[Owner]]:
    owner = Owner()
    made = dlpack.capsule(values.ctypes.data, values.shape, values.dtype.name, (dlpack.CPU, 0), owner)
    return made, weakref.ref(owner)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "uint8"])
def test_numpy_takes_our_capsules(dtype: str) -> None:
    values = VALUES.astype(dtype)
    made, _ = exported(values)
    taken = np.from_dlpack(Exporter(made))
    assert taken.dtype == values.dtype
    np.testing.assert_array_equal(taken, values)
    assert taken.ctypes.data == values.ctypes.data


def test_the_owner_stays_as_long_as_anybody_looks() -> None:
    made, owner = exported()
    taken = np.from_dlpack(Exporter(made))
    del made
    part = taken[1:]
    del taken
    gc.collect()
    assert owner() is not None
    np.testing.assert_array_equal(part, VALUES[1:])
    del part
    gc.collect()
    assert owner() is None


def test_a_capsule_that_nobody_takes_lets_go() -> None:
    made, owner = exported()
    del made
    assert owner() is None


def test_capsules_leave_nothing_behind() -> None:
    def one(index: int) -> None:
        made, _ = exported()
        if index % 2:
            np.from_dlpack(Exporter(made))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(2000)))
    gc.collect()
    assert dlpack._given == {}


@pytest.mark.parametrize(
    "values",
    [VALUES, VALUES[1:], VALUES.T, VALUES[:, :, 1:], VALUES[::2], np.ones((1, 3, 1)), np.zeros((0, 3)), np.float32(3)],
    ids=lambda values: f"{values.shape}{values.strides}",
)
def test_capsules_of_numpy_are_read(values: Any) -> None:
    values = np.asarray(values)
    given = values.__dlpack__()
    told = dlpack.read(given)
    assert (told.shape, told.dtype, told.device) == (values.shape, values.dtype.name, (dlpack.CPU, 0))
    assert told.gapless == values.flags.c_contiguous
    if values.size:
        assert told.address == values.ctypes.data
    if values.size > 1:  # it is still the caller's to hand on
        np.testing.assert_array_equal(np.from_dlpack(Exporter(given)), values)


def test_what_is_no_capsule_is_refused() -> None:
    made, _ = exported()
    np.from_dlpack(Exporter(made))
    for wrong in (made, 5, None, "dltensor", sys):
        with pytest.raises(TypeError, match="not a DLPack capsule, or one that was taken already"):
            dlpack.read(wrong)


def test_types_that_have_no_name_here_are_told_by_number() -> None:
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16")
    assert dlpack.read(torch.ones(2, 3, dtype=torch.bfloat16).__dlpack__()).dtype == "code4:16"
    assert dlpack.read(torch.ones(2, 3).__dlpack__()).dtype == "float32"


def test_pytorch_takes_our_capsules() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch calls the deleter from C++")
    made, owner = exported()
    taken = torch.from_dlpack(made)
    del made
    np.testing.assert_array_equal(taken.numpy(), VALUES)
    assert owner() is not None
    del taken
    gc.collect()
    assert owner() is None


@pytest.mark.parametrize(
    ("shape", "strides", "unit", "gapless"),
    [
        ((2, 3), (3, 1), 1, True),
        ((2, 3), (12, 4), 4, True),
        ((2, 3), (13, 4), 4, False),
        ((2, 3), (1, 2), 1, False),
        ((1, 3), (99, 1), 1, True),
        ((2, 0), (7, 7), 1, True),
        ((), (), 1, True),
    ],
)
def test_gaps(shape: tuple[int, ...], strides: tuple[int, ...], unit: int, gapless: bool) -> None:
    assert dlpack.is_gapless(shape, strides, unit) is gapless
