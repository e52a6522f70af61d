"""An environment for each peer, made once and kept, and what it takes on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.catalogue import REPOSITORY, Peer
from clipdeploy.bundle import write_text

_NOTE = "installed.json"
_INSTALLER = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
"""What an environment has for installing, and no peer of its own accord."""
_LONGEST_S = 1500


class NotInstalledError(Exception):
    """An environment that could not be made, and why."""


@dataclass(frozen=True)
class Venv:
    """An environment.

    Attributes:
        python: its interpreter.
        versions: of all that is installed, by name.
        installed_bytes: of all files that were installed, without pip, setuptools and wheel.
        largest: of the packages, by bytes: name -> bytes.
    """

    python: Path
    versions: dict[str, str]
    installed_bytes: int
    largest: dict[str, int]


def venv_of(peer: Peer, folder: Path) -> Venv:
    """The peer's environment in `folder`, made when it is not there or its requirements changed.

    Raises:
        NotInstalledError: its packages cannot be installed here; says what the installer said.
    """
    place = folder / peer.folder
    wanted = _wanted(peer)
    note = place / _NOTE
    if note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["wanted"] == wanted:
            return _venv(place, kept)
    print(f"installing {peer.name}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    _make(place, [one.format(repository=REPOSITORY) for one in peer.requirements])
    sizes = _sizes(_site_packages(place))
    largest = dict(sorted(sizes.items(), key=lambda item: -item[1])[:6])
    kept = {"wanted": wanted, "versions": _versions(place), "bytes": sum(sizes.values()), "largest": largest}
    write_text(note, json.dumps(kept, indent=2) + "\n")
    return _venv(place, kept)


def _venv(place: Path, kept: dict[str, Any]) -> Venv:
    return Venv(_python(place), kept["versions"], kept["bytes"], kept["largest"])


def _wanted(peer: Peer) -> list[str]:
    """The requirements, and of this repository what is in it."""
    return [*peer.requirements, *([_fingerprint(REPOSITORY / "clipdeploy")] if peer.ours else [])]


def _fingerprint(package: Path) -> str:
    """Of its source."""
    digest = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes())
    for file in sorted(package.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(package)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _make(place: Path, requirements: list[str]) -> None:
    """With uv where it is there, which keeps one copy of each package for all; else with pip."""
    python = str(_python(place))
    uv = shutil.which("uv") or _beside("uv")
    try:
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(place)])
            fresh = ["--refresh-package", "clipdeploy"]  # uv would take what it built of an earlier state
            _run([uv, "pip", "install", "--quiet", *fresh, "--python", python, *requirements])
        else:
            _run([sys.executable, "-m", "venv", str(place)])
            _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise NotInstalledError(_told(error)) from error


def _beside(name: str) -> str | None:
    """A program beside this interpreter, whose folder need not be on the path."""
    path = Path(sys.executable).parent / name
    return str(path) if path.is_file() else None


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST_S)


def _told(error: Exception) -> str:
    """The installer's own last words."""
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    lines = [line.strip() for line in str(error.stderr).splitlines() if line.strip()]
    return " ".join(lines)[-400:] or f"the installer ended with {error.returncode}"


def _python(place: Path) -> Path:
    return place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _site_packages(place: Path) -> Path:
    return next(place.glob("[Ll]ib/**/site-packages"))


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of what was installed, by its name in site-packages; what Python compiles later is not counted."""
    sizes: dict[str, int] = {}
    for entry in folder.iterdir():
        if entry.name.startswith(_INSTALLER) or entry.name.startswith(("_virtualenv", "__pycache__")):
            continue
        files = [entry] if entry.is_file() else (path for path in entry.rglob("*") if path.is_file())
        name = entry.name.removesuffix(".libs")
        sizes[name] = sizes.get(name, 0) + sum(path.stat().st_size for path in files if path.suffix != ".pyc")
    return sizes


def _versions(place: Path) -> dict[str, str]:
    script = (
        "import json, importlib.metadata as m;"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    )
    done = subprocess.run([str(_python(place)), "-c", script], check=True, capture_output=True, text=True, timeout=120)
    return dict(sorted(json.loads(done.stdout).items()))
