"""What NVIDIA GPUs do right now: clocks, power, what holds them back, and the memory a process takes of them."""

from __future__ import annotations

from typing import Any

from clipdeploy.machine.probes import Probes, this_machine

_NUMBERS = {
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "memory_max_mhz": "clocks.max.mem",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}
_ALWAYS = ("name", "persistence_mode", *_NUMBERS.values())
# nvidia-smi refuses a whole question for one field that it does not know: drivers before 535 have the second name alone
_REASONS = (("clocks_event_reasons.active",), ("clocks_throttle_reasons.active",), ())
# https://docs.nvidia.com/deploy/nvml-api/api/group__nvmlClocksEventReasons.html
_HOLDS_BACK = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
_MEMORY = ("nvidia-smi", "--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits")


def gpu_state(probes: Probes | None = None) -> list[dict[str, Any]]:
    """Each NVIDIA GPU as it is now; empty where nvidia-smi does not answer.

    Returns:
        One a GPU: `name`; `sm_mhz`, `memory_mhz` and their `_max_mhz`; `power_w`, `power_limit_w`; `temperature_c`;
        `persistence` whether the driver stays loaded; `held_back_by`, names of what lowers its clocks. None where it
        does not tell.
    """
    probes = probes or this_machine()
    for reasons in _REASONS:
        fields = (*_ALWAYS, *reasons)
        answer = probes.run(("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"))
        if answer is not None:
            return [
                _state(dict(zip(fields, _cells(line), strict=False))) for line in answer.splitlines() if line.strip()
            ]
    return []


def gpu_memory_bytes(pid: int, probes: Probes | None = None) -> int | None:
    """Memory that a process takes of all NVIDIA GPUs; None where nvidia-smi does not know it, as in a container."""
    answer = (probes or this_machine()).run(_MEMORY)
    rows = [_cells(line) for line in (answer or "").splitlines()]
    taken = [int(row[1]) for row in rows if len(row) == 2 and row[0] == str(pid) and row[1].isdigit()]
    return sum(taken) * 1024 * 1024 if taken else None


def _state(told: dict[str, str]) -> dict[str, Any]:
    state: dict[str, Any] = {"name": told.get("name", "NVIDIA GPU")}
    state |= {key: _number(told.get(field)) for key, field in _NUMBERS.items()}
    state["persistence"] = {"Enabled": True, "Disabled": False}.get(told.get("persistence_mode", ""))
    state["held_back_by"] = _reasons(
        next((value for name, value in told.items() if name.endswith("reasons.active")), "")
    )
    return state


def _reasons(mask: str) -> list[str] | None:
    try:
        bits = int(mask, 16)
    except ValueError:  # `[N/A]`, or nothing
        return None
    return [name for bit, name in _HOLDS_BACK.items() if bits & bit]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:  # `[N/A]`, or nothing
        return None
    return int(value) if value.is_integer() else value


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]
