"""One line of tegrastats, of JetPack 5, 6 and 7, to numbers. What it does not know it leaves out.

Fields:
https://docs.nvidia.com/jetson/archives/r35.4.1/DeveloperGuide/text/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

_RAM = re.compile(r"\bRAM (\d+)/\d+MB")
_GPU = re.compile(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[([^\]]*)\]|@(\d+))?")
_MEMORY = re.compile(r"\bEMC_FREQ (?:\d+%)?@(\d+)")
_POWER = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW")
_HEAT = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
_NOT_CONNECTED = "NC"
_WHOLE = ("VDD_IN", "VIN")  # of Orin Nano and NX, of Thor; AGX Orin has none
_OFF_C = -256.0  # of a zone whose part is off


@dataclass(frozen=True)
class Reading:
    """What one line says, in the units of `BoardSample`; of several lines, the medians."""

    power_mw: dict[str, int] = field(default_factory=dict)
    gpu_mhz: int | None = None
    emc_mhz: int | None = None
    gpu_load: int | None = None
    ram_mb: int | None = None
    temperature_c: dict[str, float] = field(default_factory=dict)


def read_line(line: str) -> Reading | None:
    """None for a line that is none of tegrastats'.

    A GPU of several clusters has a clock for each: the fastest counts, since one that idles is off.
    """
    gpu, memory, ram = _GPU.search(line), _MEMORY.search(line), _RAM.search(line)
    if ram is None:
        return None
    clocks = [int(clock) for clock in re.findall(r"\d+", (gpu[2] or gpu[3] or "") if gpu else "")]
    return Reading(
        power_mw={rail: int(power) for rail, power in _POWER.findall(line) if rail != _NOT_CONNECTED},
        gpu_mhz=max(clocks, default=None),
        emc_mhz=int(memory[1]) if memory else None,
        gpu_load=int(gpu[1]) if gpu and gpu[1] else None,
        ram_mb=int(ram[1]),
        temperature_c={zone: float(heat) for zone, heat in _HEAT.findall(line) if float(heat) != _OFF_C},
    )


def medians(readings: Sequence[Reading]) -> Reading:
    """Of each value, over the lines that have it."""
    rails = dict.fromkeys(rail for reading in readings for rail in reading.power_mw)
    zones = dict.fromkeys(zone for reading in readings for zone in reading.temperature_c)
    return Reading(
        power_mw={
            rail: round(median(one.power_mw[rail] for one in readings if rail in one.power_mw)) for rail in rails
        },
        gpu_mhz=_median([one.gpu_mhz for one in readings]),
        emc_mhz=_median([one.emc_mhz for one in readings]),
        gpu_load=_median([one.gpu_load for one in readings]),
        ram_mb=_median([one.ram_mb for one in readings]),
        temperature_c={
            zone: float(median(one.temperature_c[zone] for one in readings if zone in one.temperature_c))
            for zone in zones
        },
    )


def total_mw(power_mw: Mapping[str, int]) -> int | None:
    """What the whole board draws; None where no rail carries all of it."""
    return next((power_mw[rail] for rail in _WHOLE if rail in power_mw), None)


def _median(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(median(known)) if known else None
