"""Batch sizes that an engine is built for, one optimisation profile a band."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine_key import Profile
from clipdeploy.errors import EngineError, InputError
from clipdeploy.spec import FrameSpec, TensorSpec

_EXAMPLE = "pass for example --batch 1,8,32, or --batch 4 for an engine of that batch alone"
_FRAMES_BYTES, _MOST_FRAMES = 256 << 20, 32


def parse_batch(text: str) -> Profile:
    """Read `MIN,OPT,MAX`, or one number for all three; raises InputError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"a batch is MIN,OPT,MAX in whole numbers, got {text!r}", fix=_EXAMPLE)
    sizes = [int(part) for part in parts]
    return Profile(*(sizes if len(sizes) == 3 else sizes * 3))


def parse_batches(texts: Iterable[str]) -> tuple[Profile, ...]:
    """Read several, each of them once, by ascending size."""
    profiles = [parse_batch(text) for text in texts]
    for index, profile in enumerate(profiles):
        if profile in profiles[:index]:
            raise InputError(f"the batch {profile} is given twice", fix="name each --batch once")
    return tuple(sorted(profiles, key=lambda p: (p.smallest, p.largest, p.usual)))


def frame_profile(frame: FrameSpec) -> Profile:
    """The batches that an engine for camera frames is built for, where nobody says: as many as a camera app gathers.

    An engine takes room for its largest batch when it is loaded, of frames in float32 too.
    """
    fit = _FRAMES_BYTES // (frame.width * frame.height * 3 * 4)
    return Profile(1, 1, max(1, min(_MOST_FRAMES, 1 << max(fit, 1).bit_length() - 1)))


def check_profiles(profiles: Sequence[Profile], outline: Outline) -> TensorSpec:
    """The graph's one input, which must take every batch of `profiles`.

    Raises:
        EngineError: it has several inputs, another dynamic axis than the batch, or a fixed batch that does not fit.
        InputError: there is no profile.
    """
    name = outline.path.name
    if not profiles:
        raise InputError("an engine needs a batch profile", fix=_EXAMPLE)
    if len(outline.inputs) != 1:
        names = ", ".join(i.name for i in outline.inputs) or "none"
        raise EngineError(
            f"{name} must have one input, it has: {names}", fix="export the checkpoint with clipdeploy export"
        )
    (tensor,) = outline.inputs
    batch, *others = tensor.shape or (1,)
    dynamic = [f"axis {index} ({size})" for index, size in enumerate(others, start=1) if isinstance(size, str)]
    if dynamic:
        raise EngineError(
            f"only the batch of {name} may vary, but {tensor.name} also leaves {', '.join(dynamic)} open",
            fix="export the checkpoint with clipdeploy export, whose other axes are fixed, or can be",
        )
    if isinstance(batch, int):
        for profile in profiles:
            if {profile.smallest, profile.usual, profile.largest} != {batch}:
                raise EngineError(
                    f"{name} takes batches of {batch} and no other, asked for {profile}",
                    fix=f"pass --batch {batch}, or export the checkpoint with clipdeploy export for any batch",
                )
    return tensor


def add_profiles(builder: Any, config: Any, network: Any, profiles: Sequence[Profile]) -> None:
    """Tell the builder which batches to expect at the network's input."""
    tensor = network.get_input(0)
    rest = tuple(tensor.shape)[1:]
    for profile in profiles:
        bounds = builder.create_optimization_profile()
        bounds.set_shape(tensor.name, *((n, *rest) for n in (profile.smallest, profile.usual, profile.largest)))
        if config.add_optimization_profile(bounds) < 0:
            raise EngineError(f"the builder refuses the batch profile {profile}", fix=_EXAMPLE)
