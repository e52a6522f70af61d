"""Files in a tar, found once and read by their place: nothing is unpacked, no name of a member is used as a path."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipdeploy.errors import ImageError, InputError

_PACKED = {
    b"\x1f\x8b": "gunzip --keep",
    b"BZh": "bunzip2 --keep",
    b"\xfd7zXZ\x00": "unxz --keep",
    b"\x28\xb5\x2f\xfd": "unzstd --keep",
}
"""First bytes of compressed files, and what undoes it."""

PACKED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

_META = re.compile(r"__[^/]*__($|/)")  # webdataset keeps facts about a shard under such names
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # as webdataset cuts: at the first dot of the last part
_LARGEST_BYTES = 512 << 20


@dataclass(frozen=True)
class InTar:
    """A file in a tar; called, it gives its bytes. Any number of threads may.

    Attributes:
        shard: the tar.
        member: its name there.
        offset, size: its place, bytes.
    """

    shard: Path
    member: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        """Its content.

        Raises:
            ImageError: it is too large for a picture, or the tar has changed.
        """
        if self.size > _LARGEST_BYTES:
            raise ImageError(f"{self.member} in {self.shard.name} is too large: {self.size / 1e6:.0f} MB")
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise ImageError(f"{self.shard} cannot be read: {error.strerror}") from error
        if len(data) < self.size:
            raise ImageError(f"{self.shard} ends within {self.member}; was it changed?", fix="copy it again")
        return data


def members(shard: Path) -> Iterator[InTar]:
    """The plain files of a tar in their order; links, folders and what webdataset keeps for itself are left out.

    Raises:
        InputError: it cannot be read, is compressed, broken or cut off.
    """
    check_plain(shard)
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isreg() or _META.match(member.name):
                    continue
                if member.issparse():
                    raise InputError(f"{member.name} in {shard} is a sparse file", fix="write the tar without --sparse")
                yield InTar(shard, member.name, member.offset_data, member.size)
                tar.members = []  # type: ignore[attr-defined]  # or the headers of all members stay in memory
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{shard} is no tar, or is broken or cut off: {error}", fix="copy or write it again"
        ) from error


def check_plain(shard: Path) -> None:
    """Raise InputError for a compressed tar, by its first bytes, and for one that cannot be read."""
    try:
        with shard.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise InputError(
            f"{shard} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error
    for magic, command in _PACKED.items():
        if head.startswith(magic):
            raise InputError(
                f"{shard} is compressed, and a compressed tar cannot be read by place",
                fix=f"unpack it to a plain .tar first: {command} {shard}",
            )


def split_key(name: str) -> tuple[str, str]:
    """A member's name as the sample it is of and its ending, in small letters; empty ones for none."""
    found = _KEY.fullmatch(name)
    return (found[1], found[2].lower()) if found else ("", "")
