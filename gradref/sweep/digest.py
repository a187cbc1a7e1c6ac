"""A digest of a formula: of its source and of everything of ours that it uses."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from gradref.arrays import round_once

FOREIGN = ("torch", "numpy", "builtins", "math", "gradref.special")


def source_digest(function: Callable[..., Any], *modules: ModuleType) -> str:
    """SHA-256 of the formula, of the functions and constants it reaches, and of the rounding.

    Of ``modules`` all counts.

    Comments, docstrings and decorators do not count: they do not change a number. A formula is
    certified in float64: ``gradref.special``, which is for float32, counts only if it is named.
    """
    sources = {module.__name__: _source(module) for module in modules}
    todo: list[Any] = [function, round_once]
    while todo:
        value = todo.pop()
        reached = inspect.unwrap(value) if callable(value) else value
        if isinstance(reached, (FunctionType, type)):
            name = f"{reached.__module__}.{reached.__qualname__}"
            if name not in sources and not name.startswith(FOREIGN):
                sources[name] = _source(reached)
                for part in _functions_of(reached):
                    todo += _globals_of(part, sources)
    text = "\n".join(f"{name}\n{source}" for name, source in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _source(reached: FunctionType | type | ModuleType) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(reached)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.decorator_list = []
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, or one below a constant."""
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) and isinstance(getattr(value, "value", None), str)


def _functions_of(reached: FunctionType | type) -> Iterator[FunctionType]:
    """The function itself, or the methods and properties that a class defines."""
    if isinstance(reached, FunctionType):
        yield reached
        return
    for part in vars(reached).values():
        method = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if isinstance(method, FunctionType):
            yield method


def _globals_of(function: FunctionType, sources: dict[str, str]) -> list[Any]:
    """The functions and classes that a function names; constants go straight into ``sources``."""
    found = []
    for name in sorted(set(_names(function.__code__))):
        value = function.__globals__.get(name)
        if isinstance(value, (int, float, tuple)):
            sources[f"{function.__module__}.{name}"] = repr(value)
        elif callable(value) and not isinstance(value, ModuleType):
            found.append(value)
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
