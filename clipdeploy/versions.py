"""Which libraries are installed, for whoever notes what made a result."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def installed(libraries: Sequence[str]) -> dict[str, str]:
    """Versions of those of `libraries` that are installed, by the names given."""
    versions = {}
    for library in libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions
