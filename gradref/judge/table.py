"""Truths that are remembered: in this process, and on disk between runs.

A table is kept under a digest of everything it depends on: the inputs, the parameters, the version
of python-flint, and the sources of the truth's package, of ``gradref.truth``, ``gradref.declare``
and ``gradref.judge``. Writing is atomic and reading checks every byte, so that two processes and a
truncated file do no harm. The folder is ``$GRADREF_CACHE``, else ``gradref`` in the user's cache
folder; an empty ``GRADREF_CACHE`` keeps nothing. Beyond ``MOST_BYTES`` the tables go that were not
used for longest.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradref.declare.operation import Operation
from gradref.truth.jets import Balls, Floats, jets

MOST_BYTES = 1 << 29
TABLES_BETWEEN_LOOKS = 32
"""How many tables a process writes until it looks whether there are too many."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


Arrays = dict[str, NDArray[Any]]


class Table:
    """Named arrays that belong together: on disk where :func:`folder` is, else in memory."""

    def __init__(self, record: Operation, parameters: str, *numbers: bytes) -> None:
        """Find the table of an operation, a setting of its parameters and some inputs."""
        sources, where = _sources(record.package), folder()
        self._path: Path | None = None
        if sources is not None and where is not None:
            digest = hashlib.sha256(f"{sources} {record.name} {parameters}".encode())
            for part in numbers:
                digest.update(part)
            self._path = where / f"{record.name}-{digest.hexdigest()[:40]}.npz"
        self._arrays = read(self._path) if self._path is not None else {}
        self._known = len(self._arrays)

    def get(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return an array, which is computed where it is not known yet."""
        if name not in self._arrays:
            self._arrays[name] = compute()
        return self._arrays[name]

    def keep(self) -> None:
        """Write the table if it has grown; else it would be computed again next time."""
        if self._path is not None and len(self._arrays) > self._known:
            write(self._path, self._arrays)
            self._known = len(self._arrays)


def jets_table(record: Operation, parameters: Mapping[str, Any], x: Floats, among: Floats) -> Balls:
    """Return f, f′ and f″ at ``x``, out of one table of all the points ``among`` which they are."""
    points = np.unique(among)
    table = _jets_at(record, tuple(parameters.items()), points.tobytes())
    return table[:, np.searchsorted(points, x)]


@functools.lru_cache(maxsize=4)
def _jets_at(record: Operation, parameters: tuple[tuple[str, Any], ...], points: bytes) -> Balls:
    def compute() -> NDArray[np.float64]:
        found = jets(record.truth, np.frombuffer(points), **dict(parameters))
        return np.stack([found.high, found.rest])

    table = Table(record, repr(parameters), points)
    high, rest = table.get("jets", compute)
    table.keep()
    return Balls(high, rest)


def folder() -> Path | None:
    """Return where tables are kept; None where they are not."""
    chosen = os.environ.get("GRADREF_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gradref"


def read(path: Path) -> Arrays:
    """Return a table, an empty one where there is none that is whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content}
        os.utime(path)  # it is in use
    except UNREADABLE:
        return {}
    return arrays


def write(path: Path, arrays: Arrays) -> None:
    """Write a table; where that is not possible it is computed again next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy says a name is a bool
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if next(_WRITTEN) % TABLES_BETWEEN_LOOKS == 0:
            _forget_oldest(path.parent)


_WRITTEN = itertools.count()


def _forget_oldest(where: Path) -> None:
    """Delete the tables that have not been used for longest, beyond ``MOST_BYTES``."""
    found = []
    for path in where.glob("*.npz"):
        with contextlib.suppress(FileNotFoundError):  # another process has deleted it
            found.append((path.stat(), path))
    total = 0
    for status, path in sorted(found, key=lambda pair: -pair[0].st_mtime):
        total += status.st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


@functools.cache
def _sources(package: str) -> str | None:
    """Return a digest of all that a truth can be made of; None where it has no file."""
    digest = hashlib.sha256(version("python-flint").encode())
    for name in (package, "gradref.truth", "gradref.declare", "gradref.judge"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            return None
        path = Path(file)
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        for source in files:
            digest.update(source.read_bytes())
    return digest.hexdigest()
