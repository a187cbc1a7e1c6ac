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

FOREIGN = ("torch", "numpy", "builtins", "math")


def source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of the formula, of the functions and constants it reaches, and of the rounding.

    Comments, docstrings and decorators do not count: they do not change a number.
    """
    sources: dict[str, str] = {}
    todo: list[Any] = [function, round_once]
    while todo:
        value = todo.pop()
        reached = inspect.unwrap(value) if callable(value) else value
        if isinstance(reached, FunctionType):
            name = f"{reached.__module__}.{reached.__qualname__}"
            if name not in sources and not name.startswith(FOREIGN):
                sources[name] = _source(reached)
                todo += _globals_of(reached, sources)
    text = "\n".join(f"{name}\n{source}" for name, source in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _source(function: FunctionType) -> str:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    if isinstance(definition, ast.FunctionDef):
        definition.decorator_list = []
        if ast.get_docstring(definition) is not None:
            definition.body = definition.body[1:]
    return ast.unparse(definition)


def _globals_of(function: FunctionType, sources: dict[str, str]) -> list[Any]:
    """The functions that a function names; constants go straight into ``sources``."""
    functions = []
    for name in sorted(set(_names(function.__code__))):
        value = function.__globals__.get(name)
        if isinstance(value, (int, float, tuple)):
            sources[f"{function.__module__}.{name}"] = repr(value)
        elif callable(value) and not isinstance(value, (type, ModuleType)):
            functions.append(value)
    return functions


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
