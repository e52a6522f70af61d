"""Which libraries are installed, for whoever notes what made a result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_INFO = ".dist-info"


def installed(libraries: Sequence[str]) -> dict[str, str]:
    """Versions of those of `libraries` that are installed, by the names given."""
    from importlib.metadata import PackageNotFoundError, version  # brings Python's email along: 20 ms

    versions = {}
    for library in libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def installed_quickly(libraries: Sequence[str]) -> dict[str, str]:
    """The same from the names of the folders that installers leave, such as `onnxruntime-1.31.1.dist-info`; from what
    these folders hold only where no name tells."""
    wanted = {_folder_name(library): library for library in libraries}
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            with os.scandir(place or os.curdir) as entries:
                folders = [entry.name for entry in entries if entry.name.endswith(_INFO)]
        except OSError:  # no folder, such as a zip file
            continue
        for folder in folders:
            name, _, version = folder.removesuffix(_INFO).partition("-")
            if version and _folder_name(name) in wanted:
                found.setdefault(wanted[_folder_name(name)], version)
    return {library: found[library] for library in libraries if library in found} or installed(libraries)


def _folder_name(library: str) -> str:
    return library.lower().replace("-", "_").replace(".", "_")
