"""A digest of a formula: of everything its numbers depend on, and of nothing else.

A certificate keeps it, so that a test can say when a formula has changed since.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def source_digest(*roots: Any, without: tuple[ModuleType, ...] = ()) -> str:
    """Return the SHA-256 of what :func:`reached` finds."""
    found = sorted(reached(*roots, without=without).items())
    text = "\n".join(f"{name}\n{content}" for name, content in found)
    return hashlib.sha256(text.encode()).hexdigest()


def reached(*roots: Any, without: tuple[ModuleType, ...] = ()) -> dict[str, str]:
    """Return the sources of the functions and the values of the constants that ``roots`` use.

    Names are followed through globals, closures, defaults, containers and attributes of modules,
    however long the chain. Functions of other packages count by their names alone, and so do those
    of the modules in ``without``. Comments, docstrings, annotations, decorators and the module in
    which something stands do not count: they change no number.
    """
    packages = {_package(root) for root in roots} | {__name__.partition(".")[0]}
    return _Reached(packages, {module.__name__ for module in without}).of(roots)


class _Reached:
    """The walk: what it has found, by name, and what it still has to look at."""

    def __init__(self, packages: set[str], without: set[str]) -> None:
        self._packages, self._without = packages, without
        self._found: dict[str, str] = {}
        self._seen: set[int] = set()

    def of(self, roots: tuple[Any, ...]) -> dict[str, str]:
        for root in roots:
            self._visit("", root)
        return self._found

    def _visit(self, name: str, value: Any) -> None:
        """Take note of a value that is known by a name, and of what it reaches."""
        if isinstance(value, functools.partial):
            self._visit(name, value.func)
            self._visit(f"{name} arguments", (value.args, value.keywords))
            return
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, MethodType):
            value = value.__func__
        if isinstance(value, (FunctionType, type)):
            self._visit_source(value)
        elif name and not isinstance(value, (ModuleType, BuiltinFunctionType)):
            self._note(name, self._written(name, value))

    def _note(self, name: str, content: str) -> None:
        """Keep both of two things that have one name."""
        while self._found.get(name, content) != content:
            name += "'"
        self._found[name] = content

    def _visit_source(self, value: FunctionType | type) -> None:
        if id(value) in self._seen or not self._is_ours(value.__module__ or ""):
            return
        self._seen.add(id(value))
        tree = _normalised(value)
        scope: dict[str, Any] = {}
        for function in _functions_of(value):
            scope |= _scope(function)
        chains = sorted(set(_chains(tree)))
        self._note(
            value.__qualname__, ast.unparse(_WithoutModules(self._modules(scope)).visit(tree))
        )
        for chain in chains:
            self._follow(chain, scope)
        for function in _functions_of(value):
            for defaults in filter(None, (function.__defaults__, function.__kwdefaults__)):
                self._visit(f"{function.__qualname__} defaults", defaults)
        if isinstance(value, type):
            for name, attribute in vars(value).items():
                if not name.startswith("_") and _method(attribute) is None:
                    self._visit(f"{value.__qualname__}.{name}", attribute)
            for base in value.__bases__:
                self._visit(base.__qualname__, base)

    def _modules(self, scope: Mapping[str, Any]) -> set[str]:
        """Return the names under which modules of these packages are known."""
        modules = {n: v.__name__ for n, v in scope.items() if isinstance(v, ModuleType)}
        return {n for n, full in modules.items() if full.partition(".")[0] in self._packages}

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages and module not in self._without

    def _follow(self, chain: tuple[str, ...], scope: Mapping[str, Any]) -> None:
        """Visit what a name or a chain of attributes stands for, as far as it is modules."""
        root, *attributes = chain
        if root not in scope:
            return
        value, name = scope[root], root
        for attribute in attributes:
            if not isinstance(value, ModuleType):
                break
            if not self._is_ours(value.__name__):
                return
            value, name = getattr(value, attribute, value), attribute
        self._visit(name, value)

    def _written(self, name: str, value: Any) -> str:
        """Write a constant, so that equal ones are written equally."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(self._written(name, v) for v in value)}]"
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(self._written(name, v) for v in value))}}}"
        if isinstance(value, Mapping):
            items = (
                f"{self._written(name, k)}: {self._written(name, v)}" for k, v in value.items()
            )
            return f"{{{', '.join(items)}}}"
        if isinstance(value, ModuleType):
            return value.__name__.rpartition(".")[2]
        if isinstance(value, (FunctionType, type, functools.partial, MethodType)):
            self._visit(name, value)
            return getattr(value, "__qualname__", name)
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return f"{type(value).__qualname__}{self._written(name, fields)}"
        is_foreign = type(value).__module__.partition(".")[0] not in self._packages
        return (
            repr(value) if is_foreign and " at 0x" not in repr(value) else type(value).__qualname__
        )


class _WithoutModules(ast.NodeTransformer):
    """Write ``tanh`` for ``module.tanh``: the name that a module goes by changes no number."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Leave out what stands before the dot where it is one of the modules."""
        if isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return ast.Name(node.attr, node.ctx)
        self.generic_visit(node)
        return node


def _package(root: Any) -> str:
    """Return the package that a function is of."""
    if isinstance(root, functools.partial):
        return _package(root.func)
    return str(getattr(inspect.unwrap(root), "__module__", "")).partition(".")[0]


def _normalised(value: FunctionType | type) -> ast.AST:
    """Return the syntax tree without what changes no number."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.decorator_list = []
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return tree


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring, or one below a constant."""
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) and isinstance(getattr(value, "value", None), str)


def _functions_of(value: FunctionType | type) -> list[FunctionType]:
    """Return the function itself, or the methods and properties that a class defines."""
    if isinstance(value, FunctionType):
        return [value]
    return [method for part in vars(value).values() if (method := _method(part))]


def _method(part: object) -> FunctionType | None:
    """Return the function behind a method, a class method or a property."""
    for name in ("func", "fget", "__func__"):
        part = getattr(part, name, part)
    return part if isinstance(part, FunctionType) else None


def _scope(function: FunctionType) -> dict[str, Any]:
    """Return what the names of a function stand for that are not its own."""
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
    names = set(_global_names(code))
    return {n: v for n, v in function.__globals__.items() if n in names} | closure


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _chains(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield every name, and every chain of attributes of a name."""
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in inner:
            continue
        attributes: list[str] = []
        at = node
        while isinstance(at, ast.Attribute):
            attributes.append(at.attr)
            at = at.value
            inner.add(at)
        if isinstance(at, ast.Name):
            yield (at.id, *reversed(attributes))
