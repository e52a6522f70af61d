"""What is read of a Jetson's own tools. Lines are of the forms that people have shown, with the source beside."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import pytest

from clipdeploy.benchmark.board import BoardWatch, clocks_held, power_mode
from clipdeploy.benchmark.tegrastats import Reading, medians, read_line, total_mw
from clipdeploy.machine import Probes
from tests.test_doctor import TEGRA, machine

# Xavier NX, JetPack 5: numbers of our own in the form of the next one
JETPACK_5 = (
    "11-20-2025 09:00:00 RAM 2900/6851MB (lfb 3x4MB) SWAP 0/3426MB (cached 0MB) CPU [20%@1400,10%@1190,off,off] "
    "EMC_FREQ 2%@1600 GR3D_FREQ 5%@[510] VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C thermal@45.6C PMIC@50C "
    "VDD_IN 4800mW/4700mW VDD_CPU_GPU_CV 1650mW/1600mW VDD_SOC 1150mW/1100mW"
)
# AGX Orin, JetPack 5: https://github.com/GDWR/jetson_exporter/issues/14
JETPACK_5_AGX = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C "
    "GPU@-256C tj@44.343C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
# Orin Nano, JetPack 6: https://github.com/rbonghi/jetson_stats/issues/624
JETPACK_6 = (
    "05-15-2025 18:30:28 RAM 6982/7620MB (lfb 5x1MB) SWAP 2640/16384MB (cached 202MB) CPU [97%@1984,95%@1984,93%@247] "
    "EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] NVENC 1%@115 NVDEC 40%@115 NVJPG off NVJPG1 off VIC 31%@115 OFA off "
    "NVDLA0 off PVA0_FREQ off APE 174 cv0@63.031C cpu@65.562C soc2@64.156C gpu@63.5C tj@65.562C "
    "VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW VDD_SOC 3923mW/3515mW"
)
# AGX Orin, JetPack 7.2: https://github.com/rbonghi/jetson_stats/pull/894
JETPACK_7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201] EMC_FREQ 3%@3199 "
    "GR3D_FREQ 0%@[1300,1300] NVENC0 off NVDEC0 off APE 174 cpu@52.968C/52.968C"
)
# Thor, JetPack 7: numbers of our own; its array of clocks without a load as in the same place, its rails and its peaks
# of heat as in https://github.com/wendylabsinc/WendyOS/pull/1316
THOR = (
    "11-20-2026 09:00:00 RAM 4100/125749MB (lfb 99x4MB) CPU [3%,5%,off]@2601 EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,300,off] cpu@49.5C/51.25C gpu@62.906C/63.1C NVENC0_FREQ @1691 FUTURE 7%@[x]@ "
    "VDD_GPU -392mW/6100mW/6100mW VDD_CPU_SOC_MSS 3924mW/3924mW/3924mW VIN 28000mW/14000mW/28000mW"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            JETPACK_5,
            Reading(
                {"VDD_IN": 4800, "VDD_CPU_GPU_CV": 1650, "VDD_SOC": 1150},
                gpu_mhz=510,
                emc_mhz=1600,
                gpu_load=5,
                ram_mb=2900,
                temperature_c={"AUX": 45.0, "CPU": 46.5, "thermal": 45.6, "PMIC": 50.0},
            ),
        ),
        (
            JETPACK_5_AGX,  # a GPU that is off has no temperature
            Reading(
                {"VDD_GPU_SOC": 2340, "VDD_CPU_CV": 390, "VIN_SYS_5V0": 4025, "VDDQ_VDD2_1V8AO": 301},
                gpu_mhz=0,
                emc_mhz=2133,
                gpu_load=0,
                ram_mb=4321,
                temperature_c={"CPU": 44.562, "Tboard": 32.0, "SOC2": 40.093, "tj": 44.343},
            ),
        ),
        (
            JETPACK_6,
            Reading(
                {"VDD_IN": 17946, "VDD_CPU_GPU_CV": 8896, "VDD_SOC": 3923},
                gpu_mhz=713,
                emc_mhz=3199,
                gpu_load=84,
                ram_mb=6982,
                temperature_c={"cv0": 63.031, "cpu": 65.562, "soc2": 64.156, "gpu": 63.5, "tj": 65.562},
            ),
        ),
        (JETPACK_7, Reading({}, 1300, 3199, 0, 20642, {"cpu": 52.968})),
        (
            THOR,
            Reading(
                {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 3924, "VIN": 28000},
                gpu_mhz=1574,
                emc_mhz=4266,
                gpu_load=None,
                ram_mb=4100,
                temperature_c={"cpu": 49.5, "gpu": 62.906},
            ),
        ),
        ("RAM 1/2MB GR3D_FREQ 99%@917 EMC_FREQ 0%", Reading(gpu_mhz=917, gpu_load=99, ram_mb=1)),
        ("RAM 1/2MB GR3D_FREQ N/A EMC_FREQ", Reading(ram_mb=1)),
    ],
    ids=["5", "5 AGX", "6", "7", "Thor", "one clock", "garbled"],
)
def test_lines(line: str, expected: Reading) -> None:
    assert read_line(line) == expected


@pytest.mark.parametrize("line", ["", "tegrastats: permission denied", "RAM lots", "\x00\xff"])
def test_other_lines_are_left_out(line: str) -> None:
    assert read_line(line) is None


def test_medians_are_of_the_lines_that_tell() -> None:
    lines = [
        Reading({"VDD_IN": 10}, 100, None, 90, 5, {"gpu": 40.0}),
        Reading({"VDD_IN": 30, "VDD_SOC": 7}, 300, None, None, 6, {}),
        Reading({"VDD_IN": 20}, 200, None, 94, 7, {"gpu": 41.0}),
    ]
    assert medians(lines) == Reading({"VDD_IN": 20, "VDD_SOC": 7}, 200, None, 92, 6, {"gpu": 40.5})
    assert medians([]) == Reading()


def test_one_rail_carries_all_of_a_board_or_none_does() -> None:
    assert total_mw({"VDD_SOC": 1, "VDD_IN": 5}) == 5
    assert total_mw({"VDD_GPU": 1, "VIN": 9, "VIN_SYS_5V0": 4}) == 9
    assert total_mw({"VDD_GPU_SOC": 3, "VIN_SYS_5V0": 4}) is None


# nvpmodel -q without root, on a Jetson whose mode is known all the same
NVPMODEL = """NV Fan Mode:quiet
NV Power Mode: MAXN_SUPER
2
NVPM ERROR: Error opening /sys/kernel/nvpmodel_emc_cap/emc_iso_cap: 13
"""
# https://github.com/rbonghi/jetson_stats/issues/381, and the same once jetson_clocks has run
SHOW = """SOC family:tegra234  Machine:NVIDIA Orin Jetson-Small Developer Kit
Online CPUs: 0-11
cpu0: Online=1 Governor=schedutil MinFreq={cpu} MaxFreq=2201600 CurrentFreq=2112000 IdleStates: WFI=1 c7=1
cpu10: Online=1 Governor=schedutil MinFreq={cpu} MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=1 c7=1
GPU MinFreq={gpu} MaxFreq=1300500000 CurrentFreq=306000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
NV Power Mode: MAXN
"""
FREE = SHOW.format(cpu=115200, gpu=306000000)
HELD = SHOW.format(cpu=2201600, gpu=1300500000)
GPU, CPU = "/sys/class/devfreq/17000000.gpu", "/sys/devices/system/cpu/cpu0/cpufreq"


def jetson(*, files: Mapping[str, str] | None = None, commands: Mapping[str, str] | None = None) -> Probes:
    return machine(files={"/etc/nv_tegra_release": TEGRA, **(files or {})}, commands=commands, arch="aarch64")


@pytest.mark.parametrize(
    ("probes", "mode"),
    [
        (jetson(commands={"nvpmodel": NVPMODEL}), "MAXN_SUPER"),
        (jetson(commands={"nvpmodel": "NV Power Mode: 15W\n0\n"}), "15W"),
        (jetson(files={"/var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n"}), "mode 2"),
        (jetson(commands={"nvpmodel": "NVPM ERROR: no\n"}), None),
        (jetson(), None),
    ],
)
def test_power_mode(probes: Probes, mode: str | None) -> None:
    assert power_mode(probes) == mode


def frequencies(gpu: tuple[int, int], cpu: tuple[int, int], name: str = "17000000.gpu") -> dict[str, str]:
    of_gpu = {
        f"/sys/class/devfreq/{name}/{end}_freq": f"{value}\n" for end, value in zip(("min", "max"), gpu, strict=True)
    }
    return of_gpu | {f"{CPU}/scaling_{end}_freq": f"{value}\n" for end, value in zip(("min", "max"), cpu, strict=True)}


@pytest.mark.parametrize(
    ("probes", "held"),
    [
        (jetson(commands={"jetson_clocks": FREE}), False),
        (jetson(commands={"jetson_clocks": HELD}), True),
        (jetson(commands={"jetson_clocks": SHOW.format(cpu=115200, gpu=1300500000)}), False),
        # without root jetson_clocks says nothing, and the kernel's files do
        (jetson(files=frequencies((306, 918), (729, 1344))), False),
        (jetson(files=frequencies((918, 918), (1344, 1344))), True),
        (jetson(files=frequencies((918, 918), (729, 1344))), False),
        (jetson(files=frequencies((1575, 1575), (2601, 2601), "gpu-gpc-0")), True),
        (jetson(files={f"{GPU}/min_freq": "918"}), None),
        (jetson(commands={"jetson_clocks": "something else"}), None),
        (jetson(), None),
    ],
)
def test_clocks_are_held_where_they_have_no_range(probes: Probes, held: bool | None) -> None:
    assert clocks_held(probes) is held


def tegrastats(*lines: str) -> tuple[str, ...]:
    """A command that prints these in turn, every few milliseconds, until it is ended."""
    program = (
        "import itertools, sys, time\n"
        "for line in itertools.cycle(sys.argv[1:]):\n"
        "    print(line, flush=True)\n"
        "    time.sleep(0.005)\n"
    )
    return (sys.executable, "-S", "-c", program, *lines)


def wait_for(watch: BoardWatch, count: int, candidate: tuple[str, int]) -> None:
    ends = time.monotonic() + 20
    while len(watch.readings[candidate]) < count and time.monotonic() < ends:
        time.sleep(0.005)


def test_a_board_is_watched_while_a_candidate_runs() -> None:
    watch = BoardWatch(jetson(commands={"nvpmodel": NVPMODEL}), tegrastats(JETPACK_6, "not a line", JETPACK_6))
    for batch in (1, 8, 1):  # turns of one candidate count together
        before = len(watch.readings["tensorrt fp16", batch])
        with watch.sample("tensorrt fp16", batch):
            wait_for(watch, before + 3, ("tensorrt fp16", batch))
    board = watch.board()
    assert (board.power_mode, board.clocks_held) == ("MAXN_SUPER", None)
    assert [(sample.candidate, sample.batch) for sample in board.samples] == [
        ("tensorrt fp16", 1),
        ("tensorrt fp16", 8),
    ]
    assert board.samples[0].power_mw == {"VDD_IN": 17946, "VDD_CPU_GPU_CV": 8896, "VDD_SOC": 3923}
    assert (board.samples[0].gpu_mhz, board.samples[0].gpu_load, board.samples[0].ram_mb) == (713, 84, 6982)


@pytest.mark.parametrize(
    "command", [("no-such-tegrastats",), (sys.executable, "-c", "import sys; sys.exit('no')"), ("/",)]
)
def test_a_board_without_tegrastats_is_still_a_board(command: tuple[str, ...]) -> None:
    watch = BoardWatch(jetson(), command)
    with watch.sample("tensorrt fp16", 1):
        pass
    assert watch.board().samples == ()


def test_one_that_will_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.benchmark.board._ENDS_WITHIN_S", 0.1)
    program = (
        f"import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint({JETPACK_6!r}, flush=True)\ntime.sleep(60)\n"
    )
    watch = BoardWatch(jetson(), (sys.executable, "-S", "-c", program))
    began = time.monotonic()
    with watch.sample("tensorrt fp16", 1):
        wait_for(watch, 1, ("tensorrt fp16", 1))
    assert time.monotonic() - began < 30
    assert len(watch.board().samples) == 1


def test_an_error_of_the_benchmark_passes_through() -> None:
    watch = BoardWatch(jetson(), tegrastats(JETPACK_7))
    with pytest.raises(RuntimeError, match="candidate"), watch.sample("tensorrt fp16", 1):
        raise RuntimeError("the candidate failed")


def test_a_jetson_has_a_watch_and_others_have_none() -> None:
    assert BoardWatch.here(machine()) is None
    assert BoardWatch.here(jetson()) is not None
