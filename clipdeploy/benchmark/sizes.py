"""What of a bundle a candidate loads."""

from __future__ import annotations

from clipdeploy.runtime.chosen import Chosen
from clipdeploy.spec import Tower

_TOKENIZER = "tokenizer.json"


def loaded_files(chosen: Chosen) -> dict[str, int]:
    """Path in the bundle -> bytes: of each encoder its engine, or its graph with the weights beside it; and the
    tokenizer."""
    held = chosen.bundle.manifest.files
    names = [_TOKENIZER] if Tower.TEXT in chosen.graphs else []
    for tower, graph in chosen.graphs.items():
        if chosen.engines is not None:
            entry = chosen.engines.chosen.get(tower)
            names += [] if entry is None else [entry.path.relative_to(chosen.bundle.folder).as_posix()]
        else:
            names += [graph.name, f"{graph.name}.data"]
    return {name: held[name].size_bytes for name in sorted(names) if name in held}
