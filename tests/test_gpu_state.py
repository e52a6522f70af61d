"""What is read of nvidia-smi, of machines that we play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from clipdeploy.machine import Probes
from clipdeploy.machine.gpu_state import gpu_memory_bytes, gpu_state
from tests.test_doctor import machine

# name, persistence, SM and memory clocks now and at most, power and its limit, temperature, reasons
BUSY = "NVIDIA GeForce RTX 4090, Enabled, 2520, 3120, 10501, 10501, 312.47, 450.00, 61, 0x0000000000000004\n"
OLD = "Tesla T4, Disabled, 300, 1590, 405, 5001, 9.8, 70.00, 38, 0x0000000000000001\n"
ORIN = "Orin (nvgpu), [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n"


def answering(answers: dict[str, str]) -> Probes:
    """A machine whose nvidia-smi answers a question that names one of these, and refuses all others."""

    def run(command: Sequence[str]) -> str | None:
        return next(
            (answer for part, answer in answers.items() if command[0] == "nvidia-smi" and part in command[1]), None
        )

    return replace(machine(), run=run)


def test_clocks_power_and_what_holds_them_back() -> None:
    assert gpu_state(answering({"clocks_event_reasons.active": BUSY})) == [
        {
            "name": "NVIDIA GeForce RTX 4090",
            "sm_mhz": 2520,
            "sm_max_mhz": 3120,
            "memory_mhz": 10501,
            "memory_max_mhz": 10501,
            "power_w": 312.47,
            "power_limit_w": 450,
            "temperature_c": 61,
            "persistence": True,
            "held_back_by": ["power cap"],
        }
    ]


def test_an_older_driver_is_asked_by_its_own_name() -> None:
    (state,) = gpu_state(answering({"clocks_throttle_reasons.active": OLD}))
    assert (state["sm_mhz"], state["persistence"], state["held_back_by"]) == (300, False, ["idle"])


def test_a_driver_that_knows_neither_name_still_tells_its_clocks() -> None:
    (state,) = gpu_state(answering({"temperature.gpu": OLD.rsplit(",", 1)[0]}))
    assert (state["power_w"], state["held_back_by"]) == (9.8, None)


def test_several_gpus_and_one_that_tells_nothing() -> None:
    states = gpu_state(answering({"clocks_event_reasons.active": f"{BUSY}{ORIN}\n"}))
    assert [state["name"] for state in states] == ["NVIDIA GeForce RTX 4090", "Orin (nvgpu)"]
    assert {value for key, value in states[1].items() if key != "name"} == {None}


@pytest.mark.parametrize(
    ("mask", "names"),
    [("0x0", []), ("0x0000000000000068", ["hardware slowdown", "heat (software)", "heat (hardware)"]), ("0x400", [])],
)
def test_reasons_are_named(mask: str, names: list[str]) -> None:
    (state,) = gpu_state(answering({"clocks_event_reasons.active": BUSY.replace("0x0000000000000004", mask)}))
    assert state["held_back_by"] == names


def test_no_gpu_is_no_state() -> None:
    assert gpu_state(machine()) == []
    assert gpu_state(machine(commands={"nvidia-smi": ""})) == []


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("4711, 512\n12, 99\n", 512 << 20),
        ("4711, 512\n4711, 100\n", 612 << 20),  # of two GPUs
        ("4711, [N/A]\n", None),
        ("12, 99\n", None),
        ("", None),
    ],
)
def test_memory_of_a_process(told: str, expected: int | None) -> None:
    assert gpu_memory_bytes(4711, answering({"--query-compute-apps": told})) == expected
    assert gpu_memory_bytes(4711, machine()) is None
