"""What an engine is to be built for, as a person names it: `tensorrt 10.3, sm_87`, `agx orin`, `rtx 4090`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from clipdeploy.engine.targets.devices import Module, gpu_capability, jetpack_facts, jetson_module, portable
from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import InputError

Version = tuple[int, ...]

_FORMS = '"tensorrt 10.3, sm_87", "tensorrt-rtx 1.7, sm_89", "agx orin", "jetpack 6", "thor", "rtx 4090"'
_RTX_LATEST = "1.7"
OLDEST: dict[EngineBackend, Version] = {"tensorrt": (10, 0), "tensorrt-rtx": (1, 0)}
"""Of each product, the first version that engines are built with."""
RENAMED = {"10.1": "11.0"}
"""Thor was called 10.1 up to CUDA 12 (https://www.mail-archive.com/gcc-patches@gcc.gnu.org/msg419655.html)."""
_PRODUCTS: dict[EngineBackend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}


@dataclass(frozen=True)
class EngineTarget:
    """A product, its version and the GPUs that an engine must run on.

    Attributes:
        backend: the product.
        version: as far as it was given, such as `(10, 3)`.
        compute_capabilities: ascending, such as `("8.7",)`.
        device: name of the Jetson module or GPU, None where none was given.
        jetpack: such as `6.1`, None where none was given.
        dla: whether the device has a deep learning accelerator; None where it is not known.
        assumed: what was not said and taken for granted, in sentences.
    """

    backend: EngineBackend
    version: Version
    compute_capabilities: tuple[str, ...]
    device: str | None = None
    jetpack: str | None = None
    dla: bool | None = None
    assumed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        backend: EngineBackend,
        version: str,
        compute_capabilities: tuple[str, ...],
        *,
        device: str | None = None,
        jetpack: str | None = None,
    ) -> EngineTarget:
        """The target of a product as it is installed, such as `10.3.0.30`, on a machine whose GPU is known."""
        module = jetson_module(device) if device else None
        return cls(
            backend=backend,
            version=read_version(version),
            compute_capabilities=_sorted(RENAMED.get(each, each) for each in compute_capabilities),
            device=device,
            jetpack=jetpack,
            dla=module.dla if module else None,
        )

    def __str__(self) -> str:
        capabilities = " ".join(f"sm_{each.replace('.', '')}" for each in self.compute_capabilities)
        parts = [f"{_PRODUCTS[self.backend]} {self.version_text}", capabilities]
        parts += [f"JetPack {self.jetpack}"] if self.jetpack else []
        return ", ".join(parts) + (f" ({self.device})" if self.device else "")

    @property
    def product(self) -> str:
        """The product as NVIDIA calls it."""
        return _PRODUCTS[self.backend]

    @property
    def version_text(self) -> str:
        """Such as `10.3`."""
        return ".".join(map(str, self.version))

    def since(self, first: Version) -> bool:
        """Whether the version is `first` or a later one; where the target says `10.3`, any 10.3 is meant."""
        return self.version >= first[: len(self.version)]

    def before(self, end: Version) -> bool:
        """Whether the version is earlier than `end`; where the target says `10.3`, some 10.3 may be."""
        return self.version < end


def parse_target(text: str) -> EngineTarget:
    """Read a target.

    Args:
        text: parts between commas, in any order: a product with its version (`tensorrt 10.3`, `tensorrt-rtx 1.7`),
            compute capabilities (`sm_87`, `8.6 8.9`), a JetPack (`jetpack 6.1`), or the name of a Jetson module or a
            GPU (`agx orin`, `rtx 4090`). A Jetson's or JetPack's TensorRT is that which comes with it, and an RTX
            desktop's product is TensorRT for RTX, where no other is named.

    Raises:
        InputError: something in it is not known, is missing, or contradicts the rest.
    """
    found = _Found()
    for part in re.split(r"[,;]", text):
        if part.strip():
            _read_part(part.strip(), found, text)
    return found.target(text)


def read_version(text: str) -> Version:
    """`10.3.0.30` as numbers; what stands behind them, such as `.post1`, is left out."""
    found = re.match(r"\d+(\.\d+)*", text)
    if found is None:
        raise InputError(f"{text!r} is no version", fix="write it as 10.3")
    return tuple(map(int, found[0].split(".")))


@dataclass
class _Found:
    """What was read so far."""

    backend: EngineBackend | None = None
    version: str | None = None
    capabilities: tuple[str, ...] = ()
    device: str | None = None
    module: Module | None = None
    jetpack: str | None = None

    def target(self, text: str) -> EngineTarget:
        """All of it, with what goes without saying."""
        assumed: list[str] = []
        jetpack = self.jetpack or (self.module.jetpack if self.module else None)
        facts = jetpack_facts(jetpack) if jetpack else None
        if self.module is not None and self.module.jetpack is None:
            raise InputError(
                f"target {text!r}: {self.module.name} (sm_{self.module.compute_capability.replace('.', '')}) stops at "
                "JetPack 5, whose TensorRT 8 builds no strongly typed network",
                fix="run the bundle there with ONNX Runtime, or take a Jetson Orin",
            )
        if self.backend is None:
            self.backend = "tensorrt-rtx" if self._is_rtx_desktop() else "tensorrt"
        if self.version is None:
            self.version = self._version(text, jetpack, facts, assumed)
        capabilities = self.capabilities or self._capabilities(text, facts, assumed)
        target = EngineTarget(
            backend=self.backend,
            version=read_version(self.version),
            compute_capabilities=_sorted(_renamed(each, assumed) for each in capabilities),
            device=self.module.name if self.module else self.device,
            jetpack=self.jetpack,
            dla=self._dla(),
        )
        oldest = OLDEST[target.backend]
        if target.version < oldest[: len(target.version)]:
            raise InputError(
                f"target {text!r}: {target.product} {target.version_text} is too old; engines are built with "
                f"{'.'.join(map(str, oldest))} or later",
                fix="install JetPack 6.1 or later on an Orin, or name a later version",
            )
        return replace(target, assumed=tuple(assumed))

    def _version(self, text: str, jetpack: str | None, facts: tuple[str, str] | None, assumed: list[str]) -> str:
        if self.backend == "tensorrt-rtx":
            assumed.append(f"TensorRT for RTX {_RTX_LATEST} is taken, since no version was named")
            return _RTX_LATEST
        if facts is None:
            what = f"nothing is known of the TensorRT of JetPack {jetpack}" if jetpack else "the version is missing"
            raise InputError(
                f"target {text!r}: {what}", fix=f'say which TensorRT: --target "tensorrt 10.3, {text.strip()}"'
            )
        assumed.append(f"JetPack {jetpack} brings TensorRT {facts[0]}")
        return facts[0]

    def _capabilities(self, text: str, facts: tuple[str, str] | None, assumed: list[str]) -> tuple[str, ...]:
        if self.module is not None:
            return (self.module.compute_capability,)
        if self.jetpack and facts is not None:
            assumed.append(f"JetPack {self.jetpack} runs on sm_{facts[1].replace('.', '')}")
            return (facts[1],)
        if self.backend == "tensorrt-rtx":
            taken = portable(read_version(self.version or _RTX_LATEST))
            names = " ".join(f"sm_{each.replace('.', '')}" for each in taken)
            assumed.append(f"an engine for {names} is taken, since no GPU was named")
            return taken
        raise InputError(
            f"target {text!r}: the GPU is missing", fix=f'add its compute capability: --target "{text.strip()}, sm_87"'
        )

    def _is_rtx_desktop(self) -> bool:
        return (
            self.version is None
            and bool(self.device)
            and bool(re.match(r"(?i)(nvidia |geforce )*rtx", self.device or ""))
        )

    def _dla(self) -> bool | None:
        if self.module is not None:
            return self.module.dla
        orin = "8.7" in self.capabilities or (self.jetpack or "").startswith("6")
        return None if orin else False


def _read_part(part: str, found: _Found, text: str) -> None:
    product = re.fullmatch(r"(?i)(tensorrt|trt)([ _-]?(for[ _-])?rtx)?[ =_-]*v?(\d+(?:\.\d+)*)?", part)
    jetpack = re.fullmatch(r"(?i)(jetpack|jp)[ _-]*v?(\d+(?:\.\d+)*)", part)
    capabilities = _read_capabilities(part)
    if product:
        found.backend = "tensorrt-rtx" if product[2] else "tensorrt"
        found.version = product[4]
    elif jetpack:
        found.jetpack = jetpack[2]
    elif capabilities:
        found.capabilities += capabilities
    elif (module := jetson_module(part)) is not None:
        found.module = module
    elif (capability := gpu_capability(part)) is not None:
        found.device = part
        found.capabilities += (capability,)
    else:
        raise InputError(f"target {text!r}: {part!r} is not known", fix=f"write it like one of {_FORMS}")


def _read_capabilities(part: str) -> tuple[str, ...]:
    """`sm_87`, `sm87`, `8.7` or several of them; empty where something else stands there."""
    read = []
    for word in part.lower().split():
        found = re.fullmatch(r"(?:sm|compute)_?(\d{1,2})(\d)[af]?|(\d{1,2})\.(\d)", word)
        if found is None:
            return ()
        major, minor = found[1] or found[3], found[2] or found[4]
        read.append(f"{int(major)}.{minor}")
    return tuple(read)


def _renamed(capability: str, assumed: list[str]) -> str:
    if capability in RENAMED:
        new = RENAMED[capability]
        assumed.append(
            f"sm_{capability.replace('.', '')} is Thor, which is called sm_{new.replace('.', '')} since CUDA 13"
        )
        return new
    return capability


def _sorted(capabilities: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(capabilities), key=read_version))
