"""Docstrings as HTML: reStructuredText, its formulas as MathML that a browser sets itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

SETTINGS = {
    "math_output": "MathML",
    "doctitle_xform": False,
    "embed_stylesheet": False,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 2,
    "halt_level": 2,
}
"""A warning is an error: a formula that cannot be set would be missing."""

_MATH = re.compile(r"^\.\. math:: *(.*?)\n(?=\S|\Z)", re.DOTALL | re.MULTILINE)


def to_html(function: Callable[..., Any]) -> Markup:
    """The docstring of a function."""
    from docutils import nodes
    from docutils.core import publish_parts
    from docutils.parsers.rst import roles

    for role in ("func", "class", "meth"):
        roles.register_generic_role(role, nodes.literal)
    text = inspect.cleandoc(function.__doc__ or "")
    parts: Any = publish_parts(text, writer="html5", settings_overrides=SETTINGS)
    return Markup(parts["body"])


def summary(function: Callable[..., Any]) -> str:
    """The first sentence of a docstring."""
    return inspect.cleandoc(function.__doc__ or "").partition("\n")[0]


def formulas(function: Callable[..., Any]) -> list[str]:
    """The displayed formulas of a docstring, in LaTeX."""
    text = inspect.cleandoc(function.__doc__ or "") + "\n"
    return [" ".join(found.split()) for found in _MATH.findall(text)]


def body(function: Callable[..., Any]) -> str:
    """The lines of a function below its docstring."""
    source = inspect.getsource(function)
    return inspect.cleandoc(source[source.rindex('"""') + 3 :])
