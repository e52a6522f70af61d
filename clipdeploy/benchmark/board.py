"""A Jetson while it is measured: its power mode, whether its clocks are held, and what tegrastats says of it.

Nothing here asks for root, and nothing that a tool of NVIDIA's says or fails to say stops a benchmark.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from clipdeploy.benchmark.records import Board, BoardSample
from clipdeploy.benchmark.tegrastats import Reading, medians, read_line
from clipdeploy.machine import find_hardware
from clipdeploy.machine.probes import Probes, this_machine

_TEGRASTATS = ("tegrastats", "--interval", "100")  # ms
_ENDS_WITHIN_S = 2.0
_CLOCKS = re.compile(r"^(\w+).*?MinFreq=(\d+) MaxFreq=(\d+)", re.MULTILINE)
# of the GPUs of Orin (JetPack 6 on, 5), Xavier, Thor: https://github.com/rbonghi/jetson_stats/pull/867, .../pull/886
_GPU_CLOCKS = ("17000000.gpu", "17000000.ga10b", "17000000.gv11b", "gpu-gpc-0")
_CPU_CLOCKS = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_"


class BoardWatch:
    """Watches a Jetson for a benchmark.

    Args:
        probes: the machine.
        tegrastats: the command, without end until it is ended.

    Attributes:
        readings: (candidate, batch) -> what tegrastats said meanwhile.
    """

    def __init__(self, probes: Probes, tegrastats: Sequence[str] = _TEGRASTATS) -> None:
        self._probes = probes
        self._tegrastats = tegrastats
        self.readings: defaultdict[tuple[str, int], list[Reading]] = defaultdict(list)

    @classmethod
    def here(cls, probes: Probes | None = None) -> BoardWatch | None:
        """One for this machine; None where it is no Jetson."""
        probes = probes or this_machine()
        return cls(probes) if find_hardware(probes).jetson is not None else None

    @contextmanager
    def sample(self, candidate: str, batch: int) -> Iterator[None]:
        """Let tegrastats run meanwhile. What is sampled in several turns counts as one."""
        readings = self.readings[candidate, batch]
        process = self._start()
        listener = Thread(target=_listen, args=(process, readings), daemon=True) if process else None
        if listener:
            listener.start()
        try:
            yield
        finally:
            if process:
                _end(process)
            if listener:
                listener.join(_ENDS_WITHIN_S)

    def board(self) -> Board:
        """What is known by now."""
        samples = [
            BoardSample(candidate, batch, **vars(medians(readings)))
            for (candidate, batch), readings in self.readings.items()
            if readings
        ]
        return Board(power_mode(self._probes), clocks_held(self._probes), tuple(samples))

    def _start(self) -> subprocess.Popen[str] | None:
        try:
            return subprocess.Popen(
                self._tegrastats,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
        except OSError:
            return None


def power_mode(probes: Probes) -> str | None:
    """As nvpmodel names it, such as `MAXN_SUPER`; its number where it names none; None where it does not tell."""
    named = re.search(r"NV Power Mode:\s*(\S.*?)\s*$", probes.run(("nvpmodel", "-q")) or "", re.MULTILINE)
    if named:
        return named[1]
    numbered = re.search(r"pmode:0*(\d+)", probes.read("/var/lib/nvpmodel/status") or "")
    return f"mode {numbered[1]}" if numbered else None


def clocks_held(probes: Probes) -> bool | None:
    """Whether the clocks of GPU and CPU are held where they are, as `jetson_clocks` does; None where none tells.

    `jetson_clocks --show` answers root alone; for others the kernel's own files tell of the GPU and the first core.
    """
    shown = _CLOCKS.findall(probes.run(("jetson_clocks", "--show")) or "")
    ranges = [(least, most) for name, least, most in shown if name == "GPU" or re.fullmatch(r"cpu\d+", name)]
    if not any(name == "GPU" for name, _, _ in shown):
        gpus = [_range(probes, f"/sys/class/devfreq/{gpu}/", "_freq") for gpu in _GPU_CLOCKS]
        gpu = next((found for found in gpus if found), None)
        cpu = _range(probes, _CPU_CLOCKS, "_freq")
        ranges = [gpu, *([cpu] if cpu else [])] if gpu else []
    return all(least == most for least, most in ranges) if ranges else None


def _range(probes: Probes, before: str, after: str) -> tuple[str, str] | None:
    """The least and the most of a clock."""
    least, most = ((probes.read(f"{before}{end}{after}") or "").strip() for end in ("min", "max"))
    return (least, most) if least and most else None


def _listen(process: subprocess.Popen[str], into: list[Reading]) -> None:
    assert process.stdout is not None
    with process.stdout as lines, suppress(OSError, ValueError):  # it may be ended at any letter
        for line in lines:
            reading = read_line(line)
            if reading is not None:
                into.append(reading)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
