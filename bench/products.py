"""The matrix products of an encoder by themselves: what they amount to and what they take, the least for anybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SQUARE = 8192
"""Side of the one large product that tells what the chip can do."""


@dataclass(frozen=True)
class Product:
    """`batch` products of (rows, inner) with (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flop(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns


def products_of(network: Any, shape: tuple[int, ...]) -> list[Product]:
    """The matrix products of `network.encode_image` in order, with pixels of `shape`, convolutions among them.

    Nothing is computed: a copy of the network on the meta device is watched.
    """
    import copy

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten, found = torch.ops.aten, list[Product]()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            packet = getattr(func, "overloadpacket", None)
            if packet is aten.mm or packet is aten.addmm:
                left, right = args[-2:]
                found.append(Product(1, *left.shape, right.shape[1]))
            elif packet is aten.bmm or packet is aten.baddbmm:
                left, right = args[-2:]
                count, rows, inner = left.shape
                if right.stride(0) == 0:  # the same weights for all of them, so they are one product
                    count, rows = 1, count * rows
                found.append(Product(count, rows, inner, right.shape[2]))
            elif packet is aten.convolution:
                weight, groups = args[1], args[8]
                inner = weight[0].numel()
                rows = result.shape[0] * result.shape[2] * result.shape[3]
                found.append(Product(groups, rows, inner, weight.shape[0] // groups))
            return result

    pixels = torch.empty(shape, device="meta", dtype=next(network.parameters()).dtype)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator without shapes to read
    kernels = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)  # attention as its two products
    try:
        with torch.no_grad(), kernels, Watch():
            copy.deepcopy(network).to("meta").encode_image(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return found


def products_alone(products: list[Product], device: str, dtype: Any) -> Callable[[], object]:
    """A call that does these products, each with weights of its own, and nothing else; on a GPU as one CUDA graph.

    A call ends when they are done.
    """
    import torch

    lefts: dict[tuple[int, ...], Any] = {}
    pairs = []
    for one in products:
        shape = (one.batch, one.rows, one.inner)
        if shape not in lefts:
            lefts[shape] = torch.randn(shape, device=device, dtype=dtype) * 0.02
        right = torch.randn((one.batch, one.inner, one.columns), device=device, dtype=dtype) * 0.02
        pairs.append((lefts[shape], right, torch.empty((one.batch, one.rows, one.columns), device=device, dtype=dtype)))

    def all_of_them() -> None:
        for left, right, out in pairs:
            torch.matmul(left, right, out=out)

    if device != "cuda":
        return all_of_them
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # cuBLAS takes its workspaces before the capture
        for _ in range(3):
            all_of_them()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_of_them()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def large_product(device: str, dtype: Any, side: int = SQUARE) -> Callable[[], object]:
    """A call that does one square product of random numbers."""
    import torch

    left, right = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.matmul(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    return product
