"""How operations are found: in the packages of the entry-point group, and in one's own."""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Collection, Iterator
from importlib.util import find_spec

from gradref.arrays import reject
from gradref.declare.checks import problem
from gradref.declare.operation import Operation
from gradref.packages import PACKAGES, package, packages


def operations(*names: str) -> list[Operation]:
    """Return every operation of the packages in the entry-point group ``gradref.operations``.

    ``names`` selects operations by name, or every operation of a package by the package's name;
    that one need not be in the group. ``package:name`` is one operation of a package. What is not
    declared as it should be is left out with a warning, and an error where it is asked for. Losses
    of a batch are only found by name; all of them are in :func:`batch_losses`.
    """
    group = packages()
    found = [(name, record) for name in group for record in declared(name)]
    known = {record.name for _, record in found}
    wanted = [name.partition(":")[::2] for name in names]
    for name, only in wanted:
        if name in (known if not only else ()) or name in group:
            continue
        others = list(_of_a_package(name)) if _is_importable(name) else []
        if not others:
            wants = "a name of gradref list, or a package that declares operations"
            reject("operation", f"{name!r}{_meant(name, known)}", wants)
        found += [(name, record) for record in others]
    chosen = [
        (home, record)
        for home, record in found
        if (not names and record.kind != "batch")
        or any(_is_named(record, home, name, only) for name, only in wanted)
    ]
    for name, only in wanted:
        if only and only not in {record.name for _, record in chosen}:
            reject("operation", f"{name}:{only}", f"an operation that {name} declares")
    return [record for home, record in chosen if _is_whole(home, record, bool(names))]


def _is_named(record: Operation, home: str, name: str, only: str) -> bool:
    if only:
        return record.name == only and home == name
    return name == record.name or (name == home and record.kind != "batch")


def every_operation() -> list[Operation]:
    """Return all operations of the packages in the entry-point group, losses of a batch too."""
    return [*operations(), *batch_losses()]


def batch_losses() -> list[Operation]:
    """Return every loss of a batch of the packages in the entry-point group."""
    return [r for name in packages() for r in declared(name) if r.kind == "batch"]


_problem = functools.cache(problem)


def _is_whole(home: str, record: Operation, is_wanted: bool) -> bool:
    """Return whether a declaration can be used; raise where it cannot and is asked for."""
    if home in PACKAGES:
        return True
    words = _problem(record)
    if words and is_wanted:
        raise ValueError(f"{record.name} of {home} {words}")
    if words:
        warnings.warn(f"{record.name} of {home} is left out: it {words}", stacklevel=3)
    return not words


ALIASES = {
    "bce": "binary_cross_entropy",
    "bce_with_logits": "binary_cross_entropy_with_logits",
    "ce": "cross_entropy",
    "huber": "huber_loss",
    "kl": "kl_div",
    "l2_loss": "mse_loss",
    "logistic": "sigmoid",
    "mse": "mse_loss",
    "nll": "nll_loss",
    "step": "heaviside",
    "swish": "silu",
    "xent": "cross_entropy",
}
"""Other names of operations, which are suggested and not taken: each has one name here."""


def _meant(name: str, known: Collection[str]) -> str:
    """Return which operations may be meant by an unknown name, if there are any like it."""
    plain = name.lower().replace("-", "_")
    alias = ALIASES.get(plain)
    near = [alias] if alias else difflib.get_close_matches(plain, sorted(known), 2)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _of_a_package(name: str) -> Iterator[Operation]:
    try:
        yield from declared(name)
    except Exception as error:  # it is somebody's code that is run
        words = f"{name}: importing it raises {type(error).__name__}: {error}"
        raise ValueError(words) from error


def _is_importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def declared(name: str) -> Iterator[Operation]:
    """Yield the operations that a package declares among its public names, in their order there."""
    module = package(name)
    for value in vars(module).values():
        record = getattr(value, "operation", None)
        if not isinstance(record, Operation) or record.function is not value:
            continue
        if f"{record.module}.".startswith(f"{name}."):  # and not imported from another one
            yield record
