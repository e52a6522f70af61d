"""Trains a demo model: `python -m clipdeploy.demo.train --variant rn --out DIR --minutes 25`.

The learning rate follows the clock, not a count of steps: it warms up over the first 4 % of the budget and falls
to zero along a cosine at its end, so any budget ends in a finished model. A checkpoint in the shipped form is
written every few minutes. A ViT learns this world slowly by itself; `--teacher DIR` gives it the locked text tower
of a trained ResNet, and that model's picture embeddings as targets beside the captions.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from torch.multiprocessing.spawn import spawn

from clipdeploy.demo.batches import Check, Data, Words
from clipdeploy.demo.crew import Crew
from clipdeploy.demo.files import TRAINING, read_json, write_json
from clipdeploy.demo.forward import encode_image, encode_text
from clipdeploy.demo.learn import contrastive_loss
from clipdeploy.demo.network import build, keep_zeros, save
from clipdeploy.demo.recipe import RECIPES, Recipe
from clipdeploy.demo.score import load_model
from clipdeploy.demo.trainset import cached_trainset
from clipdeploy.demo.vocabulary import Vocabulary

TARGET_WEIGHT = 8.0  # of the teacher's embeddings against the captions
WORD_WEIGHT = 0.5  # of telling the colour alone and the shape alone


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for."""

    variant: str
    out: Path
    cache: Path
    minutes: float
    seed: int
    device: str
    processes: int
    pictures: int
    teacher: Path | None
    start: Path | None
    rate: float | None
    easy: float
    check_minutes: float


@dataclass(slots=True)
class Run:
    """One process of a run under way."""

    options: Options
    recipe: Recipe
    crew: Crew
    model: CLIP
    teacher: nn.Module | None
    data: Data
    report: dict[str, Any]
    step: int = 0
    losses: list[float] = field(default_factory=list)

    def note(self, check: Check, seconds: float) -> None:
        """Checks, tells and keeps where the run stands."""
        self.crew.mean_statistics(self.model)
        if not self.crew.leads:
            return
        held_out = check(self.model, self.data.device)
        loss = round(sum(self.losses[-100:]) / max(1, len(self.losses[-100:])), 4)
        row = {"seconds": round(seconds), "steps": self.step, "loss": loss, "held_out_top1": round(held_out, 4)}
        self.report |= row | {"logit_scale": round(float(self.model.logit_scale.detach().exp()), 2)}
        self.report["history"].append(row)
        print(f"{seconds:6.0f} s  step {self.step:6d}  loss {loss:.3f}  held-out {held_out:.1%}", flush=True)
        save(self.model, self.data.vocabulary, self.recipe, self.options.out)
        write_json(self.options.out / TRAINING, self.report)


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; vectors, scales and the token table are not decayed."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in learning if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in learning if p.ndim >= 2 and "embedding" not in name]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6)


def rate_at(part: float) -> float:
    """Share of the highest learning rate after `part` (0..1) of the budget."""
    return part / 0.04 if part < 0.04 else 0.5 + 0.5 * math.cos(math.pi * min(1.0, (part - 0.04) / 0.96))


def learn_batch(run: Run, words: Words, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The gradients of one batch, the pictures of `rows`. Returns the contrastive loss."""
    model, batch = run.model, run.data.batch(rows, generator)
    with torch.autocast(run.data.device.type, torch.bfloat16):
        image = encode_image(model, batch.pixels)
        text = encode_text(model, batch.tokens, batch.ends)
        single = encode_text(model, words.tokens, words.ends)
    scale = model.logit_scale.exp()
    loss = contrastive_loss(image, text, scale, batch.true)
    wanted = loss + WORD_WEIGHT * words.loss(image, single, scale, batch.names)
    if run.teacher is not None:
        with torch.no_grad(), torch.autocast(run.data.device.type, torch.bfloat16):
            target = encode_image(run.teacher, batch.pixels)
        wanted = wanted + TARGET_WEIGHT * (1.0 - (image * target).sum(-1)).mean()
    torch.autograd.backward(wanted)
    return loss.detach()


def learn(run: Run) -> None:
    """The loop, until the budget is spent: pictures of one object for its easy part, then all pictures."""
    generator = torch.Generator().manual_seed(run.options.seed * 1000 + run.crew.rank)
    model, optimizer = run.model, optimizer_of(run.model, run.recipe)
    check, words = Check(run.data.vocabulary), Words(run.data.vocabulary, run.data.device)
    budget, between = run.options.minutes * 60.0, run.options.check_minutes * 60.0
    order = torch.empty(0, dtype=torch.long)
    started = time.perf_counter()
    checks = 0
    model.train()
    while (spent := run.crew.lead_value(time.perf_counter() - started)) < budget:
        for group in optimizer.param_groups:
            group["lr"] = run.recipe.rate * rate_at(spent / budget)
        if len(order) < run.recipe.batch:
            order = run.data.rows(singles=spent < run.options.easy * budget)
            order = order[torch.randperm(len(order), generator=generator)]
        rows, order = order[: run.recipe.batch], order[run.recipe.batch :]
        optimizer.zero_grad()
        run.losses.append(float(learn_batch(run, words, rows, generator)))
        run.crew.mean_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep_zeros(model)
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(100.0))
        run.step += 1
        if spent > (checks + 1) * between:
            checks += 1
            run.note(check, spent)
    run.note(check, time.perf_counter() - started)


def work(rank: int, options: Options, port: int) -> None:
    """One process of a run, from rendered pictures to the last checkpoint."""
    began = time.perf_counter()
    crew = Crew(rank, options.processes)
    if crew.size > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // crew.size))
    crew.join(port)
    recipe = RECIPES[options.variant]
    if options.rate is not None:
        recipe = replace(recipe, rate=options.rate)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    made = cached_trainset(options.cache, options.seed, options.pictures)
    vocabulary = Vocabulary(SimpleTokenizer(), made.texts)
    data = Data(made, vocabulary, device)
    model = build(recipe, vocabulary, options.teacher, options.start).to(device).to(memory_format=torch.channels_last)
    crew.start_alike(model)
    teacher = None
    if options.teacher is not None:
        teacher = load_model(options.teacher)[0].to(device).to(memory_format=torch.channels_last)
    report = describe(options, recipe, model, data) | {"prepared_seconds": round(time.perf_counter() - began, 1)}
    learn(Run(options, recipe, crew, model, teacher, data, report | {"history": []}))
    crew.part()


def describe(options: Options, recipe: Recipe, model: CLIP, data: Data) -> dict[str, Any]:
    """The part of `training.json` that is known before the first step."""
    on_cpu = data.device.type == "cpu"
    return {
        "name": recipe.name,
        "variant": options.variant,
        "seed": options.seed,
        "pictures": len(data),
        "batch": recipe.batch * options.processes,
        "rate": recipe.rate,
        "minutes": options.minutes,
        "teacher": None if options.teacher is None else read_json(options.teacher / TRAINING)["name"],
        "start": None if options.start is None else read_json(options.start / TRAINING),
        "easy": options.easy,
        "image_parameters": sum(p.numel() for p in model.visual.parameters()),
        "words": data.vocabulary.size,
        "device": "CPU" if on_cpu else torch.cuda.get_device_name(data.device),
        "processes": options.processes,
        "threads": torch.get_num_threads() if on_cpu else 0,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "numpy": np.__version__,
        },
    }


def train(options: Options) -> None:
    """One run, from nothing to a folder that open_clip loads, with `training.json` in it."""

    def tell(done: int, count: int) -> None:
        if done % 10_000 == 0:
            print(f"rendered {done} of {count} pictures", flush=True)

    cached_trainset(options.cache, options.seed, options.pictures, workers=os.cpu_count() or 1, progress=tell)
    port = 20_000 + os.getpid() % 20_000
    if options.processes == 1:
        work(0, options, port)
    else:
        spawn(work, (options, port), nprocs=options.processes)  # type: ignore[no-untyped-call]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m clipdeploy.demo.train", description=__doc__)
    parser.add_argument("--variant", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--cache", type=Path, help="where rendered pictures are kept (default OUT.cache)")
    parser.add_argument("--minutes", type=float, default=30.0, help="budget for learning, rendering not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--processes", type=int, default=1, help="that learn together, each with its own batches")
    parser.add_argument("--pictures", type=int, default=100_000, help="how many to render")
    parser.add_argument("--teacher", type=Path, help="a trained demo model, to take over its text tower and imitate")
    parser.add_argument("--start", type=Path, help="a demo model of the same variant to go on from")
    parser.add_argument("--rate", type=float, help="highest learning rate (default: the recipe's)")
    parser.add_argument("--easy", type=float, default=0.5, help="share of the time with one object a picture")
    parser.add_argument("--check-minutes", type=float, default=2.0, help="between checks and checkpoints")
    chosen = vars(parser.parse_args(argv))
    if chosen["device"] == "auto":
        chosen["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    chosen["cache"] = chosen["cache"] or chosen["out"].with_name(chosen["out"].name + ".cache")
    train(Options(**chosen))


if __name__ == "__main__":
    main()
