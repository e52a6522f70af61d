"""What is measured of a bundle, and what came of it. Times in ms unless named otherwise, sizes in bytes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clipdeploy.spec import Target

ALL = "all"
STAGES = ("decode", "resize", "normalise", "copy in", "encoder", "copy out", "similarity")
"""The stages of one picture, from file to label, in order; copies only where the encoder's memory is another."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        bundle: the bundle's folder.
        backends: names; `all` for every one that is installed.
        precisions: names; `all` for every one that the bundle holds or the backend makes.
        batches: pictures, and texts, in one run.
        threads: of one run, and of reading pictures; None takes what the machine has.
        target: whose 8-bit graphs; None takes those made for each engine.
        pictures: files for the way from file to label; empty draws JPEGs of 1920x1080.
        rounds: in which all candidates take turns.
        seconds: of measured calls of one candidate in one round, at one batch.
        texts: measure the text encoder too.
        cold_starts: fresh processes a candidate, for its cold start.
        output: JSON file to write; None writes none.
        html: page to write; None writes none.
    """

    bundle: Path
    backends: tuple[str, ...] = (ALL,)
    precisions: tuple[str, ...] = (ALL,)
    batches: tuple[int, ...] = (1, 8, 32)
    threads: int | None = None
    target: Target | None = None
    pictures: tuple[Path, ...] = ()
    rounds: int = 4
    seconds: float = 0.1
    texts: bool = True
    cold_starts: int = 3
    output: Path | None = None
    html: Path | None = None


@dataclass(frozen=True)
class Latency:
    """Wall time of calls, over all rounds.

    Attributes:
        p50_ms, p90_ms, p99_ms: of all calls.
        fastest_ms: of all calls.
        calls: measured.
        rounds_ms: the median of each round: how much the machine moves.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    fastest_ms: float
    calls: int
    rounds_ms: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Slowest round over fastest round, less 1: 0.05 is five percent."""
        return max(self.rounds_ms) / min(self.rounds_ms) - 1.0


def latency(rounds: list[list[float]]) -> Latency:
    """Of calls measured in rounds, in ms; rounds without calls do not count."""
    rounds = [one for one in rounds if one]
    calls = [ms for one in rounds for ms in one]
    p50, p90, p99 = (float(np.percentile(calls, share)) for share in (50, 90, 99))
    return Latency(p50, p90, p99, min(calls), len(calls), tuple(statistics.median(one) for one in rounds))


@dataclass(frozen=True)
class BatchFigures:
    """One encoder at one batch: `encode_pixels` or `encode_tokens` of prepared input, copies and all.

    Attributes:
        batch: rows asked for at once; an engine that takes fewer runs several times.
        latency: of one such call.
        per_second: rows a second, by the median run.
    """

    batch: int
    latency: Latency
    per_second: float


@dataclass(frozen=True)
class ColdStart:
    """A fresh process, by the median of several, on a machine that has started it before. Seconds.

    Attributes:
        process_s: from the start of the process to the first line of Python, interpreter and all.
        import_s: importing the runtime and the engine.
        load_s: `clipdeploy.load`, without hashing the files.
        first_image_s: the first picture, in which the encoder is loaded; None without an image encoder.
        first_text_s: the first label, in which the encoder is loaded; None without a text encoder.
        second_image_ms: the second picture: what is left when all is warm but caches; None without an image encoder.
        whole_s: from the start of the process to the first answer: the first picture, and the first label.
        first_ever_s: the same of the very first process, on a machine that remembers nothing of the bundle: with the
            self-tests, and with what an engine compiles once for a machine.
    """

    process_s: float
    import_s: float
    load_s: float
    first_image_s: float | None
    first_text_s: float | None
    second_image_ms: float | None
    whole_s: float
    first_ever_s: float | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes that one candidate's process takes.

    Attributes:
        imported: resident once the libraries are imported.
        loaded: resident once the image encoder has answered once; the text encoder, where there is no other.
        peak: resident at most, over everything measured.
        gpu: of the GPU, at most; None where there is none or it does not tell.
    """

    imported: int
    loaded: int
    peak: int
    gpu: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A backend and precision that was measured.

    Attributes:
        backend, precision: what runs the image encoder.
        reason: what the runtime says of it.
        images, texts: by batch; empty without such an encoder.
        stages: of one picture from file to label, by the names of `STAGES`; empty without an image encoder.
        file_to_label: the same in one go, as an app calls it; None without an image encoder.
        folder_per_second: pictures a second from files, read ahead, at the largest batch; None without an image
            encoder.
        cold_start, memory: of its process.
        files: path in the bundle -> bytes, of what it loads.
        texts_of: the candidate whose figures `texts` are, where that runs the very same text graph; None for its own.
    """

    backend: str
    precision: str
    reason: str
    images: tuple[BatchFigures, ...]
    texts: tuple[BatchFigures, ...]
    stages: dict[str, Latency]
    file_to_label: Latency | None
    folder_per_second: float | None
    cold_start: ColdStart
    memory: Memory
    files: dict[str, int]
    texts_of: str | None = None

    @property
    def name(self) -> str:
        """Such as `openvino int8`."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Absent:
    """A backend and precision that could not be measured, and why."""

    backend: str
    precision: str
    why: str


@dataclass(frozen=True)
class BoardSample:
    """What tegrastats says of a Jetson while one candidate runs, by the median of its lines.

    Attributes:
        candidate, batch: what ran.
        power_mw: rail -> milliwatts.
        gpu_mhz, emc_mhz: clocks; None where it does not tell.
        gpu_load, ram_mb: percent, megabytes; None where it does not tell.
        temperature_c: zone -> degrees.
    """

    candidate: str
    batch: int
    power_mw: dict[str, int]
    gpu_mhz: int | None = None
    emc_mhz: int | None = None
    gpu_load: int | None = None
    ram_mb: int | None = None
    temperature_c: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """A Jetson during the run: its power mode, whether its clocks were held, and what it drew."""

    power_mode: str | None
    clocks_held: bool | None
    samples: tuple[BoardSample, ...]


@dataclass(frozen=True)
class BenchResult:
    """What was measured. `to_dict` of it is the JSON file.

    Attributes:
        bundle: its folder's name; model: as the manifest names it.
        created: UTC, ISO 8601.
        environment: the machine, the libraries, GPUs and their clocks, load.
        conditions: what was asked: batches, threads, rounds, seconds, pictures.
        candidates: in the order measured; absent: those that could not be.
        board: on a Jetson.
        seconds: the whole run.
    """

    bundle: str
    model: str
    created: str
    environment: dict[str, Any]
    conditions: dict[str, Any]
    candidates: tuple[Candidate, ...]
    absent: tuple[Absent, ...]
    seconds: float
    board: Board | None = None
