"""The learning step: which captions are true of which pictures, the contrastive loss, cheap augmentation."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from clipdeploy.demo.captions import LEFT_OF, UNSAID
from clipdeploy.demo.recipe import PIXEL_MEAN, PIXEL_STD
from clipdeploy.demo.world import COLOURS, SHAPES, is_held_out

# (10, 12) bool: [colour, shape]
HELD_OUT_TABLE = torch.tensor([[is_held_out(colour, shape) for shape in SHAPES] for colour in COLOURS])

_MARGIN = 0.04  # short sides by which "left of" must hold


def _fits(things: Tensor, said: Tensor) -> Tensor:
    """things (B, 3, 4), said (B, 4) -> (B pictures, B captions, 3): does thing s of picture i meet what j said?"""
    wanted = said[None, :, None, :]
    same = (wanted == UNSAID) | (wanted == things[:, None])
    return same.all(-1) & (things[:, None, :, 0] >= 0)


def truth(things: Tensor, places: Tensor, setting: Tensor, claims: Tensor) -> Tensor:
    """(B, B) bool: caption j is true of picture i.

    things (B, 3, 4) int8, places (B, 3, 2) float32, setting (B, 4) int8, claims (B, 14) int8.
    """
    first, second = claims[:, 0:4], claims[:, 4:8]
    has_second, relation, wanted = claims[:, 8] > 0, claims[:, 9], claims[:, 10:14]
    around = ((wanted[None] == UNSAID) | (wanted[None] == setting[:, None])).all(-1)  # (B, B)
    one = _fits(things, first)
    other = _fits(things, second)
    x, y = places[..., 0], places[..., 1]
    pairs = torch.zeros_like(around)
    for s, t in permutations(range(3), 2):
        left = (x[:, t] - x[:, s] > _MARGIN)[:, None]
        above = (y[:, t] - y[:, s] > _MARGIN)[:, None]
        holds = (relation == UNSAID)[None] | torch.where((relation == LEFT_OF)[None], left, above)
        pairs |= one[..., s] & other[..., t] & holds
    return around & torch.where(has_second[None], pairs, one.any(-1))


def untold(things: Tensor, claims: Tensor) -> Tensor:
    """(B, B) bool: whether caption j may not be held against picture i, because no training picture could make it true.

    No white cross is ever shown. If "a cross" were a wrong answer for every white thing, the network would learn that
    white things are no crosses. So a colour alone or a shape alone is not held against a picture whose object would
    make a held-out pair with it. things (B, 3, 4) int8, claims (B, 14) int8.
    """
    held = HELD_OUT_TABLE.to(things.device)
    there = things[:, :, 0] >= 0
    colours, shapes = things[:, :, 0].long().clamp(min=0), things[:, :, 1].long().clamp(min=0)
    no_shape = (held[colours] & there[..., None]).any(1)  # (B, 12)
    no_colour = (held.T[shapes] & there[..., None]).any(1)  # (B, 10)
    spared = torch.zeros(len(things), len(claims), dtype=torch.bool, device=things.device)
    for start in (0, 4):
        colour, shape = claims[:, start].long(), claims[:, start + 1].long()
        spared |= no_shape[:, shape.clamp(min=0)] & ((shape >= 0) & (colour < 0))
        spared |= no_colour[:, colour.clamp(min=0)] & ((colour >= 0) & (shape < 0))
    return spared


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, true: Tensor) -> Tensor:
    """CLIP's loss, on (B, D) unit vectors. `true` is (B, B) bool, [picture, caption]: what is left out of the wrong
    answers, beside a picture's own caption."""
    own = torch.arange(len(image), device=image.device)
    logits = scale * image @ text.T
    spared = true.clone()
    spared[own, own] = False
    logits = logits.masked_fill(spared, float("-inf"))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def to_pixels(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, normalised, channels last in memory."""
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device) * 255.0
    std = torch.tensor(PIXEL_STD, device=pixels.device) * 255.0
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def augment(pixels: Tensor, flip: Tensor, generator: torch.Generator, reach: int = 4) -> Tensor:
    """(B, H, W, 3) uint8: mirrors the pictures of `flip` (B,) bool, then shifts each eighth of the batch by up to
    `reach` px, edges repeated."""
    pixels = torch.where(flip[:, None, None, None], pixels.flip(2), pixels)
    height = pixels.shape[1]
    rows = torch.arange(height, device=pixels.device)
    parts = []
    for part in pixels.chunk(8):
        dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        part = part.index_select(1, (rows + dy).clamp(0, height - 1))
        parts.append(part.index_select(2, (rows + dx).clamp(0, height - 1)))
    return torch.cat(parts)
