"""The `clipdeploy` command: its help, its global options and the list of verbs."""

from __future__ import annotations

import click

from clipdeploy import __version__
from clipdeploy.cli.lazy import LazyGroup

SECTIONS = {
    "Start here": {
        "demo": "Walk the whole way offline, with a small CLIP that is included.",
        "doctor": "Look at this machine and say what to install.",
    },
    "From checkpoint to bundle": {
        "export": "Make a bundle from a checkpoint.",
        "import": "Make a bundle from ONNX graphs that others exported.",
        "quantize": "Add graphs in FP16, BF16, INT8 or FP8, inside an accuracy budget.",
        "frames": "Let a bundle take a camera's frames as they come.",
        "check": "Say what a TensorRT takes of a bundle, without a GPU.",
        "build-engine": "Add TensorRT engines to a bundle, for TensorRT or TensorRT for RTX.",
        "bank": "Embed labels once and keep them in the bundle.",
        "bake": "Fold labels, and a camera's frames, into the image graph.",
        "pack": "Copy what a device needs of a bundle into a new one.",
        "verify": "Prove that a bundle answers as its checkpoint does.",
        "inspect": "Show what is in a bundle, a TensorRT engine, an ONNX graph or a checkpoint.",
    },
    "Use a bundle": {
        "classify": "Say what is in pictures.",
        "embed": "Turn pictures or texts into vectors.",
        "watch": "Watch cameras and videos, and say what comes and goes.",
        "thresholds": "Measure how well each label must fit to be in view.",
    },
    "Measure a bundle": {
        "bench": "Measure how fast a bundle is here, and what it costs.",
        "evaluate": "Measure how good a bundle's answers are.",
    },
}

EXAMPLES = (
    "clipdeploy export ViT-B-32 --pretrained laion2b_s34b_b79k -o b32",
    "clipdeploy quantize b32 --precision int8 --calibration-data photos/",
    "clipdeploy build-engine b32 --precision int8 --tower image",
    "clipdeploy verify b32",
    'clipdeploy classify b32 photos/ --labels "a dog,a cat,a car"',
    "clipdeploy embed b32 photos/ -o photos.npz",
    'clipdeploy watch b32 /dev/video0 --labels "a person,an empty room" --web',
)

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=LazyGroup,
    package="clipdeploy.cli",
    sections=SECTIONS,
    examples=EXAMPLES,
    context_settings=CONTEXT,
    subcommand_metavar="VERB [ARGS]...",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="clipdeploy", message="%(prog)s %(version)s")
def root(debug: bool) -> None:
    """Take a CLIP checkpoint to the edge.

    The way is: checkpoint -> export -> verify -> quantize -> build-engine -> use.

    What travels is a bundle: a folder with two ONNX graphs, the tokenizer, golden samples and a
    manifest. Only export needs PyTorch. A device needs the bundle and this package.

    Each verb explains itself: clipdeploy VERB --help. Each takes --json, which prints one document
    on stdout. NO_COLOR is honoured.
    """
