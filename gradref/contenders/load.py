"""Find the kernels in a file, a module, an object or the registry of torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gradref.arrays import describe, reject
from gradref.contenders.kernel import ROLES, Kernel, index_or_probability
from gradref.declare.operation import Operation
from gradref.declare.registry import every_operation, operations

WANTS = (
    "a file.py, a module, module:attribute, or namespace::name of a torch.library op; "
    "with KERNELS, or functions named like operations"
)


def load(subject: str, operation: str | None = None) -> list[Kernel]:
    """Return the kernels in ``subject``: all of them, those for one operation, or one by its name.

    Of a single object ``operation`` says what it computes.
    """
    if "::" in subject:
        return [_single(subject, _torch_op(subject), operation)]
    if subject.endswith(".py"):
        kernels = _of_module(import_file(Path(subject)), operation)
    else:
        name, _, attribute = subject.partition(":")
        module = import_file(Path(name)) if name.endswith(".py") else _import(name)
        if attribute:
            if not hasattr(module, attribute):
                reject("subject", repr(subject), f"an attribute of {name}", ImportError)
            record = next((r for r in every_operation() if r.name == attribute), None)
            if record is not None and operation in (None, record.name, record.full_name):
                return list(_named_like(record, module))
            return [_single(subject, getattr(module, attribute), operation)]
        kernels = _of_module(module, operation)
    chosen = [k for k in kernels if operation in (None, k.operation, k.name)]
    if not chosen:
        names = ", ".join(kernel.name for kernel in kernels)
        what = f"no kernel for {operation}, but {names}" if kernels else "no kernel"
        reject("subject", f"{subject!r} with {what}", WANTS)
    return chosen


def import_file(path: Path) -> ModuleType:
    """Return the module in a file; its own folder is where it imports from first."""
    if not path.is_file():
        reject("subject", repr(str(path)), "a file that exists", ImportError)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # there is a loader for every .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise _not_imported(str(path), problem) from problem
    return module


def _import(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            reject("subject", repr(name), WANTS, ImportError)
        raise _not_imported(name, error) from error
    except Exception as problem:
        raise _not_imported(name, problem) from problem


def _not_imported(subject: str, problem: Exception) -> ImportError:
    """Return the error that says what somebody's module raises."""
    return ImportError(f"{subject}: importing it raises {type(problem).__name__}: {problem}")


def _of_module(module: ModuleType, operation: str | None) -> list[Kernel]:
    declared = getattr(module, "KERNELS", None)
    if declared is None:
        return list(_by_name(module, operation))
    if not isinstance(declared, Mapping):
        reject("KERNELS", describe(declared), "a dict of kernels by name", TypeError)
    for name in declared:
        if not isinstance(name, str):
            reject("KERNELS", f"the key {name!r}", "names of kernels", TypeError)
    return [Kernel.of(name, entry) for name, entry in declared.items()]


def _by_name(module: ModuleType, operation: str | None) -> Iterator[Kernel]:
    """Yield kernels of functions named like operations."""
    for record in operations(operation) if operation and ":" in operation else every_operation():
        yield from _named_like(record, module)


def _named_like(record: Operation, module: ModuleType) -> Iterator[Kernel]:
    """Yield a kernel of the functions named like an operation, with ``_backward``, ... beside it.

    If there are any.
    """
    entry: dict[str, Any] = {
        role: getattr(module, f"{record.name}_{role}")
        for role in ROLES
        if callable(getattr(module, f"{record.name}_{role}", None))
    }
    value = getattr(module, record.name, None)
    if callable(value):
        entry["forward" if entry else "function"] = value
        choice = index_or_probability(record)
        if choice is not None and module.__name__ == "torch.nn.functional":
            entry[choice] = "either"
    if entry:
        yield Kernel.of(record.name, {"operation": record.full_name, **entry})


def _torch_op(subject: str) -> Any:
    namespace, _, name = subject.partition("::")
    try:
        return getattr(getattr(torch.ops, namespace), name)
    except AttributeError:
        return reject("subject", repr(subject), "the name of a registered torch.library op")


def _single(subject: str, value: Any, operation: str | None) -> Kernel:
    """Return the kernel of one object: a function, a module, an autograd.Function or an entry."""
    name = operation or subject.replace("::", ":").rpartition(":")[2]
    operations(name)  # an unknown one is an error of the command line, not of an entry
    return Kernel.of(name, value)
