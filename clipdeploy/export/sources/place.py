"""Where the files of a checkpoint are: a folder of this machine, or a repository of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources.hub import Hub

HUB, FOLDER = "hf-hub:", "local-dir:"
CARD = "README.md"
_PART = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]+))?")


class Place(Protocol):
    """Files that belong together.

    Attributes:
        label: as the user gave it.
        name: folder or repository name, for people.
    """

    @property
    def label(self) -> str: ...

    @property
    def name(self) -> str: ...

    def get(self, filename: str) -> Path | None:
        """The local path of a file, or None when the place has no such file; raises CheckpointError."""

    def sub(self, folder: str) -> Place:
        """The place that a folder inside is."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path
    label: str

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def get(self, filename: str) -> Path | None:
        path = self.path / filename
        return path if path.is_file() else None

    def sub(self, folder: str) -> Folder:
        return Folder(self.path / folder, f"{self.label}/{folder}")


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, all of whose files are taken from one revision.

    Attributes:
        hub: fetches.
        name: `ORG/NAME`.
        label: as the user gave it.
        revision: a branch, tag or commit; None is the newest.
        inside: folder in the repository, "" or ending in a slash.
    """

    hub: Hub
    name: str
    label: str
    revision: str | None = None
    inside: str = ""

    def get(self, filename: str) -> Path | None:
        return self.hub.fetch(self.name, self.inside + filename, revision=self.revision, fix=self.copy())

    def sub(self, folder: str) -> Repository:
        return replace(self, label=f"{self.label}/{folder}", inside=f"{self.inside}{folder}/")

    def pinned(self, path: Path) -> Repository:
        """The same at the commit that `path`, a file it gave, was taken from."""
        depth = 1 + self.inside.count("/")
        return replace(self, revision=path.parents[depth - 1].name)

    def copy(self, *files: str) -> str:
        """What to copy where, for a machine without network."""
        if files:
            what = ", ".join(files)
        else:
            what = (
                "open_clip_config.json and open_clip_model.safetensors (or open_clip_pytorch_model.bin), or for a "
                "transformers checkpoint config.json, model.safetensors, preprocessor_config.json and the tokenizer's "
                "files (tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt)"
            )
        tree = f"/tree/{self.revision or 'main'}" if self.revision or self.inside else ""
        address = f"https://huggingface.co/{self.name}{tree}{('/' + self.inside.rstrip('/')) if self.inside else ''}"
        return f"download from {address} into a folder: {what}; and name it: {FOLDER}FOLDER"


def repository(model: str, hub: Hub) -> Repository:
    """The repository that `hf-hub:ORG/NAME`, `ORG/NAME` or either with `@REVISION` names; CheckpointError else."""
    found = _REPOSITORY.fullmatch(model.removeprefix(HUB))
    if found is None:
        raise CheckpointError(
            f"{model!r} names no repository", fix="write hf-hub:ORGANISATION/NAME, or hf-hub:ORGANISATION/NAME@REVISION"
        )
    return Repository(hub, found.group(1), model, found.group(2))


def names_repository(model: str) -> bool:
    """Whether `model` has the form ORG/NAME or ORG/NAME@REVISION."""
    return _REPOSITORY.fullmatch(model) is not None


def folder(model: str) -> Folder:
    """The folder that `local-dir:PATH` or a path names; raises CheckpointError where there is none."""
    path = Path(model.removeprefix(FOLDER)).expanduser()
    if not path.is_dir():
        raise CheckpointError(f"folder {path} does not exist", fix="check the path behind local-dir:")
    return Folder(path, model if model.startswith(FOLDER) else FOLDER + model)


def licence(place: Place) -> str | None:
    """The licence that the model card states in its header, None when there is no card or it states none."""
    try:
        card = place.get(CARD)
        text = card.read_text(encoding="utf-8", errors="replace") if card else ""
    except (CheckpointError, OSError):
        return None  # a card that cannot be had states no licence
    header = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    lines = header.group(1) if header else ""
    stated = dict(re.findall(r"^(license\w*):[ \t]*['\"]?([^'\"\n]+?)['\"]?[ \t]*$", lines, re.MULTILINE))
    found = stated.get("license")
    return stated.get("license_name", found) if found == "other" else found
