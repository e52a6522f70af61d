"""`clipdeploy import`: graphs that others exported to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.findings import findings_text, summary
from clipdeploy.cli.verb import Verb
from clipdeploy.importing.records import ImportOutcome, ImportRequest
from clipdeploy.spec import Precision, to_dict
from clipdeploy.text import one_line, size

EXAMPLES = (
    "clipdeploy import clip-vit-base-patch32/ -o b32",
    "clipdeploy import clip-vit-base-patch32/ --variant fp16 -o b32-fp16",
    "clipdeploy import immich/ViT-B-32__openai/ --logit-scale 100 -o b32",
    "clipdeploy import onnx/ --preprocessing openai --tokenizer tokenizer.json --cleaning lower --pad-id 0 "
    "--logit-scale 100 -o b32",
)


@click.command("import", cls=Verb, examples=EXAMPLES)
@click.argument("folder", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder of the new bundle.")
@click.option(
    "--layout", type=click.Choice(("huggingface", "immich", "plain")), help="Which layout, where several fit."
)
@click.option("--variant", metavar="NAME", help="Which graphs of several precisions: fp16, quantized, ...")
@click.option("--image-graph", type=options.PATH, metavar="FILE", help="The image tower, in a layout of your own.")
@click.option("--text-graph", type=options.PATH, metavar="FILE", help="The text tower, in a layout of your own.")
@click.option("--image-output", metavar="NAME", help="Which output is the image embedding.")
@click.option("--text-output", metavar="NAME", help="Which output is the text embedding.")
@click.option(
    "--preprocessing",
    metavar="FAMILY",
    help="How pictures were prepared, where no file states it: openai, siglip, clipa, mobileclip or pe.",
)
@click.option("--image-size", type=(int, int), metavar="H W", help="Picture size in px, where a graph takes any.")
@click.option("--tokenizer", type=options.PATH, metavar="FILE", help="A tokenizer.json, where the folder has none.")
@click.option("--context-length", type=int, metavar="N", help="Ids a text, where nothing states it.")
@click.option("--pad-id", type=int, metavar="ID", help="Id that fills the rest of a text.")
@click.option(
    "--cleaning",
    type=click.Choice(("none", "whitespace", "lower", "canonicalize")),
    help="Text rules before the tokenizer, as open_clip names them.",
)
@click.option("--logit-scale", type=float, metavar="S", help="Already exponentiated: 100 for most trained CLIPs.")
@click.option("--logit-bias", type=float, metavar="B", help="Of a checkpoint trained with a sigmoid.")
@click.option(
    "--causal-mask/--no-causal-mask", default=None, help="Whether the text tower was trained with a causal mask."
)
@click.option("--golden", multiple=True, metavar="PICTURES", help="Pictures for the golden samples. Repeatable.")
@click.option("--accept-bad", is_flag=True, help="Write the bundle though findings are bad.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def import_(console: Console, folder: Path, output: Path, golden: tuple[str, ...], **stated: Any) -> ExitCode:
    """Make a bundle from ONNX graphs that others exported.

    FOLDER is a Hugging Face or transformers.js folder (vision_model.onnx and text_model.onnx, or
    model.onnx), an Immich folder (visual/model.onnx and textual/model.onnx), or two plain graphs
    (visual.onnx and textual.onnx). Needs the extras import and cpu (or gpu), and no PyTorch.

    What the folder does not state comes from the options. The graphs are run and looked at; what
    is wrong with them is listed, and with a bad finding no bundle is written (exit code 1).

    A bundle answers as the graphs do. Whether they answer as their checkpoint does, the checkpoint
    alone can say: clipdeploy verify BUNDLE --checkpoint MODEL.
    """
    from clipdeploy.importing.job import import_bundle
    from clipdeploy.pictures import find_pictures

    pictures = find_pictures(golden) if golden else ()
    request = ImportRequest(folder=folder, output=output, golden_images=pictures, **stated)
    outcome = import_bundle(request, progress=console.progress)
    console.result(to_dict(outcome), _text(outcome))
    if outcome.bundle is None:
        console.warn("no bundle was written: a finding is bad. --accept-bad writes it all the same")
        return ExitCode.FAILED
    name = one_line(str(outcome.bundle))
    precision = "" if outcome.precision is Precision.FP32 else f" --precision {outcome.precision.value}"
    console.note(
        f"\nNext:\n  clipdeploy verify {name}{precision}\n"
        f'  clipdeploy classify {name}{precision} PICTURES --labels "a dog,a cat"\n'
        f"  clipdeploy verify {name}{precision} --checkpoint MODEL   where you have the checkpoint: until then nobody "
        "has compared these graphs with it"
    )
    return ExitCode.OK


def _text(outcome: ImportOutcome) -> str:
    """The findings, and what was written."""
    lines = [f"{summary(outcome.findings)}, layout {outcome.layout}", findings_text(outcome.findings)]
    if outcome.bundle is not None:
        made = f"{size(outcome.size_bytes)}, {outcome.precision.value}, made in {outcome.seconds:.0f} s"
        lines += ["", f"{one_line(str(outcome.bundle))}: {made}"]
    return "\n".join(lines)
