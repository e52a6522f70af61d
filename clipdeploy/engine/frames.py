"""Frame graph and image encoder as one graph, which an engine is built from: raw camera frames in, embeddings out.

The frame graph computes in float32 whatever the encoder is typed in, and TF32 is off in every build (`config.py`): its
products are rounded to 8 bits as Pillow rounds them, and ten bits of mantissa would not do.
"""

from __future__ import annotations

from pathlib import Path

from clipdeploy.errors import EngineError
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.join import join_models

PREFIX = "frame_"
"""Of the names of the frame graph's nodes, so that an engine's layers tell which part they belong to."""


def is_of_frame(node: str) -> bool:
    """Whether a node of a joined graph comes from the frame graph, by its name."""
    return node.startswith(PREFIX)


def join_frame(front: Path, back: Path, target: Path) -> None:
    """Write the joined graph.

    Args:
        front: the frame graph: frames to pixels.
        back: the image encoder, as it is typed.
        target: the file to write; weights that do not fit into it lie beside it.

    Raises:
        EngineError: the two do not fit.
    """
    frames, encoder = load_graph(front), load_graph(back)
    for index, node in enumerate(frames.graph.all_nodes()):
        name = node.name or f"{node.op_type.lower()}_{index}"
        node.name = name if is_of_frame(name) else PREFIX + name
    given = [str(value.name) for value in frames.graph.outputs]
    taken = [str(value.name) for value in encoder.graph.inputs]
    if len(given) != 1 or len(taken) != 1:
        raise EngineError(
            f"{front.name} gives {', '.join(given)} and {back.name} takes {', '.join(taken)}; expected one of each",
            fix="make the frame graph again: clipdeploy frames BUNDLE --frame SIZE --overwrite",
        )
    save_graph(join_models(frames, encoder, {given[0]: taken[0]}), target)
