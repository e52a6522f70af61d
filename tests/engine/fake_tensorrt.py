"""TensorRT of the imagination, as strict as the real one: modules made from the recorded API of each version.

    module = make("tensorrt-10.3.0", cuda=FakeCuda())

A name that the version does not have is an AttributeError; an argument too many, a wrong keyword or a wrong type a
TypeError, as from the real bindings. A method that the records know and `Acts` does not act out is a
NotImplementedError. What was touched is kept in `used(module)`.

An engine is the ONNX file itself, which ONNX Runtime computes in the GPU's stead (`tests/fake_gpu.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tests.engine.api import Api, Kind, Member, Parameter, Signature, load
from tests.engine.fake_running import Acts
from tests.fake_gpu import FakeCuda

SIMPLE: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: hasattr(value, "__index__") and not isinstance(value, str),
    "float": lambda value: isinstance(value, (int, float)),
    "str": lambda value: isinstance(value, str),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "list[int]": lambda value: isinstance(value, (list, tuple)),
    "list[str]": lambda value: isinstance(value, (list, tuple)),
}
ZERO: dict[str, Any] = {"int": 0, "bool": False, "float": 0.0, "str": ""}


def make(name: str, *, cuda: FakeCuda | None = None) -> ModuleType:
    """The module of a recorded version; `cuda` is its GPU, None for a machine without one."""
    return _Maker(load(name), cuda).module


def used(module: Any) -> set[str]:
    """What was called or read of the module's classes, such as `Builder.create_network`."""
    found: set[str] = module._maker.used
    return found


class _Maker:
    """Makes the classes of one version."""

    def __init__(self, api: Api, cuda: FakeCuda | None) -> None:
        self.api = api
        self.used: set[str] = set()
        self.classes: dict[str, Any] = {}
        self.module: Any = ModuleType("tensorrt_rtx" if api.rtx else "tensorrt")
        self.module.__version__ = api.version
        self.module.__spec__ = ModuleSpec(self.module.__name__, None)  # so that it counts as installed
        self.module._maker = self
        self.acts = Acts(api, self.new, self.classes, cuda)
        for kind in api.kinds.values():
            if kind.members:
                self.classes[kind.name] = self._enum(kind)
        waiting = [kind for kind in api.kinds.values() if not kind.members]
        while waiting:  # a class after those it is made from
            kind = waiting.pop(0)
            if all(base in self.classes or base not in api.kinds for base in kind.bases):
                self.classes[kind.name] = self._class(kind)
            else:
                waiting.append(kind)
        for dotted, made in self.classes.items():
            outer, _, inner = dotted.rpartition(".")
            setattr(self.classes[outer] if outer else self.module, inner, made)
        for kind in api.kinds.values():
            for member, told in kind.own.items():
                if told.kind in self.classes and member.isupper() and not told.signatures:
                    setattr(self.classes[kind.name], member, self.classes[told.kind][member])
        for constant, text in api.constants.items():
            enum, _, member = text.rpartition(".")
            setattr(self.module, constant, self.classes[enum][member])
        self.module.volume = self.acts.volume
        self.module.nptype = self.acts.nptype

    def new(self, kind: str, *content: bytes, **state: Any) -> Any:
        """An object that TensorRT itself makes; `content` is that of an IHostMemory."""
        made = self.classes[kind].__new__(self.classes[kind], *content)
        object.__setattr__(made, "_state", state)
        return made

    def _enum(self, kind: Kind) -> Any:
        class Numbered(Enum):
            def __int__(self) -> int:
                return int(self.value)

            def __index__(self) -> int:
                return int(self.value)

        made: Any = Numbered(kind.name.rpartition(".")[2], kind.members)  # type: ignore[call-overload]
        return made

    def _class(self, kind: Kind) -> Any:
        body: dict[str, Any] = {"__init__": self._init(kind), "__setattr__": _refusing(kind.name)}
        for name, member in kind.own.items():
            if name == "__init__" or name in ("__enter__", "__exit__"):
                continue
            if name.startswith("__"):
                body[name] = _dunder(self.acts, kind.name, name)
            elif member.signatures:
                method = self._method(kind.name, name, member.signatures)
                body[name] = staticmethod(method) if member.signatures[0].static else method
            else:
                body[name] = self._property(kind.name, name, member)
        bases = tuple(self.classes[base] for base in kind.bases if base in self.classes)
        if kind.name == "IHostMemory":
            bases = (bytes,)  # what Python 3.10 lets be read as memory
        return type(kind.name, bases or (object,), body)

    def _init(self, kind: Kind) -> Callable[..., None]:
        signatures = kind.own["__init__"].signatures if "__init__" in kind.own else ()
        maker = self

        def init(this: Any, *args: Any, **keywords: Any) -> None:
            if all(signature.parameters is not None and signature.answer == "Any" for signature in signatures):
                raise TypeError(f"{kind.name}: No constructor defined!")
            values = maker.bind(f"{kind.name}.__init__", signatures, args, keywords)
            object.__setattr__(this, "_state", {})
            maker.acts.act(f"{kind.name}.__init__", this, values)

        return init

    def _method(self, kind: str, name: str, signatures: tuple[Signature, ...]) -> Callable[..., Any]:
        maker, label = self, f"{kind}.{name}"

        def method(this: Any, *args: Any, **keywords: Any) -> Any:
            maker.used.add(label)
            values = maker.bind(label, signatures, args, keywords)
            return maker.acts.act(label, this, values)

        return method

    def _property(self, kind: str, name: str, member: Member) -> property:
        maker, label = self, f"{kind}.{name}"

        def read(this: Any) -> Any:
            maker.used.add(label)
            if name in this._state:
                return this._state[name]
            enum = maker.api.kinds.get(member.kind)
            if enum is not None and enum.members:
                return next(iter(maker.classes[member.kind]))
            if maker.acts.knows(label):
                return maker.acts.act(label, this, {})
            if member.kind in ZERO:
                return ZERO[member.kind]
            return None

        def write(this: Any, value: Any) -> None:
            maker.used.add(label)
            if not maker.fits(Parameter(name, member.kind, None), value):
                raise TypeError(f"{label} takes {member.kind}, not {value!r}")
            this._state[name] = value

        return property(read, write if member.writable else None)

    def bind(
        self, label: str, signatures: tuple[Signature, ...], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> dict[str, Any]:
        """The arguments by name, for the first way to call it that fits; TypeError as the real bindings raise."""
        problems = []
        for signature in signatures:
            problem = signature.problem(len(args), tuple(keywords))
            parameters = signature.parameters or ()
            if problem is None:
                given = {**{p.name: value for p, value in zip(parameters, args, strict=False)}, **keywords}
                wrong = [p for p in parameters if p.name in given and not self.fits(p, given[p.name])]
                if not wrong:
                    return {p.name: given[p.name] if p.name in given else self._default(p) for p in parameters}
                problem = ", ".join(f"{p.name} must be {p.kind}, not {given[p.name]!r}" for p in wrong)
            problems.append(problem)
        raise TypeError(f"{label}(): incompatible function arguments: {'; or '.join(problems)}")

    def fits(self, parameter: Parameter, value: Any) -> bool:
        """Whether the bindings would take `value` there."""
        kind = parameter.kind
        if value is None and parameter.default == "None":
            return True
        if kind in SIMPLE:
            return SIMPLE[kind](value)
        if kind == "buffer":
            return _is_buffer(value)
        if kind == "Dims":
            return isinstance(value, self.classes["Dims"]) or (
                isinstance(value, (tuple, list)) and all(hasattr(size, "__index__") for size in value)
            )
        if kind in self.classes:
            made = isinstance(value, self.classes[kind])
            if made and not isinstance(value, Enum) and "_state" not in value.__dict__:
                raise TypeError(f"{kind}.__init__() must be called when overriding __init__")
            return made
        return True

    def _default(self, parameter: Parameter) -> Any:
        text = parameter.default or "None"
        enum, _, member = text.rpartition(".")
        enum = next((name for name in self.classes if name.rpartition(".")[2] == enum), "")
        if enum:
            return self.classes[enum][member]
        return None if text == "None" else int(text)


def _refusing(kind: str) -> Callable[[Any, str, Any], None]:
    """Objects of the bindings take no attribute of one's own, unless one's own class is made from theirs."""

    def set_attribute(this: Any, name: str, value: Any) -> None:
        own = type(this).__module__ != __name__
        if not own and not isinstance(getattr(type(this), name, None), property):
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        object.__setattr__(this, name, value)

    return set_attribute


def _dunder(acts: Acts, kind: str, name: str) -> Callable[..., Any]:
    def method(this: Any, *args: Any) -> Any:
        return acts.act(f"{kind}.{name}", this, {"args": args})

    return method


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return hasattr(value, "__buffer__")
    return not isinstance(value, str)
