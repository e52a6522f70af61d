"""Graphs that some versions compile into engines that answer wrongly, without an error.

Each row was read in the threads that it names. What it says of later versions is as careful as they are: where nobody
reports a version to be right, none is taken for right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from clipdeploy.engine.targets.patterns import PATTERNS
from clipdeploy.engine.targets.target import EngineTarget, Version
from clipdeploy.engine_key import EngineBackend
from clipdeploy.findings import Finding

_ISSUES = "https://github.com/NVIDIA/TensorRT/issues"
Remedy = Literal["rewrite", "refuse", "warn"]


@dataclass(frozen=True)
class KnownBad:
    """A pattern that some versions get wrong.

    Attributes:
        name: for messages, and to build in spite of it with `--allow`.
        pattern: a name in `PATTERNS`.
        versions: by product, the first version that is wrong, and the first later one that is right again; None where
            no such version is reported. A product that is not named is not concerned.
        effect: what goes wrong, and who saw it.
        threads: where that is said.
        remedy: `rewrite` to a safe form, `refuse` to build, or `warn` where one report does not show that it concerns
            CLIPs.
        way: the name of the rewrite, or what a user can do.
        compute_capabilities: those concerned; empty where all are.
        also: another pattern that the graph must have.
    """

    name: str
    pattern: str
    versions: dict[EngineBackend, tuple[Version, Version | None]]
    effect: str
    threads: tuple[str, ...]
    remedy: Remedy
    way: str
    compute_capabilities: tuple[str, ...] = ()
    also: str | None = None

    def concerns(self, target: EngineTarget) -> bool:
        """Whether the target is among the versions and GPUs."""
        versions = self.versions.get(target.backend)
        if versions is None:
            return False
        first, right = versions
        gpus = not self.compute_capabilities or set(self.compute_capabilities) & set(target.compute_capabilities)
        return bool(gpus) and target.since(first) and (right is None or target.before(right))

    def places(self, model: ir.Model) -> tuple[str, ...]:
        """Names of the nodes where the graph has the pattern."""
        if self.also is not None and not PATTERNS[self.also](model):
            return ()
        return PATTERNS[self.pattern](model)


_VERIFY = "after building, compare on the device: clipdeploy verify BUNDLE --backend {backend} --precision PRECISION"

KNOWN_BAD = (
    KnownBad(
        name="attention-operator",
        pattern="attention_operator",
        versions={"tensorrt": ((10, 0), None), "tensorrt-rtx": ((1, 0), None)},
        effect="parsers take Attention from 10.14 on; engines of it fail to build (10.14, 10.16), crash the builder "
        "(RTX 1.7.1, in float32) or answer wrongly",
        threads=(
            "https://github.com/onnx/onnx-tensorrt/blob/main/docs/Changelog.md",
            f"{_ISSUES}/4705",
            f"{_ISSUES}/4739",
            "https://github.com/immich-app/ml-models/blob/main/immich_model/runtime.py",
        ),
        remedy="rewrite",
        way="explicit_attention",
    ),
    KnownBad(
        name="scale-on-both-sides",
        pattern="scale_on_both_sides",
        versions={"tensorrt": ((10, 4), (10, 8))},
        effect="attention whose scale is split over queries and keys answers wrongly, seen on 10.7 with a video ViT "
        "and with SigLIP; the scale on one side is right",
        threads=(f"{_ISSUES}/4333", f"{_ISSUES}/4328"),
        remedy="rewrite",
        way="scale_into_query",
    ),
    KnownBad(
        name="single-row-query",
        pattern="single_row_query",
        versions={"tensorrt": ((10, 13), None), "tensorrt-rtx": ((1, 0), None)},
        effect="one query against many keys answers wrongly, as Attention in 10.13 to 11.1, and written out in batches "
        "of two and more; no version is reported right",
        threads=("https://github.com/immich-app/ml-models/blob/main/immich_model/runtime.py",),  # the one source
        remedy="rewrite",
        way="single_row_as_sums",
    ),
    KnownBad(
        name="rotary-vit",
        pattern="rotary_positions",
        versions={"tensorrt": ((10, 3), (10, 6))},
        effect="DINOv3, a ViT with rotary positions, answers wrongly: in FP16 on 10.3, in float32 on 10.4 and on an "
        "AGX Orin, with no workaround found; a detector built on it is right from 10.6 on",
        threads=(
            f"{_ISSUES}/4723",
            f"{_ISSUES}/4742",
            f"{_ISSUES}/4558",
            "https://github.com/Intellindust-AI-Lab/DEIMv2/issues/112",
        ),
        remedy="refuse",
        way="install TensorRT 10.6 or later (JetPack 7 on a Jetson), or run the graph with ONNX Runtime",
    ),
    KnownBad(
        name="half-attention-sm120",
        pattern="half_attention",
        versions={"tensorrt": ((10, 8), None)},
        effect="fused attention in FP16 and BF16 answers wrongly on sm_120 in SAM 3 (1008 px), still in 10.16; "
        "in float32 it is right. Whether it concerns CLIPs is not known",
        threads=(f"{_ISSUES}/4837",),
        remedy="warn",
        way=_VERIFY + "; where it fails, build fp32",
        compute_capabilities=("12.0",),
    ),
    KnownBad(
        name="siglip2-fp16",
        pattern="constant_query",
        versions={"tensorrt": ((10, 0), None)},
        effect="SigLIP2 B/16 in FP16 reached a cosine of 0.646 to ONNX, where TensorRT chose the types; the types of "
        "this graph are its own",
        threads=(f"{_ISSUES}/4373",),
        remedy="warn",
        way=_VERIFY,
        also="half_attention",
    ),
    KnownBad(
        name="raw-frames",
        pattern="raw_frames",
        versions={"tensorrt": ((10, 0), None), "tensorrt-rtx": ((1, 0), None)},
        effect="unsigned bytes are taken at the door alone, and nothing but Cast computes with them: engines fail to "
        "build (seen on RTX 1.7.1)",
        threads=("https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md",),
        remedy="rewrite",
        way="floats_first",
    ),
)


Hit = tuple[KnownBad, tuple[str, ...]]
"""A row, and the nodes where a graph has its pattern."""


def look_up(model: ir.Model, target: EngineTarget) -> list[Hit]:
    """The rows that concern this graph on this target."""
    found = ((row, row.places(model)) for row in KNOWN_BAD if row.concerns(target))
    return [(row, places) for row, places in found if places]


def allowable() -> tuple[str, ...]:
    """Names of the rows that stand in the way of a build, or change its graph; a user may build in spite of them."""
    return tuple(row.name for row in KNOWN_BAD if row.remedy != "warn")


def finding(row: KnownBad, places: tuple[str, ...], target: EngineTarget, *, allowed: bool = False) -> Finding:
    """What to tell of a row that is still there: one to refuse or to warn of, or one that no rewrite took away.

    Args:
        allowed: whether the user builds in spite of it.
    """
    told = f"{row.effect} ({', '.join(row.threads)})"
    if row.remedy == "warn":
        return Finding(row.name, "note", told, row.way.format(backend=target.backend))
    if allowed:
        told = f"built in spite of it, as --allow {row.name} asks: {told}"
        return Finding(row.name, "note", told, _VERIFY.format(backend=target.backend))
    build = f"; or build in spite of it with --allow {row.name}"
    told += f"; here at {', '.join(places[:3])}" + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    if row.remedy == "rewrite":
        way = "this form is not rewritten; export the checkpoint with clipdeploy export, which writes attention out"
        return Finding(row.name, "bad", told, way + build)
    return Finding(row.name, "bad", told, row.way + build)
