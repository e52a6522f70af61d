"""The options that say what a checkpoint does not state, as they reach the library."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from clipdeploy.cli import options
from clipdeploy.request import CheckpointRequest


def request_of(*flags: str) -> CheckpointRequest:
    """What the flags make of a checkpoint called `x`."""
    seen: list[CheckpointRequest] = []

    @click.command()
    @options.checkpoint
    def verb(stated: dict[str, Any]) -> None:
        seen.append(CheckpointRequest("x", **stated))

    result = CliRunner().invoke(verb, flags)
    if result.exit_code:
        raise click.ClickException(result.output)
    return seen[0]


def test_nothing_stated() -> None:
    assert request_of() == CheckpointRequest("x")


def test_every_field_of_the_request_has_a_flag() -> None:
    assert {"model", *options.STATED} == set(CheckpointRequest.__dataclass_fields__)


def test_everything_stated() -> None:
    flags = (
        "--pretrained p --random-weights --seed 3 --preprocessing siglip --image-size 256x128 --library transformers"
    )
    more = "--entry ema --text-model t --tokenizer k --logit-scale 50"
    assert request_of(*flags.split(), *more.split()) == CheckpointRequest(
        "x",
        pretrained="p",
        random_weights=True,
        seed=3,
        preprocessing="siglip",
        image_size=(256, 128),
        library="transformers",
        entry="ema",
        text_model="t",
        tokenizer="k",
        logit_scale=50.0,
    )


@pytest.mark.parametrize(("text", "size"), [("336", (336, 336)), ("256x128", (256, 128)), (" 32X64 ", (32, 64))])
def test_image_size(text: str, size: tuple[int, int]) -> None:
    assert request_of("--image-size", text).image_size == size


@pytest.mark.parametrize("text", ["0", "-3", "12x", "x", "3x4x5", "2.5", "big", "1000000", ""])
def test_image_size_that_is_none(text: str) -> None:
    with pytest.raises(click.ClickException, match="neither N, for N by N px, nor HEIGHTxWIDTH"):
        request_of("--image-size", text)


@pytest.mark.parametrize(
    ("flags", "says"),
    [("--library timm", "'open_clip', 'transformers'"), ("--logit-scale 0", "x>0"), ("--logit-scale high", "float")],
)
def test_values_that_are_refused(flags: str, says: str) -> None:
    with pytest.raises(click.ClickException, match=says):
        request_of(*flags.split())
