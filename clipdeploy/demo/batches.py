"""Batches for training, and the pictures a run is checked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from clipdeploy.demo.captions import ABOVE, TEMPLATE, UNSAID, class_name, with_article
from clipdeploy.demo.forward import encode_image, encode_text
from clipdeploy.demo.learn import HELD_OUT_TABLE, augment, to_pixels, truth, untold
from clipdeploy.demo.score import score_pictures
from clipdeploy.demo.trainset import TrainSet, shrink
from clipdeploy.demo.vocabulary import Vocabulary
from clipdeploy.demo.world import COLOURS, HELD_OUT, PAIRS, SHAPES

SPEECHLESS = 0.03  # of the filler words of a caption are hidden, so that unknown words do little harm


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures, a caption each, and what is known of them.

    pixels (B, 3, H, W) float32, normalised; tokens (B, L) and ends (B,) of the captions; true (B, B) bool, [picture,
    caption]: true of it, or not to be held against it; names (B, 2): colour and shape of the only object, -1 where
    there are more.
    """

    pixels: Tensor
    tokens: Tensor
    ends: Tensor
    true: Tensor
    names: Tensor


class Words:
    """ "a photo of a heart." and "a photo of a red object.": a text for every colour and every shape alone."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        names = [f"{colour} object" for colour in COLOURS] + list(SHAPES)
        tokens, ends = vocabulary.tokens([[f"a photo of {with_article(name)}."] for name in names])
        self.tokens, self.ends = tokens[:, 0].to(device), ends[:, 0].to(device)

    def loss(self, image: Tensor, text: Tensor, scale: Tensor, names: Tensor) -> Tensor:
        """How badly pictures (B, D) are told by one word among `text` (22, D), the embeddings of these texts."""
        logits = scale * image @ text.T
        colour, shape = names[:, 0], names[:, 1]
        held = HELD_OUT_TABLE.to(names.device)
        # as in `untold`: what is never shown together is not held against a picture
        colours = logits[:, : len(COLOURS)].masked_fill(held.T[shape.clamp(min=0)], float("-inf"))
        shapes = logits[:, len(COLOURS) :].masked_fill(held[colour.clamp(min=0)], float("-inf"))
        # where there are several objects the mask above is meaningless, and so is the label: ignored
        return F.cross_entropy(colours, colour, ignore_index=-1) + F.cross_entropy(shapes, shape, ignore_index=-1)


class Data:
    """A `TrainSet` as tensors, with its captions as tokens of a `Vocabulary`."""

    def __init__(self, made: TrainSet, vocabulary: Vocabulary, device: torch.device) -> None:
        self.pixels = torch.from_numpy(made.pixels)
        self.claims = torch.from_numpy(made.claims)
        self.things = torch.from_numpy(made.things)
        self.places = torch.from_numpy(made.places)
        self.setting = torch.from_numpy(made.setting)
        self.tokens, self.ends = vocabulary.tokens(made.texts)  # (N, 4, L), (N, 4)
        self.vocabulary = vocabulary
        self.device = device

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, *, singles: bool) -> Tensor:
        """Which pictures may be drawn: those of one object, or all."""
        return torch.nonzero(self.things[:, 1, 0] < 0)[:, 0] if singles else torch.arange(len(self))

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The pictures of `rows`, shifted and mirrored by chance, each with one of its captions."""
        which = torch.randint(self.tokens.shape[1], (len(rows),), generator=generator)
        claims = self.claims[rows, which]
        places = self.places[rows].clone()
        # a mirrored picture turns "left of" into a lie; the shapes themselves have no handedness
        may_flip = (claims[:, 9] == UNSAID) | (claims[:, 9] == ABOVE)
        flip = may_flip & (torch.rand(len(rows), generator=generator) < 0.5)
        places[..., 0] = torch.where(flip[:, None], -places[..., 0], places[..., 0])
        pixels = to_pixels(augment(self.pixels[rows], flip, generator).to(self.device))
        tokens, ends = self.tokens[rows, which], self.ends[rows, which]
        tokens = tokens[:, : int(ends.max()) + 1]
        hidden = self.vocabulary.is_filler(tokens) & (torch.rand(tokens.shape, generator=generator) < SPEECHLESS)
        tokens = tokens.masked_fill(hidden, 0).to(self.device)
        true = truth(self.things[rows], places, self.setting[rows], claims) | untold(self.things[rows], claims)
        alone = (self.things[rows, 1, 0] < 0)[:, None]
        names = torch.where(alone, self.things[rows, 0, :2].long(), -1).to(self.device)
        return Batch(pixels, tokens, ends.to(self.device), true.to(self.device), names)


class Check:
    """Top-1 among all pairs on held-out pairs while training goes on, with pictures that scoring does not use."""

    def __init__(self, vocabulary: Vocabulary, a_pair: int = 25) -> None:
        made = list(score_pictures(HELD_OUT, a_pair, seed=1))
        self.pixels = torch.from_numpy(np.stack([np.asarray(shrink(picture)) for picture, _ in made]))
        self.labels = torch.tensor([PAIRS.index(pair) for _, pair in made])
        tokens, ends = vocabulary.tokens([[TEMPLATE.format(class_name(pair))] for pair in PAIRS])
        self.tokens, self.ends = tokens[:, 0], ends[:, 0]

    @torch.inference_mode()
    def __call__(self, model: CLIP, device: torch.device) -> float:
        """Share of right answers, 0..1."""
        model.eval()
        bank = encode_text(model, self.tokens.to(device), self.ends.to(device))
        right = 0
        for pixels, labels in zip(torch.split(self.pixels, 200), torch.split(self.labels, 200), strict=True):
            image = encode_image(model, to_pixels(pixels.to(device)))
            right += int(((image @ bank.T).argmax(1).cpu() == labels).sum())
        model.train()
        return right / len(self.labels)
