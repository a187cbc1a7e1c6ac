"""A digest of source files, to tell whether what was made of them is stale."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT, ROOT / "tests")
"""The folders that imports of ours are looked up in."""


def sources_digest(*files: Path) -> str:
    """Return the SHA-256 of files and of all modules of ours that they import, however far.

    Imports within functions count. Comments, docstrings and the layout do not.
    """
    code: dict[str, str] = {}
    todo = list(files)
    while todo:
        path = todo.pop()
        name = str(path.relative_to(ROOT))
        if name not in code:
            tree = ast.parse(path.read_text())
            todo += _imports(path, tree)
            code[name] = _without_docstrings(tree)
    return hashlib.sha256("\n".join(f"{n}\n{code[n]}" for n in sorted(code)).encode()).hexdigest()


def _imports(path: Path, tree: ast.AST) -> Iterator[Path]:
    """Yield the files of ours that a file imports, with those of the packages that they are in."""
    for node in ast.walk(tree):
        names: list[str] = []
        folders = PACKAGES
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            names = [".".join([*module, alias.name]) for alias in node.names]
            folders = (path.parents[node.level - 1],) if node.level else PACKAGES
        for name, folder in product(names, folders):
            for part in name.split("."):
                folder /= part
                files = (folder.with_suffix(".py"), folder / "__init__.py")
                yield from (file for file in files if file.is_file())


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
