"""Several training processes that keep one model: each learns from its own batches, gradients are averaged.

Two processes of one thread each use two cores better than one process of two threads: the networks are small, and
most of their operations too short to be worth splitting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True)
class Crew:
    """`rank` of `size` processes; the one of rank 0 checks, tells and saves."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process tells and saves."""
        return self.rank == 0

    def join(self, port: int) -> None:
        """Meets the others on this machine."""
        if self.size > 1:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            distributed.init_process_group("gloo", rank=self.rank, world_size=self.size)

    def part(self) -> None:
        """Leaves the others."""
        if self.size > 1:
            distributed.destroy_process_group()

    def lead_value(self, value: float) -> float:
        """Rank 0's value, for everyone."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return float(shared)

    def _mean(self, tensors: list[Tensor]) -> None:
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def mean_gradients(self, model: nn.Module) -> None:
        """Replaces every gradient by its mean over the processes."""
        self._mean([p.grad for p in model.parameters() if p.grad is not None])

    def mean_statistics(self, model: nn.Module) -> None:
        """Replaces batch-norm's running statistics by their mean over the processes."""
        self._mean([b for n, b in model.named_buffers() if "running_" in n])

    def start_alike(self, model: nn.Module) -> None:
        """Gives everyone rank 0's weights."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)
