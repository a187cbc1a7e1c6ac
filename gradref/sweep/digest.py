"""A digest of a formula: of everything its numbers depend on, and of nothing else.

A certificate keeps it, so that a test can say when a formula has changed since.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
from torch import Tensor

PLAIN = (bool, int, float, complex, str, bytes, type(None))
FOLLOWED = (FunctionType, BuiltinFunctionType, type, functools.partial, MethodType)

DECLARES = "gradref.declare"
"""The package whose wrappers are left out: they check, round and reduce what a formula computes."""

VERSIONED = {"torch", "numpy"}
"""Packages that count by names alone: their versions are in the environment of a certificate."""

GENERATED = "<string>"
"""The file of the methods that dataclasses write: they follow from the text of the class."""


def source_digest(*roots: Any, without: tuple[ModuleType, ...] = ()) -> str:
    """Return the SHA-256 of what :func:`reached` finds."""
    found = sorted(reached(*roots, without=without).items())
    text = "\n".join(f"{name}\n{content}" for name, content in found)
    return hashlib.sha256(text.encode()).hexdigest()


def reached(*roots: Any, without: tuple[ModuleType, ...] = ()) -> dict[str, str]:
    """Return the sources of the functions and the values of the constants that ``roots`` use.

    Names are followed through globals, imports, closures, defaults, wrappers, containers, the state
    of instances and attributes of modules, however long the chain. A module that is used in any
    other way, as by ``getattr``, counts as a whole. Functions of other packages, and functions and
    instances of the modules in ``without``, count by their names alone. Comments, docstrings,
    annotations and the module that holds a definition do not count: they change no number.
    """
    packages = {_package(root) for root in roots} - VERSIONED | {__name__.partition(".")[0]}
    return _Reached(packages, {module.__name__ for module in without}).of(roots)


class _Reached:
    """The state of the walk: what it has found, by name, and what it has visited."""

    def __init__(self, packages: set[str], without: set[str]) -> None:
        self._packages, self._without = packages, without
        self._found: dict[str, str] = {}
        self._seen: dict[int, Any] = {}
        self._open: set[int] = set()
        """The constants that are being written, since one may contain itself."""

    def of(self, roots: tuple[Any, ...]) -> dict[str, str]:
        for root in roots:
            self._visit("", root)
        return self._found

    # --- values ----------------------------------------------------------------------------------

    def _visit(self, name: str, value: Any) -> None:
        """Note a value under a name, and visit what it reaches."""
        if isinstance(value, functools.partial):
            self._visit(name, value.func)
            self._visit(f"{name} arguments", (value.args, value.keywords))
            return
        if callable(value):
            value = self._unwrapped(value)
        if isinstance(value, MethodType):
            if not isinstance(value.__self__, (type, ModuleType)):
                self._visit(f"{name} self", value.__self__)
            value = value.__func__
        if isinstance(value, ModuleType):
            self._visit_module(name, value)
        elif type(value).__module__ in self._without:
            self._note(name, type(value).__qualname__)
        elif not isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            self._note(name or type(value).__qualname__, self._written(name, value))
        elif self._is_ours(value.__module__ or "") and not isinstance(value, BuiltinFunctionType):
            self._visit_source(value)
        elif value.__name__ != name:
            self._note(name, f"{value.__module__}.{value.__qualname__}")

    def _unwrapped(self, value: Any) -> Any:
        """Return the function inside its decorators; visit those wrappers that are ours."""
        while (inner := getattr(value, "__wrapped__", None)) is not None:
            if isinstance(value, FunctionType):
                home = value.__globals__["__name__"]
                if self._is_ours(home) and not home.startswith(DECLARES):
                    self._visit_source(value)
                for key, held in vars(value).items():
                    if isinstance(held, Mapping):  # such as the table of singledispatch
                        self._visit(f"{value.__qualname__}.{key}", dict(held))
            value = inner
        return value

    def _visit_module(self, name: str, module: ModuleType) -> None:
        """Visit all of a module of ours; note the name of another one that has an alias."""
        if not self._is_ours(module.__name__):
            if module.__name__.rpartition(".")[2] != name and name:
                self._note(name, module.__name__)
        elif self._is_new(module):
            for key, value in vars(module).items():
                if not key.startswith("__"):
                    self._visit(key, value)

    def _is_new(self, value: Any) -> bool:
        """Return whether a value is met for the first time; keep it, or its id might be reused."""
        is_new = id(value) not in self._seen
        self._seen[id(value)] = value
        return is_new

    def _note(self, name: str, content: str) -> None:
        """Keep a content under its name, with a prime where the name has another content."""
        while self._found.get(name, content) != content:
            name += "'"
        self._found[name] = content

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages and module not in self._without

    # --- sources ---------------------------------------------------------------------------------

    def _visit_source(self, value: FunctionType | type) -> None:
        """Note the source of a function or class of ours, and visit all that it names."""
        if not self._is_new(value):
            return
        tree = _bare(_tree(value))
        scope = self._imported(tree)
        for function in _functions_of(value):
            scope |= _scope(function)
        if isinstance(value, type):
            scope |= _class_scope(value, tree)
        chains = sorted(set(_chains(tree)))
        modules = self._modules(scope, chains)
        self._note(value.__qualname__, ast.unparse(_WithoutModules(modules).visit(tree)))
        for chain in chains:
            self._follow(chain, scope)
        for function in _functions_of(value):
            for defaults in filter(None, (function.__defaults__, function.__kwdefaults__)):
                self._visit(f"{function.__qualname__} defaults", defaults)
        if isinstance(value, type):
            self._visit_attributes(value)

    def _visit_attributes(self, value: type) -> None:
        """Visit the attributes and bases of a class, but not methods: its source contains them."""
        for name, attribute in vars(value).items():
            label = f"{value.__qualname__}.{name}"
            if (method := _method(attribute)) is not None:
                inner = self._unwrapped(method)
                code = getattr(inner, "__code__", None)
                if code and code.co_qualname != label and code.co_filename != GENERATED:
                    self._visit(label, inner)
            elif not (name.startswith("_") and name.endswith("_")):
                self._visit(label, attribute)
        for base in value.__bases__:
            self._visit(base.__qualname__, base)

    def _imported(self, tree: ast.AST) -> dict[str, Any]:
        """Return what a function itself imports from us; strip the modules' names from its tree."""
        scope: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and self._is_ours(node.module or ""):
                for alias in node.names:
                    scope[alias.asname or alias.name] = _member(node.module or "", alias.name)
                node.module, node.level = None, 1
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if self._is_ours(alias.name):
                        whole = importlib.import_module(alias.name)
                        root = importlib.import_module(alias.name.partition(".")[0])
                        scope[alias.asname or root.__name__] = whole if alias.asname else root
        return scope

    def _modules(self, scope: Mapping[str, Any], chains: Iterable[tuple[str, ...]]) -> set[str]:
        """Return the names of modules of ours that can be left out before a dot.

        A name stays where the attribute after the dot also names something else in the function.
        """
        modules = {n: v for n, v in scope.items() if isinstance(v, ModuleType)}
        ours = {n for n, v in modules.items() if v.__name__.partition(".")[0] in self._packages}
        meant: dict[str, set[int]] = {}
        for root, *attributes in chains:
            if root in ours and attributes:
                value = getattr(modules[root], attributes[0], None)
                meant.setdefault(attributes[0], set()).add(id(value))
            elif root in scope:
                meant.setdefault(root, set()).add(id(scope[root]))
        clashing = {name for name, values in meant.items() if len(values) > 1}
        return {
            root
            for root in ours
            if not any(c[0] == root and len(c) > 1 and c[1] in clashing for c in chains)
        }

    def _follow(self, chain: tuple[str, ...], scope: Mapping[str, Any]) -> None:
        """Visit what a chain of attributes stands for, up to the first that is not a module."""
        root, *attributes = chain
        if root not in scope:
            return
        value, name = scope[root], root
        for attribute in attributes:
            if isinstance(value, FunctionType) and attribute in vars(value):
                self._visit(f"{name}.{attribute}", vars(value)[attribute])
            if not isinstance(value, ModuleType):
                break
            if not self._is_ours(value.__name__):
                self._visit_module(name, value)
                return
            value, name = getattr(value, attribute, value), attribute
        self._visit(name, value)

    # --- constants -------------------------------------------------------------------------------

    def _written(self, name: str, value: Any) -> str:
        """Return a constant in text, equal constants in equal text, and visit what it holds."""
        if id(value) in self._open:
            return "itself"
        self._open.add(id(value))
        try:
            is_ours = self._is_ours(type(value).__module__)
            return (self._instance(value) if is_ours else "") + self._content(name, value)
        finally:
            self._open.discard(id(value))

    def _instance(self, value: Any) -> str:
        """Return the class and the attributes of an instance of ours in text."""
        kind = type(value)
        self._visit(kind.__qualname__, kind)
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        state = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        state |= {} if isinstance(value, Enum) else getattr(value, "__dict__", {})
        return kind.__qualname__ + (self._content(kind.__qualname__, state) if state else "")

    def _content(self, name: str, value: Any) -> str:
        """Return in text what a constant is or contains."""
        if isinstance(value, (*PLAIN, Enum)):
            return repr(value)
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(self._written(name, part) for part in value))}}}"
        if isinstance(value, Mapping):
            pairs = (
                f"{self._written(name, key)}: {self._written(name, part)}"
                for key, part in value.items()
            )
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, FOLLOWED):
            self._visit(name, value)
            return getattr(value, "__qualname__", name)
        if isinstance(value, ModuleType):
            self._visit(name, value)
            return value.__name__.rpartition(".")[2]
        if isinstance(value, (Tensor, np.ndarray)):  # whose own text is abridged
            return f"{value.dtype}{value.tolist()}"
        if isinstance(value, SimpleNamespace):
            return self._content(name, vars(value))
        has_address = " at 0x" in repr(value)
        if isinstance(value, (tuple, list)) or (has_address and isinstance(value, Collection)):
            return f"[{', '.join(self._written(name, part) for part in value)}]"
        is_ours = self._is_ours(type(value).__module__)
        return "" if is_ours else type(value).__qualname__ if has_address else repr(value)


class _WithoutModules(ast.NodeTransformer):
    """Writes ``tanh`` for ``module.tanh``: the name of a module changes no number."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Leave out what stands before the dot where it is one of the modules."""
        if isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return ast.Name(node.attr, node.ctx)
        self.generic_visit(node)
        return node


def _package(root: Any) -> str:
    """Return the package in which a function is defined."""
    if isinstance(root, functools.partial):
        return _package(root.func)
    return str(getattr(inspect.unwrap(root), "__module__", "")).partition(".")[0]


# --- syntax trees --------------------------------------------------------------------------------


def _tree(value: FunctionType | type) -> ast.AST:
    """Return the syntax tree of a function or class."""
    try:
        source = value if isinstance(value, type) else value.__code__
        if isinstance(source, CodeType) and source.co_name == "<lambda>":
            return _lambda(source)
        return ast.parse(textwrap.dedent(inspect.getsource(source)))
    except (OSError, TypeError, ValueError):  # made by exec, or in C: there is no text
        made = value.__qualname__ if isinstance(value, type) else _instructions(value.__code__)
        return ast.parse(repr(made))


def _lambda(code: CodeType) -> ast.AST:
    """Return the tree of a lambda: the smallest that contains its instructions."""
    module = ast.parse("".join(linecache.getlines(code.co_filename)))
    spans = ((first, left, last, right) for first, last, left, right in code.co_positions())
    places = [span for span in spans if None not in span and span[:2] != span[2:]]
    found = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Lambda)
        and node.lineno == code.co_firstlineno
        and all(_is_within(place, node.body) for place in places)
    ]
    return ast.Expression(min(found, key=lambda node: len(ast.unparse(node))))  # ValueError: none


def _is_within(place: tuple[Any, ...], node: ast.expr) -> bool:
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return start <= place[:2] and place[2:] <= end


def _instructions(code: CodeType) -> tuple[object, ...]:
    """Return the instructions and constants of a function that has no source."""
    constants = [
        _instructions(part) if isinstance(part, CodeType) else part for part in code.co_consts
    ]
    return (code.co_code.hex(), code.co_names, *map(repr, constants))


def _bare(tree: ast.AST) -> ast.AST:
    """Return the tree without docstrings, annotations and decorators.

    Decorators are followed by the value that they have made; those of a function within a function
    stay, since there is no such value.
    """
    if isinstance(tree, ast.Module):
        for statement in tree.body:
            _strip_decorators(statement)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return tree


def _member(module: str, name: str) -> Any:
    """Return what ``from module import name`` does."""
    found = importlib.import_module(module)
    if not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")
    return getattr(found, name)


def _strip_decorators(node: ast.stmt) -> None:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        node.decorator_list = []
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            _strip_decorators(part)


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a string: a docstring, or the text below a constant."""
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
    """Return what the global and enclosing names in a function stand for."""
    names = set(_global_names(function.__code__))
    return {n: v for n, v in function.__globals__.items() if n in names} | _closure(function)


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _class_scope(value: type, tree: ast.AST) -> dict[str, Any]:
    """Return what the names in the body of a class stand for, outside of its methods."""
    todo, names = [tree], set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            names.add(node.id)
        todo += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.FunctionDef)]
    return {n: v for n, v in vars(sys.modules[value.__module__]).items() if n in names}


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
