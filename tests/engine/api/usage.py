"""What our code asks of a TensorRT, read from its source and compared with the recorded API of one version.

Types are followed from the product's module through calls, attributes, arguments and results, with the records telling
what each call answers. A branch that this version never takes (`if product.rtx`, `if hasattr(x, "name")`) is passed
over, so that a guarded call is not held against a version that lacks it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.api import Api, Signature

MODULE, CLASS, METHOD, OWN, LIST, TUPLE = "module", "class", "method", "own", "list", "tuple"
Type = tuple[str, ...] | None
"""`("module",)`, `("class", K)`, `("method", K, name)`, `("of", K)`, `("own", K)` of our subclass, `("list", K)`."""

BY_NAME: dict[str, Type] = {
    "module": (MODULE,),
    "builder": ("of", "Builder"),
    "network": ("of", "INetworkDefinition"),
    "parser": ("of", "OnnxParser"),
    "config": ("of", "IBuilderConfig"),
    "engine": ("of", "ICudaEngine"),
    "context": ("of", "IExecutionContext"),
    "runtime": ("of", "Runtime"),
    "refitter": ("of", "Refitter"),
    "inspector": ("of", "EngineInspector"),
    "logger": (OWN, "ILogger"),
}
"""What a parameter or attribute of that name is, where it is annotated `Any` and nothing else tells."""


HOLDERS = ("product", "loaded", "engines")
"""What has the product's module as its `module`."""
IMPORTS = ("load", "import_product")
"""What gives the product's module."""


@dataclass(frozen=True, order=True)
class Problem:
    """A use that the version does not have."""

    place: str
    api: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.api}: {self.text}"


@dataclass
class Usage:
    """What was found: problems, uses that could be followed, and those of telling names that could not."""

    problems: set[Problem] = field(default_factory=set)
    uses: set[tuple[str, str]] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)


def examine(paths: Iterable[Path], api: Api, *, root: Path | None = None) -> Usage:
    """Compare the source files with one version."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}
    package = _Package(api, trees)
    usage = Usage()
    for _ in range(5):  # until what calls tell of each other is told; five is more than it takes
        usage = Usage()
        for path, tree in trees.items():
            _Reader(package, usage, str(path.relative_to(root)) if root else path.name).read(tree)
    return usage


class _Package:
    """What the functions, classes and attributes of our own code hold of the product."""

    def __init__(self, api: Api, trees: dict[Path, ast.Module]) -> None:
        self.api = api
        self.functions: dict[str, ast.FunctionDef] = {}
        self.fields: dict[str, list[str]] = {}
        self.parameters: dict[tuple[str, str], set[Type]] = defaultdict(set)
        self.results: dict[str, set[Type]] = defaultdict(set)
        self.attributes: dict[str, set[Type]] = defaultdict(set)
        self.own_names: set[str] = set()
        for tree in trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self.functions[node.name] = node
                    self.own_names.add(node.name)
                elif isinstance(node, ast.ClassDef):
                    names = [
                        s.target.id
                        for s in node.body
                        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
                    ]
                    self.fields[node.name] = names
                    self.own_names.update(names)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    self.own_names.add(node.attr)
        members = {name for kind in api.kinds.values() for name in kind.own if not name.startswith("_")}
        self.telling = {name for name in members if "_" in name} - self.own_names


class _Reader:
    """Reads one file."""

    def __init__(self, package: _Package, usage: Usage, name: str) -> None:
        self.package, self.usage, self.api, self.name = package, usage, package.api, name

    def read(self, tree: ast.Module) -> None:
        self.block(tree.body, {})

    def complain(self, node: ast.AST, text: str) -> None:
        self.usage.problems.add(Problem(f"{self.name}:{getattr(node, 'lineno', 0)}", self.api.name, text))

    # statements

    def block(self, body: list[ast.stmt], env: dict[str, Type]) -> bool:
        """Whether the block surely ends the function."""
        return any(self.statement(statement, env) for statement in body)

    def statement(self, node: ast.stmt, env: dict[str, Type]) -> bool:
        if isinstance(node, ast.FunctionDef):
            self.function(node, dict(env))
        elif isinstance(node, ast.ClassDef):
            self.klass(node, env)
        elif isinstance(node, ast.If):
            return self.branch(node, env)
        elif isinstance(node, (ast.Return, ast.Raise)):
            if isinstance(node, ast.Return) and node.value is not None:
                env.setdefault("return of", None)
                self.results_of(env).add(self.infer(node.value, env))
            else:
                self.visit(node, env)
            return True
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            value = self.infer(node.value, env) if node.value is not None else None
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in IMPORTS:
                value = (MODULE,)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self.assign(target, value, env)
        elif isinstance(node, (ast.For, ast.While)):
            if isinstance(node, ast.For):
                self.assign(node.target, _element(self.infer(node.iter, env)), env)
            else:
                self.infer(node.test, env)
            self.block(node.body + node.orelse, env)
        elif isinstance(node, ast.With):
            for item in node.items:
                value = self.infer(item.context_expr, env)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, value, env)
            return self.block(node.body, env)
        elif isinstance(node, ast.Try):
            self.block(node.body + [s for handler in node.handlers for s in handler.body], env)
            self.block(node.orelse + node.finalbody, env)
        else:
            self.visit(node, env)
        return False

    def branch(self, node: ast.If, env: dict[str, Type]) -> bool:
        self.infer(node.test, env)
        taken = self.decide(node.test, env)
        if taken is not None:
            return self.block(node.body if taken else node.orelse, env)
        first, second = self.block(node.body, env), self.block(node.orelse, env)
        return first and second and bool(node.orelse)

    def results_of(self, env: dict[str, Type]) -> set[Type]:
        return self.package.results[(env.get("the function") or ("",))[0]]

    def function(self, node: ast.FunctionDef, env: dict[str, Type], base: str | None = None) -> None:
        env["the function"] = (node.name,)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            told = self.package.parameters[(node.name, argument.arg)] - {None}
            anything = argument.annotation is None or ast.unparse(argument.annotation) in ("Any", "ModuleType")
            env[argument.arg] = next(iter(sorted(told)), None) or (BY_NAME.get(argument.arg) if anything else None)
        if base is not None and node.args.args:
            env[node.args.args[0].arg] = (OWN, base)
        self.block(node.body, env)

    def klass(self, node: ast.ClassDef, env: dict[str, Type]) -> None:
        base = next((t[1] for b in node.bases if (t := self.infer(b, env)) is not None and t[0] == CLASS), None)
        inner = dict(env)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                if base is not None:
                    self.override(statement, base)
                self.function(statement, dict(inner), base)
            else:
                self.statement(statement, inner)
        if base is not None:
            env[node.name] = (OWN, "class", base)

    def override(self, node: ast.FunctionDef, base: str) -> None:
        """A method of ours that the product calls must take what it is called with."""
        member = self.api.member(base, node.name)
        if member is None or not member.signatures or node.name == "__init__":
            return
        takes = len(node.args.args) - 1
        if all(s.parameters is not None and len(s.parameters) != takes for s in member.signatures):
            self.complain(node, f"{base}.{node.name} is called with {member.signatures[0].parameters}, takes {takes}")
        self.usage.uses.add((base, node.name))

    def assign(self, target: ast.expr, value: Type, env: dict[str, Type]) -> None:
        if isinstance(target, ast.Name):
            env[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = value[1:] if value is not None and value[0] == TUPLE else ()
            for index, part in enumerate(target.elts):
                self.assign(part, _unpacked(parts, index), env)
        elif isinstance(target, ast.Attribute):
            owner = self.infer(target.value, env)
            if owner is not None and owner[0] == "of":
                self.write(target, owner[1])
            elif value is not None:
                self.package.attributes[target.attr].add(value)
        else:
            self.visit(target, env)

    def write(self, target: ast.Attribute, kind: str) -> None:
        self.usage.uses.add((kind, target.attr))
        member = self.api.member(kind, target.attr)
        if member is None:
            self.complain(target, f"{kind} has no {target.attr}")
        elif not member.writable:
            self.complain(target, f"{kind}.{target.attr} cannot be set")

    # conditions that a version decides

    def decide(self, test: ast.expr, env: dict[str, Type]) -> bool | None:
        """What a condition is in this version; None where it depends on more."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inside = self.decide(test.operand, env)
            return None if inside is None else not inside
        if isinstance(test, ast.BoolOp):
            parts = [self.decide(value, env) for value in test.values]
            end = isinstance(test.op, ast.Or)
            if end in parts:
                return end
            return None if None in parts else not end
        if isinstance(test, ast.Attribute) and test.attr == "rtx":
            return self.api.rtx
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
            said = ast.unparse(test)
            if "backend" in said and ("'tensorrt'" in said or "'tensorrt-rtx'" in said):
                same = ("'tensorrt-rtx'" in said) == self.api.rtx
                return same == isinstance(test.ops[0], ast.Eq)
        if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr":
            owner, name = self.infer(test.args[0], env), test.args[1]
            if owner is not None and isinstance(name, ast.Constant):
                return self.has(owner, str(name.value))
        return None

    def has(self, owner: Type, name: str) -> bool:
        assert owner is not None
        return self.api.top(name) if owner[0] == MODULE else self.api.member(owner[-1], name) is not None

    # expressions

    def visit(self, node: ast.AST, env: dict[str, Type]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.infer(child, env)
            elif isinstance(child, ast.stmt):
                self.statement(child, env)
            else:
                self.visit(child, env)

    def infer(self, node: ast.expr, env: dict[str, Type]) -> Type:
        """What an expression is; every use inside it is checked on the way."""
        if isinstance(node, ast.Name):
            return env.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, env)
        if isinstance(node, ast.Call):
            return self.call(node, env)
        if isinstance(node, (ast.Tuple, ast.List)):
            return _packed([self.infer(part, env) for part in node.elts])
        if isinstance(node, ast.IfExp):
            self.infer(node.test, env)
            taken = self.decide(node.test, env)
            parts = [node.body] * (taken is not False) + [node.orelse] * (taken is not True)
            return next((t for t in [self.infer(part, env) for part in parts] if t is not None), None)
        if isinstance(node, ast.BoolOp):
            return next((t for t in [self.infer(part, env) for part in node.values] if t is not None), None)
        if isinstance(node, ast.NamedExpr):
            value = self.infer(node.value, env)
            self.assign(node.target, value, env)
            return value
        if isinstance(node, ast.Subscript):
            owner = self.infer(node.value, env)
            self.infer(node.slice, env)
            return _element(owner)
        if isinstance(node, ast.Yield):
            if node.value is not None:
                self.results_of(env).add(self.infer(node.value, env))
            return None
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):
            inner = self.comprehension(node.generators, env)
            element = self.infer(node.elt, inner)
            return (LIST, *element[1:]) if element is not None and element[0] == "of" else None
        if isinstance(node, ast.DictComp):
            inner = self.comprehension(node.generators, env)
            self.infer(node.key, inner)
            self.infer(node.value, inner)
            return None
        if isinstance(node, ast.Lambda):
            self.infer(node.body, dict(env))
            return None
        self.visit(node, env)
        return None

    def comprehension(self, generators: list[ast.comprehension], env: dict[str, Type]) -> dict[str, Type]:
        inner = dict(env)
        for generator in generators:
            self.assign(generator.target, _element(self.infer(generator.iter, inner)), inner)
            for test in generator.ifs:
                self.infer(test, inner)
        return inner

    def attribute(self, node: ast.Attribute, env: dict[str, Type]) -> Type:
        owner = self.infer(node.value, env)
        if owner is None or owner[0] in (METHOD, LIST, TUPLE, "function"):
            return self.own_attribute(node)
        return self.member(node, owner, node.attr)

    def own_attribute(self, node: ast.Attribute) -> Type:
        if node.attr == "module":  # a Jetson has one too
            return (MODULE,) if ast.unparse(node.value).rpartition(".")[2] in HOLDERS else None
        told = self.package.attributes[node.attr] - {None}
        if not told and node.attr in self.package.telling:
            self.usage.blind.add(f"{self.name}:{node.lineno}: {ast.unparse(node)}")
        return next(iter(sorted(told)), None)

    def member(self, node: ast.AST, owner: tuple[str, ...], name: str) -> Type:
        api = self.api
        if owner[0] == MODULE:
            if name.startswith("__"):
                return None
            self.usage.uses.add((MODULE, name))
            if not api.top(name):
                self.complain(node, f"the module has no {name}")
                return None
            if name in api.constants:
                return ("of", api.constants[name].rpartition(".")[0])
            return (CLASS, name) if name in api.kinds else ("function", name)
        kind = owner[-1]
        if f"{kind}.{name}" in api.kinds:
            return (CLASS, f"{kind}.{name}")
        if name.startswith("__"):
            return None
        member = api.member(kind, name)
        if member is None:
            if owner[0] == OWN:
                return next(iter(sorted(self.package.attributes[name] - {None})), None)
            self.complain(node, f"{kind} has no {name}")
            return None
        self.usage.uses.add((kind, name))
        if member.signatures:
            return (METHOD, kind, name)
        return self.told(member.kind)

    def told(self, text: str) -> Type:
        """A type as the records write it."""
        if text in self.api.kinds:
            return ("of", text)
        inside = text.removeprefix("list[").removesuffix("]")
        return (LIST, inside) if inside != text and inside in self.api.kinds else None

    def call(self, node: ast.Call, env: dict[str, Type]) -> Type:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            return self.by_name(node, env)
        called = self.infer(node.func, env)
        given = [self.infer(a.value if isinstance(a, ast.Starred) else a, env) for a in node.args]
        named = {k.arg: self.infer(k.value, env) for k in node.keywords}
        if called is None or called[0] in (LIST, TUPLE):
            return self.own_call(node, given, named)
        if called[0] == OWN:
            return (OWN, called[-1])
        if called[0] == CLASS:
            init = self.api.member(called[1], "__init__")
            self.arguments(node, called[1], init.signatures if init else ())
            return ("of", called[1])
        if called[0] == METHOD:
            member = self.api.member(called[1], called[2])
            assert member is not None
            self.arguments(node, f"{called[1]}.{called[2]}", member.signatures)
            return self.told(member.signatures[0].answer)
        if called[0] == "function":
            self.arguments(node, called[1], self.api.functions[called[1]])
        return None

    def by_name(self, node: ast.Call, env: dict[str, Type]) -> Type:
        """`getattr(x, "name", None)` asks, and is held against nobody; without a default it is a use."""
        owner = self.infer(node.args[0], env)
        assert isinstance(node.func, ast.Name)
        name = node.args[1]
        if node.func.id == "hasattr" or owner is None or not isinstance(name, ast.Constant):
            for argument in node.args[1:]:
                self.infer(argument, env)
            return None
        if len(node.args) == 3 and not self.has(owner, str(name.value)):
            return None
        return self.member(node, owner, str(name.value))

    def arguments(self, node: ast.Call, label: str, signatures: tuple[Signature, ...]) -> None:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            return
        keywords = tuple(k.arg for k in node.keywords if k.arg is not None)
        problems = [signature.problem(len(node.args), keywords) for signature in signatures]
        if problems and None not in problems:
            self.complain(node, f"{label}: " + "; or ".join(str(p) for p in problems))

    def own_call(self, node: ast.Call, given: list[Type], named: dict[str | None, Type]) -> Type:
        """A call of ours: what goes in is remembered of the function, and what it answers is known."""
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        package = self.package
        if name in ("list", "tuple", "sorted", "iter", "reversed") and given:
            return given[0]
        if name == "next" and given:
            return _element(given[0])
        if package.fields.get(name):
            for label, value in (*zip(package.fields[name], given, strict=False), *named.items()):
                if value is not None and label is not None:
                    package.attributes[label].add(value)
            return None
        function = package.functions.get(name if name not in package.fields else "__init__")
        if function is not None:
            names = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
            for label, value in (*zip(names, given, strict=False), *named.items()):
                if value is not None and label is not None:
                    package.parameters[(function.name, label)].add(value)
        return next(iter(sorted(package.results[name] - {None})), None)


def _element(kind: Type) -> Type:
    if kind is not None and kind[0] == LIST:
        return ("of", kind[1])
    if kind is not None and kind[0] == CLASS:  # an enumeration's members
        return ("of", kind[1])
    return None


def _packed(parts: list[Type]) -> Type:
    return (TUPLE, *("/".join(part) if part else "" for part in parts)) if any(parts) else None


def _unpacked(parts: tuple[str, ...], index: int) -> Type:
    return tuple(parts[index].split("/")) if index < len(parts) and parts[index] else None
