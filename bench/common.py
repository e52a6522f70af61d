"""What the benchmarks share: fair timing, the machine they ran on, tables and files."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipdeploy.bundle import write_text
from clipdeploy.text import table as aligned
from clipdeploy.versions import installed

if TYPE_CHECKING:
    from clipdeploy.request import CheckpointRequest

OUT = Path("out/bench")
_LIBRARIES = (
    "clipdeploy",
    "numpy",
    "pillow",
    "onnxruntime",
    "openvino",
    "torch",
    "torchvision",
    "open-clip-torch",
    "onnxsim",
)
_CPU_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
"""What the speed of matrix products in few bits hangs on, x86 and ARM."""
_FULL_HD = (1920, 1080)


@dataclass(frozen=True)
class Timing:
    """Wall time of one call, in ms, over all measured calls."""

    median_ms: float
    fastest_ms: float
    p90_ms: float
    calls: int


_UNTIL_THREADS_SLEEP_S, _WARM_UP_S, _AFTER_PROBE_S = 0.25, 0.05, 0.01
_AT_ITS_BEST = 1.25
"""How much longer than its fastest answer a probe may take while the machine counts as at its best."""


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 7, calls: int = 10
) -> dict[str, Timing]:
    """Time candidates side by side, so that what slows the machine for a while slows them all: see `in_rounds`."""
    measured = in_rounds(candidates, rounds=rounds, calls=calls)
    return {name: timing([ms for one in samples for ms in one]) for name, samples in measured.items()}


def in_rounds(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    calls: int | Mapping[str, int] = 10,
    rest_s: float = _UNTIL_THREADS_SLEEP_S,
    warm_up_s: float = _WARM_UP_S,
    probe: Callable[[], float] | None = None,
    probes: list[list[float]] | None = None,
) -> dict[str, list[list[float]]]:
    """Wall time in ms of every measured call of every candidate, one list a round.

    Each round lets every candidate wait until the threads of the one before have gone to sleep (they go on spinning
    for some tens of milliseconds, which takes a core from whoever is next), warms it up unmeasured, and measures
    `calls` runs, one number for all or one for each; the next round starts with another candidate. Before each turn
    and after the last of a round, `probe` is asked how fast the machine is at that moment, and its answers go to
    `probes`, a list a round.
    """
    names, samples = list(candidates), {name: [] for name in candidates}  # type: ignore[var-annotated]
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            speeds: list[float] = []
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                time.sleep(rest_s)
                if probe is not None:
                    speeds.append(probe())
                    time.sleep(_AFTER_PROBE_S)
                warm = time.perf_counter() + warm_up_s
                candidates[name]()
                while time.perf_counter() < warm:
                    candidates[name]()
                taken = []
                for _ in range(calls if isinstance(calls, int) else calls[name]):
                    started = time.perf_counter()
                    candidates[name]()
                    taken.append((time.perf_counter() - started) * 1e3)
                samples[name].append(taken)
            if probe is not None and probes is not None:
                time.sleep(rest_s)
                probes.append([*speeds, probe()])
    finally:
        gc.enable()
    return samples


def at_full_speed(
    samples: Mapping[str, Sequence[Sequence[float]]], probes: Sequence[Sequence[float]], names: Sequence[str]
) -> dict[str, list[float]]:
    """Of what `in_rounds` measured, the calls between two probes that both found the machine at its best.

    Args:
        samples: of each candidate, the calls of each round, in ms.
        probes: of each round, how long the probe took before each turn and after the last, in ms.
        names: of the candidates, in the order of the first round.
    """
    best = min(min(one) for one in probes)
    kept: dict[str, list[float]] = {name: [] for name in names}
    for turn, taken in enumerate(probes):
        order = names[turn % len(names) :] + names[: turn % len(names)]  # type: ignore[operator]
        for place, name in enumerate(order):
            if max(taken[place], taken[place + 1]) <= _AT_ITS_BEST * best:
                kept[name] += samples[name][turn]
    return kept


def timing(values: Sequence[float]) -> Timing:
    """What to tell of the calls of one candidate, in ms."""
    return Timing(
        median_ms=statistics.median(values),
        fastest_ms=min(values),
        p90_ms=float(np.percentile(values, 90)),
        calls=len(values),
    )


@dataclass(frozen=True)
class Ratio:
    """How long one candidate took beside another, round by round of one run.

    Attributes:
        median: over the rounds, of the ratio of their medians.
        least, most: of the rounds.
        fastest: ratio of the fastest calls of all.
    """

    median: float
    least: float
    most: float
    fastest: float


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Ratio:
    """`ours` over `theirs`, as `in_rounds` measured them: below 1 is faster."""
    rounds = [statistics.median(mine) / statistics.median(other) for mine, other in zip(ours, theirs, strict=True)]
    fastest = min(map(min, ours)) / min(map(min, theirs))
    return Ratio(statistics.median(rounds), min(rounds), max(rounds), fastest)


def environment(threads: int) -> dict[str, Any]:
    """The command, the day, the machine, and the libraries."""
    return {
        "command": _command(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": _cpu(),
        "cpu_flags": _cpu_flags(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": installed(_LIBRARIES),
    }


def _command() -> str | None:
    """What was called, without the result file and without the folders in which a file lies; None of no benchmark."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec else ""
    if not module.startswith("bench."):
        return None
    given, words = iter(sys.argv[1:]), []
    for word in given:
        if word == "--json":
            next(given, None)
        elif not word.startswith("--json="):
            words.append(Path(word).name if "/" in word else word)
    return " ".join(["python -m", module, *words])


def _cpu() -> str:
    return _cpu_line("model name") or platform.machine()


def _cpu_flags() -> list[str]:
    has = (_cpu_line("flags") or _cpu_line("Features")).split()
    return [flag for flag in _CPU_FLAGS if flag in has]


def _cpu_line(key: str) -> str:
    """What the first processor says of itself under `key`; empty where it says nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parser_of(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m bench.NAME`; `about` is the module's docstring, and what `--help` shows."""
    return argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about, formatter_class=_HelpFormatter)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table: the first column to the left, the others to the right."""
    return aligned(head, list(rows), right=range(1, len(head)))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2) + "\n")


def full_hd_jpeg(path: Path, photo: Path | None = None, seed: int = 0) -> Path:
    """A 1920x1080 JPEG of quality 90: `photo` scaled to cover it, or clouds of `seed` with a camera's grain."""
    width, height = _FULL_HD
    if photo is not None:
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        scale = max(width / image.width, height / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        image = image.crop((0, 0, width, height))
    else:
        rng = np.random.default_rng(seed)
        clouds = Image.fromarray(rng.integers(0, 256, (18, 32, 3), dtype=np.uint8))
        smooth = np.asarray(clouds.resize(_FULL_HD, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = rng.normal(0, 6, smooth.shape)
        image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)
    return path


def random_bundle(model: str, folder: Path | None = None) -> Path:
    """`folder`, a bundle of the architecture; or one exported anew with seeded random weights, so it is current."""
    from clipdeploy.pipeline import ExportRequest, export_bundle

    if folder is not None:
        return folder
    folder = OUT / model.rsplit("/", 1)[-1]
    print(f"exporting {model} to {folder}", flush=True)
    export_bundle(ExportRequest(checkpoint_of(model), output=folder, overwrite=True))
    return folder


def checkpoint_of(model: str) -> CheckpointRequest:
    """An open_clip architecture with seeded random weights; or `local-dir:FOLDER` with its own."""
    from clipdeploy.request import CheckpointRequest

    return CheckpointRequest(model, random_weights=not model.startswith("local-dir:"))
