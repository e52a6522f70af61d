"""The manifest of a bundle: what `manifest.json` says, as frozen records."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from clipdeploy.errors import BundleCorruptError, BundleNotFoundError, BundleVersionError, InputError
from clipdeploy.spec import BakedSpec, FrameSpec, ModelSpec, Precision, Target, Tower, from_dict, to_dict

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
COPY_AGAIN = "copy the bundle again, whole, from where it was made, or export the checkpoint again"


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle.

    Attributes:
        sha256: of the content, hexadecimal.
        size_bytes: of the content.
        kind: what it is for: `graph`, `weights`, `engine`, `frame` (a graph that makes pixels
            of a camera's frames), `tokenizer`, `bank`, `golden` or `report`.
        origin: which stage wrote it, and from what.
        tower: for graphs, which encoder.
        precision: for graphs, the number format.
        opset: for graphs, the ONNX operator set.
        target: for graphs with 8 bits, what they are made for; None where their maker does not tell.
        frame: for a graph of kind `frame`, what it takes.
    """

    sha256: str
    size_bytes: int
    kind: str
    origin: str
    tower: Tower | None = None
    precision: Precision | None = None
    opset: int | None = None
    target: Target | None = None
    frame: FrameSpec | None = None


@dataclass(frozen=True)
class NewFile:
    """A file to take into a bundle.

    Attributes:
        name: path inside the bundle.
        source: where its content is now.
    """

    name: str
    source: Path
    kind: str
    origin: str
    tower: Tower | None = None
    precision: Precision | None = None
    opset: int | None = None
    target: Target | None = None
    frame: FrameSpec | None = None

    def entry(self) -> FileEntry:
        """What the manifest says of it."""
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("name", "source")}
        return FileEntry(sha256=sha256_file(self.source), size_bytes=self.source.stat().st_size, **told)


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from.

    Attributes:
        source: the name, tag or path the user gave.
        weights_sha256: over names, shapes and values of all weights.
        licence: as the checkpoint states it, None when it does not.
        created: UTC, ISO 8601.
    """

    source: str
    weights_sha256: str
    licence: str | None
    created: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        embedding_space: id over weights, activation, preprocessing and tokenizer; vectors of two bundles
            may be compared only when theirs are equal.
        tools: versions of the libraries that made the bundle.
        baked: what the image graph answers by itself, where labels are folded into it; None in ordinary bundles.
    """

    schema_version: int
    model: ModelSpec
    embedding_space: str
    provenance: Provenance
    tools: dict[str, str]
    files: dict[str, FileEntry] = field(default_factory=dict)
    baked: BakedSpec | None = None


def sha256_file(path: Path) -> str:
    """The sha256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def embedding_space_id(model: ModelSpec, weights_sha256: str, tokenizer_sha256: str) -> str:
    """The id of an embedding space: 16 hex digits over weights, activation, preprocessing and tokenizer."""
    facts = [weights_sha256, model.activation, to_dict(model.pixels), to_dict(model.tokens), tokenizer_sha256]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def dump(manifest: Manifest) -> str:
    return json.dumps(to_dict(manifest), indent=2, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file, not a bundle folder" if folder.exists() else "does not exist"
        raise BundleNotFoundError(f"{folder} {what}", fix="make a bundle: clipdeploy export MODEL -o " + str(folder))
    if not path.is_file():
        raise BundleNotFoundError(
            f"{folder} is not a bundle: it has no {MANIFEST}", fix="name the folder that clipdeploy export wrote"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleCorruptError(f"bundle {folder}: {MANIFEST} cannot be read: {error}", fix=COPY_AGAIN) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleVersionError(
            f"bundle {folder} has schema version {version}; this clipdeploy reads up to {SCHEMA_VERSION}",
            fix="pip install --upgrade clipdeploy",
        )
    try:
        return from_dict(Manifest, data, where=MANIFEST)
    except InputError as error:
        raise BundleCorruptError(f"bundle {folder}: {error.message}", fix=COPY_AGAIN) from error
