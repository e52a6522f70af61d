"""`clipdeploy frames`: graphs that take a camera's frames as they come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import to_dict
from clipdeploy.text import one_line, plural, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipdeploy.frames import FrameOutcome, FramesOutcome

EXAMPLES = (
    "clipdeploy frames b32 --frame 1920x1080:bgr",
    "clipdeploy frames b32 --frame 1920x1080:nv12 --frame 640x480",
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@options.frames(required=True)
@click.option("--overwrite", is_flag=True, help="Make those anew that are there already.")
def frames(console: Console, bundle: Path, frames: tuple[str, ...], overwrite: bool) -> None:
    """Let a bundle take a camera's frames as they come.

    For each kind of frames the bundle gets a small graph that resizes, crops and normalises them,
    with the very pixels that Pillow would give. The runtime puts it before the image encoder, whatever
    its precision; build-engine and bake make one graph of the two.

    Colours are rgb, bgr (as OpenCV reads them) and nv12 (as hardware decoders and cameras give them;
    BT.601, luma 16 to 235, converted as OpenCV does).
    """
    from clipdeploy.frames import FramesRequest, add_frames

    outcome = add_frames(FramesRequest(bundle, frames, overwrite=overwrite), progress=console.progress)
    console.result({**to_dict(outcome), "bundle": bundle}, outcome_text(outcome))
    name, first = one_line(str(bundle)), outcome.frames[0].frame
    console.note(
        f"\nNext:\n  clip.encode_frames(frames, color={first.color!r}) after clip = clipdeploy.load({name!r})\n"
        f"  clipdeploy build-engine {name} --frame {first}"
    )


def outcome_text(outcome: FramesOutcome) -> str:
    """What was added, and a line for each kind of frames."""
    made = sum(one.built for one in outcome.frames)
    told = f"{plural(made, 'frame graph')} added, {outcome.seconds:.1f} s" if made else "nothing to do"
    return f"{one_line(str(outcome.bundle))}: {told}\n{frames_table(outcome.frames)}"


def frames_table(frames: Sequence[FrameOutcome]) -> str:
    """A line for each kind of frames; `difference` is to Pillow's pixels, on drawn frames."""
    rows = []
    for one in frames:
        left, top, right, bottom = one.crop
        kept = f"{right - left}x{bottom - top} at {left},{top} of {one.resized[0]}x{one.resized[1]}"
        told = f"1 level on {one.share:.4%} of the values" if one.share else "none"
        rows.append((str(one.frame), one.graph, size(one.size_bytes), kept, told if one.built else "there already"))
    return table(("frames", "graph", "size", "kept", "difference"), rows, right=(2,))
