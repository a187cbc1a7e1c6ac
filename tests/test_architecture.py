"""The house: imports run one way, nothing private is taken from another package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = (
    ("gradref.environment", "gradref.packages", "gradref.arrays", "gradref.truth"),
    ("gradref.formula",),
    ("gradref.declare",),
    ("gradref.autodiff",),
    ("gradref.judge", "gradref.fusion"),
    ("gradref.sweep", "gradref.bench"),
    ("gradref.contenders",),
    ("gradref.runs",),
    ("gradref.report",),
    ("gradref.testing",),
    ("gradref.cli",),
    ("gradref.__main__",),
)
"""Packages of the toolkit: each imports only from those above it, and from itself."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("gradref", "activations", "losses")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every module of ours that is imported anywhere in a file, and what of it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in {"gradref", *MODULES}:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full, "") if full in MODULES else (str(node.module), alias.name)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in MODULES)


def layer(module: str) -> int | None:
    for level, packages in enumerate(ORDER):
        if any(f"{module}.".startswith(f"{package}.") for package in packages):
            return level
    return None


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) is not None])
def test_imports_run_one_way(module: str) -> None:
    own, level = ".".join(module.split(".")[:2]), layer(module)
    for imported, _ in imports(MODULES[module]):
        assert not imported.startswith(("activations", "losses")), "the toolkit knows no function"
        other = layer(imported)
        is_inside = imported.startswith(f"{own}.") or imported == own
        assert is_inside or (other is not None and level is not None and other < level), imported


def test_every_module_has_its_place() -> None:
    outside = [m for m in MODULES if m.startswith("gradref.") and layer(m) is None]
    assert outside == []


def test_no_module_is_part_of_a_cycle() -> None:
    graph = {m: {i for i, _ in imports(path) if i != m} for m, path in MODULES.items()}
    for module in graph:
        seen: set[str] = set()
        todo = list(graph[module])
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += graph.get(at, ())
        assert module not in seen, f"{module} imports itself by way of others"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_private_crosses_a_package(module: str) -> None:
    package = module.rpartition(".")[0]
    for imported, name in imports(MODULES[module]):
        is_own = imported.startswith(package.split(".")[0]) and not name.startswith("_")
        is_beside = imported.rpartition(".")[0] == package or imported == package
        assert is_beside or not name.startswith("_"), f"{name} of {imported}"
        parts = imported.split(".")[1:]
        assert is_own or is_beside or not any(p.startswith("_") for p in parts), imported


def test_no_two_modules_of_the_toolkit_have_one_name() -> None:
    names = [m.rpartition(".")[2] for m in MODULES if m.startswith("gradref.") and "__" not in m]
    packages = {m.split(".")[1] for m in MODULES if m.count(".") > 1 and m.startswith("gradref.")}
    twice = {name for name in names if names.count(name) > 1 or name in packages}
    assert twice - packages == set(), "one name, one meaning"
