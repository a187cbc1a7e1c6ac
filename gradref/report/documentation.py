"""Docstrings as HTML: reStructuredText, its formulas as MathML that a browser sets itself."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from gradref.report.plain import plain

SETTINGS = {
    "math_output": "MathML",
    "doctitle_xform": False,
    "embed_stylesheet": False,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 2,
    "warning_stream": "",
    "halt_level": 2,
}
"""A warning is an error: a formula that cannot be set would be missing."""

_ROLE = re.compile(r":\w+:`([^`]*)`")
_MATH = re.compile(r"^\.\. math:: *(.*?)\n(?=\S|\Z)", re.DOTALL | re.MULTILINE)


def to_html(function: Callable[..., Any]) -> Markup:
    """The docstring of a function."""
    from docutils import nodes
    from docutils.core import publish_parts
    from docutils.parsers.rst import roles
    from docutils.utils import SystemMessage

    for role in ("func", "class", "meth"):
        roles.register_generic_role(role, nodes.literal)
    text = inspect.cleandoc(function.__doc__ or "")
    try:
        parts: Any = publish_parts(text, writer="html5", settings_overrides=SETTINGS)
    except SystemMessage as problem:  # somebody's docstring need not be reStructuredText
        name = getattr(function, "__name__", "a function")
        warnings.warn(f"the docstring of {name} is shown as text: {problem}", stacklevel=2)
        return Markup("<pre>{}</pre>").format(text)
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
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)  # only such a one can be decorated
    first = node.body[1] if ast.get_docstring(node) is not None else node.body[0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 :]))


def in_words(function: Callable[..., Any]) -> str:
    """The first sentence of a docstring, its formulas as plain text."""
    sentence = summary(function).split(". ")[0]
    return _ROLE.sub(lambda found: plain(found[1]), sentence).rstrip(",;:")
