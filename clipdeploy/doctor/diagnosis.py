"""From what the probes say to facts, problems and advice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipdeploy import __version__
from clipdeploy.bundle import Bundle
from clipdeploy.doctor.advice import EXPORT, advise, install_runtime
from clipdeploy.doctor.backends import backend_facts, provider_problems
from clipdeploy.doctor.records import Diagnosis, Fact, Problem
from clipdeploy.errors import BundleError
from clipdeploy.machine.hardware import Hardware, find_hardware
from clipdeploy.machine.install import ONNXRUNTIME_WHEELS
from clipdeploy.machine.probes import Imported, Probes, this_machine

ENGINES = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
NOT_INSTALLED = "not installed"


def diagnose(probes: Probes | None = None, *, bundle: Path | None = None) -> Diagnosis:
    """Look at a machine, and at a bundle if one is given.

    Args:
        probes: how to look; None looks at this machine.
        bundle: a bundle's folder to check, every file against its sha256.
    """
    probes = probes or this_machine()
    hardware = find_hardware(probes)
    wheels = {name: version for name, version in probes.distributions().items() if name in ONNXRUNTIME_WHEELS}
    modules = ("onnxruntime", *ENGINES)
    imported = {module: probes.try_import(module) for module in modules if probes.has_module(module)}
    runtime = imported.get("onnxruntime")
    problems = [
        *(_runtime_problems(wheels, runtime, probes, hardware) or provider_problems(probes, hardware, imported)),
        *_driver_problems(hardware),
    ]
    facts = [
        *_machine_facts(probes, hardware),
        *_engine_facts(imported, wheels, problems),
        *backend_facts(probes, hardware, imported),
        *_export_facts(probes),
    ]
    if bundle is not None:
        fact, problem = _check_bundle(bundle)
        facts.append(fact)
        problems += [problem] if problem else []
    return Diagnosis(tuple(facts), tuple(problems), tuple(advise(probes, hardware, runtime)))


def _machine_facts(probes: Probes, hardware: Hardware) -> list[Fact]:
    facts = [
        Fact("machine", "clipdeploy", __version__),
        Fact("machine", "Python", f"{probes.python}, {probes.executable}"),
        Fact("machine", "platform", probes.platform),
        Fact("machine", "CPU cores", str(probes.cpus)),
    ]
    jetson = hardware.jetson
    if jetson is not None:
        facts.append(Fact("machine", "Jetson", f"{jetson.board or 'unknown board'}, Jetson Linux {jetson.l4t}"))
        facts.append(Fact("machine", "JetPack", jetson.jetpack or "unknown"))
    gpus = [str(gpu) for gpu in hardware.gpus] or ["none found"]
    return [*facts, *(Fact("machine", "NVIDIA GPU", gpu) for gpu in gpus)]


def _engine_facts(imports: Mapping[str, Imported], wheels: Mapping[str, str], problems: list[Problem]) -> list[Fact]:
    """The engines; one that is there and does not import is added to `problems`."""
    value, runtime = NOT_INSTALLED, imports.get("onnxruntime")
    if runtime is not None:
        names = ", ".join(f"{name} {version}" for name, version in sorted(wheels.items())) or runtime.version or ""
        value = f"{names}: {', '.join(runtime.providers)}" if runtime.error is None else f"{names}: does not import"
    facts = [Fact("engines", "onnxruntime", value)]
    for module, name in ENGINES.items():
        imported = imports.get(module)
        if imported is None:
            facts.append(Fact("engines", name, NOT_INSTALLED))
            continue
        if imported.error is None:
            facts.append(Fact("engines", name, imported.version or "installed"))
            continue
        facts.append(Fact("engines", name, "does not import"))
        problems.append(
            Problem(
                f"{name} is installed and does not import: {imported.error}", f"pip install --force-reinstall {name}"
            )
        )
    return facts


def _export_facts(probes: Probes) -> list[Fact]:
    versions = probes.distributions()
    return [
        Fact("export", name, versions.get(name, "installed") if probes.has_module(module) else NOT_INSTALLED)
        for module, name in EXPORT.items()
    ]


def _runtime_problems(
    wheels: Mapping[str, str], runtime: Imported | None, probes: Probes, hardware: Hardware
) -> list[Problem]:
    install = install_runtime(probes, hardware)
    names = sorted(wheels)
    # an install line takes out what it would lie over; what is broken goes in any case
    again = install if "uninstall" in install or not names else f"pip uninstall -y {' '.join(names)} && {install}"
    if len(wheels) > 1:
        return [Problem(f"{' and '.join(names)} are both installed and overwrite each other's files", again)]
    if runtime is None:
        return [Problem("no inference engine is installed, so no bundle can run", install)]
    if runtime.error is not None:
        name = names[0] if names else "onnxruntime"
        return [Problem(f"{name} is installed and does not import: {runtime.error}", again)]
    if "onnxruntime-gpu" in wheels and "CUDAExecutionProvider" not in runtime.providers:
        return [
            Problem("onnxruntime-gpu is installed but has no CUDA provider: another wheel has overwritten it", again)
        ]
    return []


def _driver_problems(hardware: Hardware) -> list[Problem]:
    if hardware.silent_driver is None:
        return []
    return [
        Problem(
            f"the NVIDIA driver is loaded ({hardware.silent_driver}) but nvidia-smi does not answer",
            "restart the machine after a driver update; in a container, start it with --gpus all",
        )
    ]


def _check_bundle(folder: Path) -> tuple[Fact, Problem | None]:
    try:
        bundle = Bundle.open(folder)
    except BundleError as error:
        return Fact("bundle", str(folder), "cannot be used"), Problem(error.message, error.fix or "export it again")
    return Fact("bundle", str(folder), f"{bundle.model.name}, {len(bundle.manifest.files)} files, all intact"), None
