"""Many pictures or texts to one file of vectors: in parts, so that an interrupted job goes on where it was.

The parts lie beside the output in `.NAME.parts/KEY/`. The key names the embedding space, the graph, the engine and
the list of inputs with their sizes and times, so that parts of another job are never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipdeploy.embeddings.files import (
    Part,
    Parts,
    Vectors,
    check_output,
    read_key,
    read_summary,
    write_vectors,
)
from clipdeploy.errors import ImageError, InputError, OutputError
from clipdeploy.pictures import Skipped, none_could_be_read
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.batches import usual_batch
from clipdeploy.runtime.lengths import WINDOW
from clipdeploy.runtime.many import embed_many
from clipdeploy.spec import Target, Tower

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip


@dataclass(frozen=True)
class EmbedRequest:
    """What to embed and where to.

    Attributes:
        bundle: the bundle's folder.
        output: an `.npz` or `.parquet` file.
        pictures: picture files; or
        texts: texts. Exactly one of the two.
        precision: which graph.
        target: whose, of 8-bit graphs; None takes those made for the engine.
        backend: which engine.
        batch_size: inputs per run of the graph.
        part_size: inputs per part; an interruption loses no more than one part.
        overwrite: replace an output that is already there.
    """

    bundle: Path
    output: Path
    pictures: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    precision: str = "fp32"
    backend: str = "auto"
    target: Target | None = None
    batch_size: int = 32
    part_size: int = 256
    overwrite: bool = False


@dataclass(frozen=True)
class EmbedResult:
    """What an embed job wrote.

    Attributes:
        count: vectors in the output.
        embed_dim: D.
        backend: the engine that ran, and
        backend_reason: why that one.
        skipped: pictures that could not be read.
        cut: texts that were longer than the model takes and lost their end.
        resumed: inputs whose vectors came from an interrupted job.
        up_to_date: the output was there already, from the same inputs; nothing was computed.
    """

    output: Path
    count: int
    embed_dim: int
    embedding_space: str
    precision: str
    backend: str
    backend_reason: str
    skipped: tuple[Skipped, ...]
    cut: int
    resumed: int
    up_to_date: bool
    seconds: float


def embed(request: EmbedRequest, *, progress: Progress = silent) -> EmbedResult:
    """Embed all pictures or texts of the request into one file.

    Run again after an interruption, it goes on with the next part; run again after the end, it does nothing.
    The file is written beside its place and renamed.

    Raises:
        InputError: neither or both of pictures and texts, or a size below 1.
        ImageError: not one of the pictures could be read.
        MissingExtraError: the output is `.parquet` and pyarrow is not installed.
        OutputError: the output is of another kind, cannot be written, or is there already from other inputs.
        BundleError, BackendError: the bundle or the engine cannot be used.
    """
    from clipdeploy.runtime.clip import load
    from clipdeploy.runtime.hashed import open_bundle

    started = time.perf_counter()
    _check(request)
    bundle = open_bundle(request.bundle)
    progress("loading the bundle", 0, 0)
    with load(
        bundle,
        precision=request.precision,
        backend=request.backend,
        target=request.target,
        usual_batch=usual_batch(len(request.pictures or request.texts), request.batch_size),
        check_hashes=False,
    ) as clip:
        key = _key(request, clip)
        if _is_done(request, key):
            return _result(request, clip, started, resumed=0, up_to_date=True)
        parts = Parts(request.output, key)
        resumed = _fill(parts, request, clip, progress)
        progress(f"writing {request.output.name}", 0, 0)
        vectors = _merge(parts, request, clip, key)
        write_vectors(request.output, vectors)
        parts.remove()
        return _result(request, clip, started, resumed=resumed, up_to_date=False)


def _check(request: EmbedRequest) -> None:
    if bool(request.pictures) == bool(request.texts):
        given = "both" if request.pictures else "neither"
        raise InputError(f"expected pictures or texts to embed, got {given}", fix="give one of the two")
    if request.batch_size < 1 or request.part_size < 1:
        raise InputError(
            f"batch_size and part_size must be at least 1, got {request.batch_size} and {request.part_size}",
            fix="leave them at 32 and 256",
        )
    check_output(request.output)


def _tower(request: EmbedRequest) -> Tower:
    return Tower.IMAGE if request.pictures else Tower.TEXT


def _precision(request: EmbedRequest, clip: Clip) -> str:
    """What the encoder runs in, which may be fp32 where it has no other."""
    return clip.graph(_tower(request)).precision.value


def _key(request: EmbedRequest, clip: Clip) -> str:
    """16 hex digits over everything that shapes the output."""
    tower = _tower(request)
    graph = clip.bundle.manifest.files[clip.graph(tower).name].sha256
    digest = hashlib.sha256()
    for fact in (clip.embedding_space, graph, clip.backend.name, tower.value, str(request.part_size)):
        digest.update(f"{fact}\n".encode())
    for text in request.texts:
        digest.update(json.dumps(text).encode() + b"\n")
    for path in request.pictures:
        try:
            stat = path.stat()
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}", fix="check the list of pictures") from error
        digest.update(json.dumps([str(path), stat.st_size, stat.st_mtime_ns]).encode() + b"\n")
    return digest.hexdigest()[:16]


def _is_done(request: EmbedRequest, key: str) -> bool:
    """Whether the output holds this very job already; raises OutputError when it holds something else."""
    if request.overwrite or not os.path.lexists(request.output):
        return False
    if read_key(request.output) == key:
        return True
    raise OutputError(
        f"{request.output} exists already, made from other inputs or by another model",
        fix="choose another file with -o, or pass --overwrite",
    )


def _fill(parts: Parts, request: EmbedRequest, clip: Clip, progress: Progress) -> int:
    """Make the parts that are not there yet; returns how many inputs the others hold."""
    inputs: Sequence[Path | str] = request.pictures or request.texts
    what = "embedding pictures" if request.pictures else "embedding texts"
    spans = [range(i, min(i + request.part_size, len(inputs))) for i in range(0, len(inputs), request.part_size)]
    missing = {index: span for index, span in enumerate(spans) if not parts.has(index)}

    def report(done: int) -> None:
        progress(what, done, len(inputs))

    make = _picture_parts if request.pictures else _text_parts
    with closing(make(clip, request, list(missing.values()), report)) as made:
        for index, part in zip(missing, made, strict=True):
            parts.write(index, part)
    return len(inputs) - sum(map(len, missing.values()))


def _picture_parts(
    clip: Clip, request: EmbedRequest, spans: Sequence[range], report: Callable[[int], None]
) -> Generator[Part, None, None]:
    """The vectors of each span of the pictures; those of the next span are read while the encoder is at this one."""
    size = min(request.batch_size, request.part_size)
    wanted = [request.pictures[row] for span in spans for row in span]
    encode = partial(clip.encode_pixels, batch_size=size)
    with closing(embed_many(encode, clip.images, wanted, batch_size=size, errors="report")) as results:
        for span in spans:
            report(span.start)
            embeds, rows, skipped = [], list[int](), list[tuple[int, str]]()
            for row, result in zip(span, results, strict=False):  # the longer one goes on with the next span
                if result.embedding is not None:
                    rows.append(row)
                    embeds.append(result.embedding)
                elif result.error is not None:
                    skipped.append((row, result.error.message))
                report(row + 1)
            vectors = np.stack(embeds) if embeds else np.empty((0, clip.spec.embed_dim), np.float32)
            yield Part(tuple(rows), vectors, tuple(skipped), cut=0)


def _text_parts(
    clip: Clip, request: EmbedRequest, spans: Sequence[range], report: Callable[[int], None]
) -> Generator[Part, None, None]:
    """The vectors of each span of the texts."""
    for span in spans:
        report(span.start)
        texts, embeds = request.texts[span.start : span.stop], []
        size = request.batch_size * WINDOW  # texts of like length are run together
        for first in range(0, len(texts), size):
            batch = texts[first : first + size]
            embeds.append(clip.encode_text(batch, batch_size=request.batch_size))
            report(span.start + first + len(batch))
        cut = sum(clip.tokenizer.count(text) > clip.spec.tokens.context_length for text in texts)
        yield Part(tuple(span), np.concatenate(embeds), (), cut)


def _merge(parts: Parts, request: EmbedRequest, clip: Clip, key: str) -> Vectors:
    """All parts as one; raises ImageError when they hold no vector at all."""
    inputs: Sequence[Path | str] = request.pictures or request.texts
    loaded = [parts.read(index) for index in range(-(-len(inputs) // request.part_size))]
    rows = [row for part in loaded for row in part.rows]
    if not rows:
        parts.remove()
        raise none_could_be_read([item for part in loaded for item in part.skipped])
    return Vectors(
        names=tuple(str(inputs[row]) for row in rows),
        embeddings=np.concatenate([part.embeddings for part in loaded]),
        kind="pictures" if request.pictures else "texts",
        model=clip.spec.name,
        embedding_space=clip.embedding_space,
        precision=_precision(request, clip),
        backend=clip.backend.name,
        skipped=tuple(Skipped(str(inputs[row]), reason) for part in loaded for row, reason in part.skipped),
        cut=sum(part.cut for part in loaded),
        key=key,
    )


def _result(request: EmbedRequest, clip: Clip, started: float, *, resumed: int, up_to_date: bool) -> EmbedResult:
    summary = read_summary(request.output)
    return EmbedResult(
        output=request.output,
        count=summary.count,
        embed_dim=clip.spec.embed_dim,
        embedding_space=clip.embedding_space,
        precision=_precision(request, clip),
        backend=clip.backend.name,
        backend_reason=clip.backend.reason,
        skipped=summary.skipped,
        cut=summary.cut,
        resumed=resumed,
        up_to_date=up_to_date,
        seconds=time.perf_counter() - started,
    )
