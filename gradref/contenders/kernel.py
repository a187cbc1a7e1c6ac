"""A kernel to judge: its functions, and what it declares that they compute."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gradref.arrays import describe, reject
from gradref.contenders import contract
from gradref.contenders.contract import Contract
from gradref.declare.operation import Operation
from gradref.declare.registry import operations

Role = Literal[
    "forward",
    "backward",
    "derivative",
    "second_derivative",
    "jvp",
    "value_and_gradient",
    "function",
]
"""What a function of a kernel computes; ``function`` is a value that torch differentiates."""

ROLES: tuple[Role, ...] = get_args(Role)
LIBRARIES = ("torch", "numpy", "jax")

Targets = Literal["index", "probability", "either"]
"""What a kernel takes for an argument that may be class indices or probabilities."""

KEYS = (*ROLES, "operation", "library", *contract.KEYS)
"""What an entry of ``KERNELS`` may hold besides parameters of the operation."""


def index_or_probability(record: Operation) -> str | None:
    """Return the argument that may be class indices or probabilities, if there is one."""
    domains = record.domains.items()
    return next((name for name, domain in domains if isinstance(domain, tuple)), None)


@dataclass(frozen=True)
class Kernel:
    """Somebody's functions for one operation, as they are declared.

    ``named`` says which parameters the function of a role takes by name, None for any. ``settings``
    holds the parameters that they are written for; those that a function takes by name are passed
    to it. ``targets`` says which kinds of target the kernel takes, ``contract`` what else is
    declared. The ``functions`` are only where they are called.
    """

    name: str
    operation: str
    named: Mapping[Role, frozenset[str] | None]
    settings: Mapping[str, Any]
    library: str = "torch"
    targets: Targets = "index"
    contract: Contract = field(default_factory=Contract)
    functions: Mapping[Role, Callable[..., Any]] = field(default_factory=dict, compare=False)

    @cached_property
    def record(self) -> Operation:
        """The declaration of the operation."""
        return operations(self.operation)[0]

    @property
    def is_coupled(self) -> bool:
        """Whether the elements of a row depend on each other."""
        return self.record.kind != "elementwise" and self.record.coupled is not None

    def within(self, limits: tuple[float, float] | None) -> Kernel:
        """Return the kernel as one for a range of arguments; None leaves what it declares."""
        if limits is None:
            return self
        return replace(self, contract=replace(self.contract, range=limits))

    @classmethod
    def of(cls, name: str, entry: Any) -> Kernel:
        """Return the kernel of an entry of ``KERNELS``; keys other than ``KEYS`` are settings.

        >>> Kernel.of("relu", {"forward": abs}).operation
        'relu'
        """
        entry = entry_of(entry)
        operation = entry.get("operation", name)
        try:
            (record,) = operations(operation)
        except ValueError as problem:
            raise ValueError(f"KERNELS[{name!r}]: {problem}") from None
        functions: dict[Role, Any] = {role: entry[role] for role in ROLES if role in entry}
        if not functions:
            reject(f"KERNELS[{name!r}]", sorted(entry), f"one of {', '.join(ROLES)}")
        for role, function in functions.items():
            if not callable(function):
                reject(f"KERNELS[{name!r}][{role!r}]", describe(function), "a callable", TypeError)
        library = entry.get("library", "torch")
        if library not in LIBRARIES:
            reject(f"KERNELS[{name!r}]['library']", repr(library), f"one of {', '.join(LIBRARIES)}")
        choice = index_or_probability(record)
        targets = entry.get(choice, "index")
        if targets not in get_args(Targets):
            wants = f"one of {', '.join(get_args(Targets))}"
            reject(f"KERNELS[{name!r}][{choice!r}]", repr(targets), wants)
        keys = KEYS if choice is None else (*KEYS, choice)
        settings = {key: value for key, value in entry.items() if key not in keys}
        settings = {**_held(functions.get("function"), record), **settings}
        for setting, value in settings.items():
            if setting not in record.parameters:
                known = [*keys, *record.parameters]
                reject(f"KERNELS[{name!r}]", repr(setting), f"one of {', '.join(known)}")
            if not isinstance(value, bool | int | float | str | None):
                wants = "a number, a string, True, False or None"
                reject(f"KERNELS[{name!r}][{setting!r}]", describe(value), wants, TypeError)
        declared = Contract.of(name, entry, record)
        named: dict[Role, frozenset[str] | None] = {
            role: _taken_by_name(function)
            if declared.accepts is None
            else frozenset(declared.accepts)
            for role, function in functions.items()
        }
        return cls(name, record.full_name, named, settings, library, targets, declared, functions)

    def declaration(self) -> Kernel:
        """Return what another process is told of the kernel: all but the functions."""
        return replace(self, functions={})

    def accepts(self, role: Role, parameter: str) -> bool:
        """Return whether a function takes a parameter of the operation by name."""
        names = self.named[role]
        return names is None or parameter in names

    def takes(self, argument: str) -> bool:
        """Return whether the kernel takes an argument: as an array, as a setting or by name."""
        if argument in self.record.arguments or argument in self.settings:
            return True
        return any(self.accepts(role, argument) for role in self.named)

    @property
    def missing(self) -> list[str]:
        """The parameters that the operation's cases vary and that the kernel does not take."""
        varied = dict.fromkeys(name for case in self.record.cases for name in case)
        return [name for name in varied if not self.takes(name)]

    def claims(self, case: Mapping[str, Any]) -> bool:
        """Return whether the kernel takes the kind of argument that a case has."""
        choice = index_or_probability(self.record)
        if choice is None or self.targets == "either":
            return True
        return self.targets == ("probability" if choice in case else "index")

    def keywords(self, role: Role, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the keywords that a function takes of some parameters; None if it cannot do them.

        A parameter that it does not take must have the value that it is written for.
        """
        keywords = {}
        for name, value in parameters.items():
            if self.accepts(role, name):
                keywords[name] = value
            elif value != self.settings.get(name, self.record.parameters[name]):
                return None
        return keywords

    def cases(self) -> Iterator[dict[str, Any]]:
        """Yield the operation's cases to judge the kernel in: what it takes of each, distinct."""
        known = self.record.parameters
        settings = {k: v for k, v in self.settings.items() if k != "reduction" and v != known[k]}
        seen: list[dict[str, Any]] = []
        for case in self.record.cases:
            agrees = all(self.settings.get(name, value) == value for name, value in case.items())
            taken = {k: v for k, v in case.items() if self.takes(k)}
            chosen = {**taken, **settings}
            if agrees and chosen not in seen:
                seen.append(chosen)
                yield chosen


def entry_of(value: Any) -> Mapping[str, Any]:
    """Return the entry of ``KERNELS`` for a mapping of roles, or for what torch differentiates."""
    entry = value if isinstance(value, Mapping) else {"function": value}
    function = entry.get("function")
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        return {**entry, "function": function.apply}
    if isinstance(function, type) and issubclass(function, torch.nn.Module):
        return {**entry, "function": function()}
    return entry


def _held(function: Any, record: Operation) -> dict[str, Any]:
    """Return the parameters that a module holds: it is written for them."""
    if not isinstance(function, torch.nn.Module):
        return {}
    held = {name: getattr(function, name, None) for name in record.parameters}
    return {n: v for n, v in held.items() if v is not None and not isinstance(v, Tensor)}


def _taken_by_name(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of what a function takes by name; None where it takes any.

    A module takes what its ``forward`` does, and an autograd.Function nothing by name.
    """
    owner = getattr(function, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        return frozenset()
    if isinstance(function, torch.nn.Module):
        function = function.forward
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C: torch's own, which take what they document
        return None
    kinds = {p.name: p.kind for p in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(name for name, kind in kinds.items() if kind in by_name)
