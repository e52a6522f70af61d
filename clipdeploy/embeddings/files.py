"""Vectors on disk: `.npz` and `.parquet` outputs, and the parts of a job that is under way.

An `.npz` output opens without pickle: `embeddings` (N, D) float32, `names` (N,), `embedding_space`, and `metadata`,
a JSON text. A `.parquet` output has the columns `name` and `embedding`, and the same JSON in its schema's metadata
under `clipdeploy`.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import replacing
from clipdeploy.errors import InputError, MissingExtraError, OutputError
from clipdeploy.pictures import Skipped

Floats = NDArray[np.float32]

SUFFIXES = (".npz", ".parquet")
_METADATA = "clipdeploy"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Vectors:
    """The content of an output file.

    Attributes:
        names: (N,) the picture's path, or the text.
        embeddings: (N, D) float32, L2-normalised.
        kind: `pictures` or `texts`.
        skipped: inputs without a vector.
        cut: texts that lost their end.
        key: of the job that made it.
    """

    names: tuple[str, ...]
    embeddings: Floats
    kind: str
    model: str
    embedding_space: str
    precision: str
    backend: str
    skipped: tuple[Skipped, ...]
    cut: int
    key: str


@dataclass(frozen=True)
class Summary:
    """What an output file says of itself, without its vectors."""

    count: int
    skipped: tuple[Skipped, ...]
    cut: int
    key: str


@dataclass(frozen=True)
class Part:
    """A run of a job's inputs.

    Attributes:
        rows: (n,) numbers of the inputs that have a vector.
        embeddings: (n, D) float32.
        skipped: number and reason of each of the others.
        cut: texts that lost their end.
    """

    rows: tuple[int, ...]
    embeddings: Floats
    skipped: tuple[tuple[int, str], ...]
    cut: int


def check_output(path: Path) -> None:
    """Raise when no output can be written to `path`, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"unknown kind of output {path.name!r}; expected a name that ends in .npz or .parquet")
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    if path.is_dir():
        raise OutputError(f"{path} is a folder", fix="name a file with -o")
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} does not exist", fix=f"mkdir -p {path.parent}")


def write_vectors(path: Path, vectors: Vectors) -> None:
    """Write an output file, whole or not at all."""
    try:
        with replacing(path) as beside:
            if path.suffix.lower() == ".parquet":
                _write_parquet(beside, vectors)
            else:
                _write_npz(beside, vectors)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}", fix="free space or choose another file with -o") from error


def read_key(path: Path) -> str | None:
    """The key of the job that made an output; None for a file that is no output."""
    try:
        return read_summary(path).key
    except InputError:
        return None


def read_summary(path: Path) -> Summary:
    """What an output says of itself; raises InputError for a file that is none."""
    try:
        data = _parquet_metadata(path) if path.suffix.lower() == ".parquet" else _npz_metadata(path)
        skipped = tuple(Skipped(**item) for item in data["skipped"])
        return Summary(count=int(data["count"]), skipped=skipped, cut=int(data["cut"]), key=str(data["key"]))
    except (*_UNREADABLE, TypeError) as error:
        raise InputError(f"{path} is no file of vectors that clipdeploy wrote: {error}") from error


def _metadata(vectors: Vectors) -> str:
    data = asdict(vectors) | {"count": len(vectors.names)}
    del data["names"], data["embeddings"]
    return json.dumps(data)


def _write_npz(path: Path, vectors: Vectors) -> None:
    with path.open("wb") as stream:
        np.savez(
            stream,
            embeddings=vectors.embeddings,
            names=np.array(vectors.names, dtype=np.str_),
            embedding_space=np.array(vectors.embedding_space),
            skipped=np.array([item.path for item in vectors.skipped], dtype=np.str_),
            metadata=np.array(_metadata(vectors)),
        )


def _npz_metadata(path: Path) -> dict[str, Any]:
    # Given a path, numpy leaves the file open when it is no archive.
    with path.open("rb") as stream, np.load(stream) as data:
        return dict(json.loads(str(data["metadata"])))


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="parquet", needed_for="a .parquet output") from error
    return pyarrow


def _write_parquet(path: Path, vectors: Vectors) -> None:
    arrow = _pyarrow()
    dim = vectors.embeddings.shape[1]
    flat = arrow.array(np.ascontiguousarray(vectors.embeddings).ravel(), type=arrow.float32())
    # A file name may hold bytes that are no UTF-8, which Parquet's strings must be.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in vectors.names]
    columns = [arrow.array(names, type=arrow.string()), arrow.FixedSizeListArray.from_arrays(flat, dim)]
    table = arrow.table(columns, names=["name", "embedding"])
    arrow.parquet.write_table(table.replace_schema_metadata({_METADATA: _metadata(vectors)}), path)


def _parquet_metadata(path: Path) -> dict[str, Any]:
    arrow = _pyarrow()
    metadata = arrow.parquet.read_schema(path).metadata or {}
    return dict(json.loads(metadata[_METADATA.encode()]))


class Parts:
    """The folder of a job's parts, beside its output."""

    def __init__(self, output: Path, key: str) -> None:
        self.root = output.parent / f".{output.name}.parts"
        self.folder = self.root / key

    def has(self, index: int) -> bool:
        """Whether a part is there and can be read."""
        try:
            self.read(index)
        except InputError:
            return False
        return True

    def read(self, index: int) -> Part:
        """A part that was written; raises InputError when it is not there or broken."""
        path = self._path(index)
        try:
            with path.open("rb") as stream, np.load(stream) as data:
                skipped = zip(data["skipped"].tolist(), data["reasons"].tolist(), strict=True)
                return Part(
                    rows=tuple(data["rows"].tolist()),
                    embeddings=data["embeddings"],
                    skipped=tuple(skipped),
                    cut=int(data["cut"]),
                )
        except _UNREADABLE as error:
            raise InputError(f"{path} cannot be read: {error}", fix=f"rm -r {self.root}") from error

    def write(self, index: int, part: Part) -> None:
        """Write a part, whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(index)) as beside, beside.open("wb") as stream:
                np.savez(
                    stream,
                    rows=np.array(part.rows, dtype=np.int64),
                    embeddings=part.embeddings,
                    skipped=np.array([row for row, _ in part.skipped], dtype=np.int64),
                    reasons=np.array([reason for _, reason in part.skipped], dtype=np.str_),
                    cut=np.array(part.cut),
                )
        except OSError as error:
            raise OutputError(
                f"cannot write beside the output: {error}", fix="free space or choose another place"
            ) from error

    def remove(self) -> None:
        """Remove the parts, and with them those that other jobs for this output left behind."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
