"""`clipdeploy embed`: pictures or texts to a file of vectors."""

from __future__ import annotations

from pathlib import Path

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.embeddings import EmbedResult
from clipdeploy.spec import Target, to_dict
from clipdeploy.text import one_line, plural, size

EXAMPLES = (
    "clipdeploy embed b32 photos/ -o photos.npz",
    "clipdeploy embed b32 'photos/**/*.jpg' -o photos.parquet",
    "clipdeploy embed b32 --texts captions.txt -o captions.npz",
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.argument("pictures", nargs=-1)
@click.option("--texts", type=options.PATH, metavar="FILE", help="Embed the lines of this UTF-8 file instead.")
@click.option("-o", "--output", type=options.PATH, required=True, help="An .npz or .parquet file.")
@options.recursive
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Inputs per run.")
@options.engine
@click.option("--overwrite", is_flag=True, help="Replace an output that is already there.")
def embed(
    console: Console,
    bundle: Path,
    pictures: tuple[str, ...],
    texts: Path | None,
    output: Path,
    recursive: bool,
    batch_size: int,
    precision: str,
    target: Target | None,
    backend: str,
    overwrite: bool,
) -> ExitCode:
    """Turn pictures or texts into vectors.

    PICTURES are files, folders, or quoted patterns such as 'photos/*.jpg'. Each vector is
    float32 with length 1.

    An .npz holds embeddings (N, D), names (N) and embedding_space. A .parquet has the columns name
    and embedding, and needs the extra parquet. Vectors compare only within one embedding space.

    An interrupted job goes on where it was: run the same command again. A picture that cannot be
    read is skipped and named, and the exit code is 3.
    """
    from clipdeploy import embeddings
    from clipdeploy.pictures import find_pictures, read_lines

    if bool(pictures) == (texts is not None):
        one = "Give PICTURES, or --texts FILE." if texts is None else "Give PICTURES or --texts FILE, not both."
        raise click.UsageError(one)
    request = embeddings.EmbedRequest(
        bundle=bundle,
        output=output,
        pictures=find_pictures(pictures, recursive=recursive) if pictures else (),
        texts=read_lines(texts, what="texts") if texts is not None else (),
        precision=precision,
        target=target,
        backend=backend,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    console.resume_hint = "run the same command again to go on from here"
    result = embeddings.embed(request, progress=console.progress)
    console.note(f"{result.backend}, {result.precision}: {result.backend_reason}")
    _tell(console, result, "picture" if pictures else "text")
    return ExitCode.PARTIAL if result.skipped else ExitCode.OK


def _tell(console: Console, result: EmbedResult, noun: str) -> None:
    for item in result.skipped:
        console.warn(f"skipped: {one_line(item.reason)}")
    if result.skipped:
        console.warn(f"skipped {len(result.skipped)} of {plural(result.count + len(result.skipped), noun)}")
    if result.cut:
        console.warn(f"{plural(result.cut, 'text')} longer than the model takes: the end was cut off")
    if result.up_to_date:
        console.note("the output was there already, from the same inputs")
    if result.resumed:
        console.note(f"{plural(result.resumed, noun)} came from an interrupted run")
    length = size(result.output.stat().st_size)
    text = (
        f"{one_line(str(result.output))}: {plural(result.count, noun)}, {result.embed_dim} values each, {length}\n"
        f"embedding space {result.embedding_space}, {result.precision}, {result.backend}, {result.seconds:.1f} s"
    )
    console.result(to_dict(result), text)
