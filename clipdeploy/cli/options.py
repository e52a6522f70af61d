"""Arguments and options that several verbs have."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from clipdeploy.request import Library
from clipdeploy.spec import Precision, Target

F = TypeVar("F", bound=Callable[..., Any])

STATED = (
    *("pretrained", "random_weights", "seed", "preprocessing", "image_size"),
    *("library", "entry", "text_model", "tokenizer", "logit_scale"),
)
"""The options of `checkpoint`."""

PATH: click.Path = click.Path(path_type=Path)


def _image_size(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`N` or `HxW` as (height, width) in px."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[xX]([1-9]\d{0,4}))?", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is neither N, for N by N px, nor HEIGHTxWIDTH, such as 336 or 256x128.")
    height = int(found.group(1))
    return height, int(found.group(2) or height)


def bundle(function: F) -> F:
    """The bundle to work with."""
    return click.argument("bundle", type=PATH)(function)


def engine(function: F) -> F:
    """Which graphs, and which engine runs them."""
    function = click.option(
        "--backend",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="What computes: onnxruntime, onnxruntime:cuda, onnxruntime:tensorrt, onnxruntime:tensorrt-rtx; openvino, "
        "openvino:gpu; tensorrt, tensorrt-rtx, which run what build-engine built. auto: the fastest that answers the "
        "golden samples rightly, measured once.",
    )(function)
    function = click.option(
        "--target",
        type=click.Choice(get_args(Target)),
        help="Whose graphs to run, of int8 and fp8. tensorrt: compute TensorRT's as written, to check them.  "
        "[default: the engine's own]",
    )(function)
    return click.option(
        "--precision",
        type=click.Choice([*(precision.value for precision in Precision), "auto"]),
        default=Precision.FP32.value,
        show_default=True,
        help="Which graphs of the bundle to run; an encoder that lacks them runs in fp32. auto: the fastest that "
        "answers the golden samples rightly.",
    )(function)


def checkpoint(function: F) -> F:
    """What to take for that which a checkpoint does not state: one dict `stated`, for `CheckpointRequest`."""
    choices = (
        click.option(
            "--pretrained",
            metavar="TAG|FILE",
            help="Weights of an architecture: a tag of open_clip, or a .safetensors, .pt, .pth, .bin or .ckpt file.",
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
        click.option(
            "--image-size",
            callback=_image_size,
            metavar="N|HxW",
            help="Export at another image size than the checkpoint's, in px; position embeddings are interpolated.",
        ),
        click.option(
            "--library",
            type=click.Choice(get_args(Library)),
            help="Whose layout to read, where a folder or repository holds both.",
        ),
        click.option(
            "--entry",
            metavar="NAME",
            help="Which set of weights to take of a training checkpoint that holds several, such as state_dict_ema.",
        ),
        click.option(
            "--text-model",
            metavar="FOLDER|REPO",
            help="The text encoder, where a transformers checkpoint keeps it apart from the image encoder.",
        ),
        click.option(
            "--tokenizer",
            metavar="FOLDER|FILE",
            help="Folder of a tokenizer, or its tokenizer.json, for a checkpoint that brings none.",
        ),
        click.option(
            "--logit-scale",
            type=click.FloatRange(min=0, min_open=True),
            metavar="NUMBER",
            help="What similarities are multiplied with, for a checkpoint that does not state it; CLIP's is 100.",
        ),
    )

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        stated = {name: kwargs.pop(name) for name in STATED}
        return function(*args, stated=stated, **kwargs)

    for choice in reversed(choices):
        gathered = choice(gathered)
    return cast(F, gathered)


def frames(*, required: bool = False) -> Callable[[F], F]:
    """Which frames the bundle takes as they come: one tuple `frames`."""
    return click.option(
        "--frame",
        "frames",
        multiple=True,
        required=required,
        metavar="WxH[:COLOR]",
        help="Frames that a camera gives, such as 1920x1080:bgr; COLOR is rgb, bgr or nv12. Repeatable.",
    )


def recursive(function: F) -> F:
    """Whether folders are searched to the bottom."""
    return click.option("-r", "--recursive", is_flag=True, help="Take the folders inside a folder too.")(function)


def several(text: str | None, *, what: str) -> tuple[str, ...]:
    """`A,B,...`, or the lines of `FILE.txt`."""
    from clipdeploy.pictures import read_lines

    given = (text or "").strip()
    if given.endswith(".txt") and "," not in given:
        return tuple(read_lines(Path(given), what=what))
    return tuple(part.strip() for part in given.split(",")) if given else ()


def labels(function: F) -> F:
    """What to tell apart, in three ways: one tuple `labels`, None where none was given; and its `template`."""

    @functools.wraps(function)
    def gathered(*args: Any, labels: str | None, label: tuple[str, ...], labels_file: Path | None, **rest: Any) -> Any:
        from clipdeploy.pictures import read_lines

        if labels is None and not label and labels_file is None:
            return function(*args, labels=None, **rest)
        listed = several(labels, what="labels")
        from_file = read_lines(labels_file, what="labels") if labels_file else ()
        return function(*args, labels=(*listed, *label, *from_file), **rest)

    choices = (
        click.option("--labels", metavar="A,B,...", help="Labels, separated by commas; or FILE.txt, one a line."),
        click.option("--label", multiple=True, metavar="TEXT", help="One label, commas and all. Repeatable."),
        click.option("--labels-file", type=PATH, metavar="FILE", help="UTF-8 file of labels, one a line."),
        click.option(
            "--template",
            multiple=True,
            metavar="TEXT",
            help="Sentence with {} for the label; or openai: its 80 sentences. Repeatable: the mean is taken.  "
            "[default: a photo of a {}.]",
        ),
    )
    for choice in reversed(choices):
        gathered = choice(gathered)
    return cast(F, gathered)


NO_LABELS = 'Give labels: --labels "a dog,a cat", --label TEXT or --labels-file FILE'
