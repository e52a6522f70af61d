"""How the small vision transformer begins: with the habits that a large one has to learn from data.

Patch filters start as cosines, flat ones damped and fine ones raised, so that edges are seen from the first step.
Positions start as sines of row and column, and queries like keys, so that attention starts local; values and
outputs start as near opposites, as they are found in trained transformers (Trockman and Kolter, "Mimetic
Initialization of Self-Attention Layers", 2023).
"""

from __future__ import annotations

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

# luminance and two opponent colours
_CHANNELS = ((0.58, 0.58, 0.58), (0.71, -0.71, 0.0), (0.41, 0.41, -0.82))


def cosine_filters(count: int, side: int) -> Tensor:
    """(count, 3, side, side): half of them luminance, a quarter each of two colour oppositions, coarse ones first."""
    grid = (torch.arange(side) + 0.5) * torch.pi / side
    waves = torch.stack([torch.cos(grid * k) for k in range(side)])  # (frequency, position)
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda uv: (sum(uv), uv))
    filters = []
    for channel, share in zip(_CHANNELS, (count // 2, count // 4, count - count // 2 - count // 4), strict=True):
        for u, v in (order * (share // len(order) + 1))[:share]:
            wave = torch.outer(waves[u], waves[v])
            wave = wave / wave.norm() * (0.5 + u + v) * 4.0 / side
            filters.append(torch.tensor(channel)[:, None, None] * wave)
    return torch.stack(filters)


def sine_positions(rows: int, width: int) -> Tensor:
    """(rows * rows, width): sines and cosines of the row and of the column, in short sides."""
    quarter = width // 4
    speeds = torch.pi * 2.0 ** torch.linspace(-0.5, 3.0, quarter)
    place = (torch.arange(rows) + 0.5) / rows
    angles = place[:, None] * speeds  # (rows, quarter)
    line = torch.cat((angles.sin(), angles.cos()), 1)  # (rows, width / 2)
    down = line[:, None].expand(rows, rows, -1)
    along = line[None].expand(rows, rows, -1)
    return torch.cat((down, along), 2).reshape(rows * rows, width)


@torch.no_grad()
def settle(tower: VisionTransformer, likeness: float = 0.2, opposition: float = 0.4) -> None:
    """Sets a fresh tower's first weights, in place, from torch's own random state."""
    width = tower.positional_embedding.shape[1]
    side, rows = tower.conv1.kernel_size[0], tower.grid_size[0]
    tower.conv1.weight.copy_(cosine_filters(width, side))
    tower.positional_embedding.zero_()
    tower.positional_embedding[1:] = sine_positions(rows, width)
    for block in tower.transformer.resblocks:
        query, _, value = block.attn.in_proj_weight.chunk(3)
        torch.nn.init.orthogonal_(query)
        query *= likeness**0.5 * 1.4
        key = query + torch.randn_like(query) * (0.3 * likeness**0.5 / width**0.5)
        torch.nn.init.orthogonal_(value)
        block.attn.in_proj_weight.copy_(torch.cat((query, key, value)))
        noise = torch.randn_like(value) * (opposition / width**0.5)
        block.attn.out_proj.weight.copy_(noise - opposition * value.T)
