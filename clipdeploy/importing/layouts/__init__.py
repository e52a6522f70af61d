"""The layouts in which others keep a CLIP's graphs: one file each, told apart by which files there are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.layouts import huggingface, immich, plain
from clipdeploy.importing.records import ImportRequest, LayoutName, Stated


class Layout(Protocol):
    """What each file of this room offers."""

    def fits(self, folder: Path) -> bool:
        """Whether a folder has this layout's files."""

    def read(self, request: ImportRequest) -> Stated:
        """What the folder states; raises CheckpointError."""


_LAYOUTS: dict[LayoutName, Layout] = {"huggingface": huggingface, "immich": immich, "plain": plain}


def read_layout(request: ImportRequest) -> Stated:
    """What the folder is and what it states.

    Raises:
        CheckpointError: it is no layout that is known, or several at once.
    """
    folder = request.folder
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {state}; expected a folder with ONNX graphs", fix="name the folder")
    if request.image_graph is not None or request.text_graph is not None:
        return plain.read(request)
    if request.layout is not None:
        fitting = [request.layout] if _LAYOUTS[request.layout].fits(folder) else []
    else:
        fitting = [name for name, layout in _LAYOUTS.items() if layout.fits(folder)]
    if len(fitting) > 1:
        raise CheckpointError(
            f"{folder} fits several layouts: {', '.join(fitting)}",
            fix=f"choose one: {' or '.join(f'--layout {name}' for name in fitting)}",
        )
    if not fitting:
        graphs = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.onnx"))[:8]
        wanted = f"layout {request.layout}" if request.layout else "no layout that is known"
        raise CheckpointError(
            f"{folder} is {'not of ' if request.layout else ''}{wanted}; its graphs: {', '.join(graphs) or 'none'}",
            fix="name the two graphs: --image-graph FILE --text-graph FILE",
        )
    return _LAYOUTS[fitting[0]].read(request)
