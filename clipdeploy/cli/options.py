"""Arguments and options that several verbs have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from clipdeploy.spec import Precision

F = TypeVar("F", bound=Callable[..., Any])

STATED = ("pretrained", "random_weights", "seed", "preprocessing")
"""The options of `checkpoint`."""

PATH: click.Path = click.Path(path_type=Path)


def bundle(function: F) -> F:
    """The bundle to work with."""
    return click.argument("bundle", type=PATH)(function)


def engine(function: F) -> F:
    """Which graphs, and which engine runs them."""
    function = click.option(
        "--backend", default="auto", show_default=True, metavar="NAME", help="Inference engine. auto says its choice."
    )(function)
    return click.option(
        "--precision",
        type=click.Choice([precision.value for precision in Precision]),
        default=Precision.FP32.value,
        show_default=True,
        help="Which graphs of the bundle to run.",
    )(function)


def checkpoint(function: F) -> F:
    """What to take for that which a checkpoint does not state: one dict `stated`, for `CheckpointRequest`."""
    choices = (
        click.option(
            "--pretrained", metavar="TAG|FILE", help="Weights: a tag of open_clip, or a .pt or .safetensors file."
        ),
        click.option(
            "--random-weights", is_flag=True, help="Take seeded random weights: for benchmarks, never for answers."
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of the random weights."),
        click.option(
            "--preprocessing",
            metavar="FAMILY",
            help="How pictures were prepared, for weights that do not state it: openai, siglip, clipa, mobileclip or "
            "pe.",
        ),
    )

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        stated = {name: kwargs.pop(name) for name in STATED}
        return function(*args, stated=stated, **kwargs)

    for choice in reversed(choices):
        gathered = choice(gathered)
    return cast(F, gathered)


def recursive(function: F) -> F:
    """Whether folders are searched to the bottom."""
    return click.option("-r", "--recursive", is_flag=True, help="Take the folders inside a folder too.")(function)
