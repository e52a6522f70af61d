"""`clipdeploy verify`: the parity ladder of an existing bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Target

EXAMPLES = (
    "clipdeploy verify b32",
    "clipdeploy verify b32 --html parity.html",
    "clipdeploy verify b32 --checkpoint ViT-B-32 --pretrained laion2b_s34b_b79k --images photos/",
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option("--checkpoint", metavar="MODEL", help="Compare with this checkpoint. Needs the extra export.")
@options.checkpoint
@click.option("--images", multiple=True, metavar="PICTURES", help="Compare on these pictures, with --checkpoint.")
@click.option("--html", type=options.PATH, metavar="FILE", help="Write the report as a page with the pictures.")
@options.engine
def verify(
    console: Console,
    bundle: Path,
    checkpoint: str | None,
    stated: dict[str, Any],
    images: tuple[str, ...],
    html: Path | None,
    precision: str,
    target: Target | None,
    backend: str,
) -> ExitCode:
    """Prove that a bundle answers as its checkpoint does.

    Without --checkpoint the bundle's golden samples are the reference, and PyTorch is not needed:
    run it on the device.

    Pixels, tokens, image tower, text tower, similarity and top-1 are compared in this order. Each
    gets the reference's input, so the first that fails is the one to look at. Exit code 1 when
    one fails.

    A baked bundle is held to what the bundle answered that it was baked from: pixels, logits (or
    embeddings) and top-1.
    """
    from clipdeploy.pictures import find_pictures
    from clipdeploy.pipeline import VerifyRequest, verify_bundle
    from clipdeploy.verify.report import text_table, to_json

    if checkpoint is None and (any(stated.values()) or images):
        raise click.UsageError("the options that say what a checkpoint is, and --images, go with --checkpoint MODEL.")
    request = VerifyRequest(
        bundle=bundle,
        checkpoint=None if checkpoint is None else CheckpointRequest(checkpoint, **stated),
        precision=precision,
        target=target,
        backend=backend,
        images=find_pictures(images) if images else (),
        html=html,
    )
    report = verify_bundle(request, progress=console.progress)
    console.result(json.loads(to_json(report)), text_table(report).rstrip())
    if html is not None:
        console.note(f"report: {html}")
    return ExitCode.OK if report.passed else ExitCode.FAILED
