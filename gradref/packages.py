"""Packages that declare operations: where they are, also when another hides one of ours."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from importlib import import_module, util
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

PACKAGES = ("activations", "losses")
"""Packages that are installed beside the toolkit."""

HOME = Path(__file__).resolve().parents[1]


@functools.cache
def packages() -> list[str]:
    """Return the packages of the entry-point group, which are looked up on the disk."""
    return sorted(entry.value for entry in entry_points(group="gradref.operations"))


def hidden() -> Iterator[tuple[str, str]]:
    """Yield those of our packages that Python finds another in place of, and where that is."""
    for name in PACKAGES:
        module = sys.modules.get(name)
        spec = module.__spec__ if module is not None else util.find_spec(name)
        place = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
        if place is not None and not _is_ours(name, place):
            yield name, place


def package(name: str) -> ModuleType:
    """Import a package: one of ours also where a module of the same name is found before it.

    >>> package("losses").__name__
    'losses'
    """
    if name not in PACKAGES:
        return import_module(name)
    known = sys.modules.get(f"gradref.{name}")
    if known is not None:
        return known
    module = _beside_the_toolkit(name) if name in dict(hidden()) else import_module(name)
    sys.modules[f"gradref.{name}"] = module
    return module


def _is_ours(name: str, place: str) -> bool:
    return Path(place).resolve() == HOME / name / "__init__.py"


def _beside_the_toolkit(name: str) -> ModuleType:
    """Import our package, and leave the one that hides it where it is."""
    theirs = {m: sys.modules.pop(m) for m in list(sys.modules) if f"{m}.".startswith(f"{name}.")}
    sys.path.insert(0, str(HOME))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(HOME))
        if theirs or not _is_ours(name, str(getattr(sys.modules.get(name), "__file__", ""))):
            sys.modules.update(theirs)
