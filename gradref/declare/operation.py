"""The record of a declared function."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from gradref.arrays import describe, reject
from gradref.declare.chain import Chain
from gradref.declare.domains import REAL, Domain, Domains, Draw, Interval, Resolved
from gradref.declare.facts import NOT, Facts, Jet, Kink
from gradref.packages import packages

__all__ = [  # the vocabulary that the toolkit asks for by way of a record stands here too
    "NOT",
    "REAL",
    "Domain",
    "Draw",
    "Facts",
    "Interval",
    "Jet",
    "Kind",
    "Kink",
    "Operation",
    "Precision",
    "called",
    "choices",
    "formula_of",
    "operation",
]

Kind = Literal["elementwise", "rowwise", "loss", "batch"]
"""What an operation is a function of: a number, a row, a row and its target, or a whole batch."""

Coupled = Literal["dim", "class", "last"]
"""The dimension whose elements depend on each other: that of the argument ``dim``, that of the
classes or channels (the second, of a vector the first), or the last."""

Precision = Literal["relative", "absolute", "normwise", "absolute, normwise"]
"""What a usual algorithm keeps where the problem is well conditioned: every result to a few ulp,
or, where it takes the logarithm or the difference of numbers about 1, to a few units of 1. Where
it is normwise, a second derivative by one vector or two is kept to digits of its largest entry. A
loss may have both."""


def _not_made(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("the decorator that declares an operation makes its function")


@dataclass(eq=False)
class Operation:
    """One declared function: the callable, its truth, its witness, its facts, its derivatives.

    ``mistakes`` are what kernels of it are known to compute instead, by what is wrong with them.
    ``profile`` is the elementwise operation that a loss of one residual or one margin is made of,
    and ``chain`` how that number is made of its arguments. A loss of a batch has ``draw``, which
    gives all arrays of a call, in place of domains, and ``shares``, what each value counts for in a
    mean.
    """

    formula: Callable[..., Tensor]
    kind: Kind
    truth: Callable[..., Any]
    torch: Callable[..., Tensor] | None
    facts: Facts | None = None
    domains: Domains = field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] = ({},)
    differs: Mapping[str, str] = field(default_factory=dict)
    mistakes: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    coupled: Coupled | None = None
    parts: int = 1
    precision: Precision = "relative"
    mass: Callable[..., Tensor] | None = None
    truth_mass: Callable[..., Any] | None = None
    derivatives: dict[str, Callable[..., Any]] = field(default_factory=dict)
    profile: Operation | None = None
    chain: Chain | None = None
    draw: Callable[..., dict[str, Any]] | None = None
    shares: Callable[..., Any] | None = None

    value_and_gradients: Callable[..., tuple[Any, ...]] | None = field(default=None, repr=False)
    """Of a loss of a batch: the value and its gradients by several arguments, in one pass."""
    function: Callable[..., Any] = field(default=_not_made, repr=False)
    """The formula as it is called; who declares it puts it in."""
    name: str = field(init=False)
    signature: inspect.Signature = field(init=False, repr=False)
    """The formula's, without ``out``."""
    parameters: dict[str, Any] = field(init=False, repr=False)
    """Names and defaults of everything that is not a differentiable array."""
    arguments: tuple[str, ...] = field(init=False, repr=False)
    """The names of the arrays the operation is a function of."""
    shared: tuple[str, ...] = field(init=False, repr=False)
    """Those with one number for each class, which all rows share."""
    mass_arguments: tuple[inspect.Parameter, ...] = field(init=False, repr=False)
    """What the mass of a mean is a function of."""

    def __post_init__(self) -> None:
        """Look at the signatures once: it takes longer than a small array does."""
        self.name = self.formula.__name__
        if self.facts is not None:
            self.facts = replace(self.facts, truth=self.truth)
        self.signature = inspect.signature(self.formula)
        named = self.signature.parameters
        self.parameters = {n: p.default for n, p in named.items() if p.default is not p.empty}
        self.arguments = tuple(n for n in named if n not in self.parameters)
        arrays = self.array_domains(self.parameters)
        of_class = {name for name, domains in arrays.items() if domains[0].extent == "class"}
        self.shared = tuple(name for name in self.arguments if name in of_class)
        mass = inspect.signature(self.mass).parameters if self.mass is not None else {}
        self.mass_arguments = tuple(mass.values())

    def array_domains(self, given: Mapping[str, Any]) -> dict[str, tuple[Domain, ...]]:
        """Return what each array may hold, for the other arguments that are given."""
        domains: dict[str, tuple[Domain, ...]] = {}
        for name in self.domains:
            domain = self.domain(name, given)
            if not isinstance(domain, Interval):
                domains[name] = domain if isinstance(domain, tuple) else (domain,)
        return domains

    def domain(self, name: str, given: Mapping[str, Any]) -> Resolved:
        """Return where an argument has to lie, for the other arguments that are given."""
        domain = self.domains[name]
        return domain(**given) if callable(domain) else domain

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """The arguments that have a derivative: the values of ``wrt``."""
        if self.kind in ("elementwise", "rowwise"):
            return self.arguments
        choice = choices(formula_of(self.derivatives["gradient"]))
        return choice.get("wrt", self.arguments[:1])

    @cached_property
    def reductions(self) -> tuple[str, ...]:
        """The reductions on offer besides ``"none"``."""
        return tuple(r for r in choices(self.formula).get("reduction", ()) if r != "none")

    @property
    def package(self) -> str:
        """The package that declares it."""
        return self.module.partition(".")[0]

    @property
    def full_name(self) -> str:
        """The name that finds it: with the package, where that is in no entry point."""
        return self.name if self.package in packages() else f"{self.package}:{self.name}"

    @property
    def module(self) -> str:
        """Where the formula stands."""
        return self.formula.__module__


def choices(formula: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """Return the arguments annotated ``Literal``, and what each may be."""
    hints = typing.get_type_hints(formula)
    return {
        name: typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is Literal
    }


def formula_of(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return the formula of float64 tensors that a declared function evaluates."""
    formula: Callable[..., Tensor] | None = getattr(function, "formula", None)
    return operation(function).formula if formula is None else formula


def operation(function: Callable[..., Any]) -> Operation:
    """Return the record behind a declared function of rows, or behind one of its derivatives."""
    record = getattr(function, "operation", None)
    if not isinstance(record, Operation):
        reject(
            "function", describe(function), "a function declared with gradref.declare", TypeError
        )
    if record.kind == "batch":
        wants = f"a function of rows: call {record.name}_gradient, or gradref.as_autograd"
        reject("function", record.name, wants, TypeError)
    return record


def called(name: str, parameters: Mapping[str, Any]) -> str:
    """Return an operation with what is not default, as a person writes it."""
    shown = (
        (n, f"<{v.draw}>" if isinstance(v, Domain) else repr(v)) for n, v in parameters.items()
    )
    given = ", ".join(f"{name}={value}" for name, value in shown)
    return f"{name}({given})" if given else name
