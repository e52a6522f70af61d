"""How the machine is looked at: a record of small functions, which tests replace to play another machine."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TIMEOUT_S = 60

_IMPORT = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
providers, broken = [], {}
if hasattr(module, "get_available_providers"):
    from clipdeploy.machine.provider_libraries import broken_providers
    providers, broken = module.get_available_providers(), broken_providers(module)
elif hasattr(module, "Core"):
    providers = module.Core().available_devices
version = getattr(module, "__version__", None)
print()
print(json.dumps({"version": version, "providers": list(providers), "broken": broken}))
"""


@dataclass(frozen=True)
class Imported:
    """What came of importing a module.

    Attributes:
        error: the last line of what went wrong, None when it went well.
        version: as the module states it.
        providers: the execution providers of onnxruntime, or the devices of openvino; empty for another module.
        broken: of these the providers whose libraries do not load -> what the dynamic linker says.
    """

    error: str | None = None
    version: str | None = None
    providers: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Probes:
    """What can be asked of a machine.

    Attributes:
        system: `Linux`, `Darwin` or `Windows`.
        machine: `x86_64`, `aarch64`, `arm64` ...
        platform: a line for people.
        python: version of the interpreter.
        executable: its path.
        cpus: cores this process may use.
        distributions: name (lower case, dashes) -> version of every installed distribution.
        has_module: whether a module of that name could be imported, without importing it.
        try_import: import a module in another process, where a crash does no harm.
        read: content of a text file, None when there is none.
        run: stdout of a command, None when there is no such command or it fails.
        environment: the process's environment variables.
        processors: the numbers of those that this process may use; empty where the system does not tell.
    """

    system: str
    machine: str
    platform: str
    python: str
    executable: str
    cpus: int
    distributions: Callable[[], Mapping[str, str]]
    has_module: Callable[[str], bool]
    try_import: Callable[[str], Imported]
    read: Callable[[str], str | None]
    run: Callable[[Sequence[str]], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    processors: tuple[int, ...] = ()


def this_machine() -> Probes:
    """The probes of the machine this runs on."""
    return Probes(
        system=platform.system(),
        machine=platform.machine(),
        platform=platform.platform(),
        python=platform.python_version(),
        executable=sys.executable,
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        distributions=_distributions,
        has_module=lambda name: importlib.util.find_spec(name) is not None,
        try_import=_try_import,
        read=_read,
        run=_run,
        environment=dict(os.environ),
        processors=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
    )


def _distributions() -> dict[str, str]:
    import importlib.metadata  # brings Python's email along: 20 ms, which a start need not wait for

    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # A half-removed package leaves metadata without a name or a version.
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:
            found.setdefault(name.lower().replace("_", "-"), version)
    return found


def _try_import(module: str) -> Imported:
    command = [sys.executable, "-c", _IMPORT, module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Imported(error=f"the import did not end within {_TIMEOUT_S} s")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return Imported(error=lines[-1] if lines else f"the import ended Python with code {done.returncode}")
    data = json.loads(done.stdout.splitlines()[-1])
    return Imported(version=data["version"], providers=tuple(data["providers"]), broken=data["broken"])


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _run(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
