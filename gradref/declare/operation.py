"""What is known of a declared function: its domain, its facts, its kinks, its record."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor

from gradref.arrays import Extent, describe, reject

Draw = Literal["real", "unit", "distribution", "log_probability", "index", "weight"]
Kind = Literal["elementwise", "rowwise", "loss"]
Precision = Literal["relative", "absolute"]
"""What a usual algorithm keeps where the problem is well conditioned: every result to a few ulp,
or, where it takes the logarithm or the difference of numbers about 1, to a few units of 1."""

Jet = tuple[float, float, float]
"""Value, first and second derivative at one point."""


@dataclass(frozen=True)
class Number:
    """Which values a numeric parameter may take."""

    wants: str
    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    open_low: bool = False
    integer: bool = False

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        below = value <= self.low if self.open_low else value < self.low
        return below or value > self.high


@dataclass(frozen=True)
class Domain:
    """Which values an array may hold: checked on every call, drawn from in every test.

    ``extent`` says how far the array reaches: over every element of the input, over its rows
    (a class index each) or over its classes (a weight each); ``draw`` says how tests fill it.
    """

    wants: str
    low: float = -math.inf
    high: float = math.inf
    extent: Extent = "element"
    integer: bool = False
    broadcasts: bool = False
    draw: Draw = "real"

    def excludes(self, array: Tensor) -> Tensor:
        """Where ``array`` lies outside; a NaN lies nowhere outside."""
        return (array < self.low) | (array > self.high)


REAL = Domain("real numbers")
UNIT_INTERVAL = Domain("probabilities in [0, 1]", 0.0, 1.0, draw="unit")
DISTRIBUTION = Domain("probabilities in [0, 1]", 0.0, 1.0, draw="distribution")
LOG_PROBABILITY = Domain("log-probabilities", draw="log_probability")
CLASS_INDEX = Domain("class indices", low=0.0, extent="row", integer=True, draw="index")
WEIGHT = Domain("weights >= 0", low=0.0, broadcasts=True, draw="weight")
CLASS_WEIGHT = Domain("a weight >= 0 for each class", low=0.0, extent="class", draw="weight")

ANY_NUMBER = Number("a finite number")
INDEX_NUMBER = Number("an int of 64 bits", low=-(2**63), high=2**63 - 1, integer=True)
NON_NEGATIVE_NUMBER = Number("a finite number >= 0", low=0.0)
POSITIVE_NUMBER = Number("a finite number > 0", low=0.0, open_low=True)
THRESHOLD = Number("a number", low=-math.inf, high=math.inf)
LOGARITHM_BASE = Number("a base > 1", low=1.0, open_low=True)
UNIT_NUMBER = Number("a number in [0, 1]", low=0.0, high=1.0)

Domains = Mapping[str, Number | Domain | tuple[Domain, Domain] | Callable[..., Domain]]
"""The domain of each argument: one; one of two, as the array's dtype picks (index or float); or a
function of the other arguments."""


NOT = ("not continuous", "not differentiable", "not twice differentiable")


@dataclass(frozen=True)
class Kink:
    """A point where f, f′ or f″ jumps: the jets on either side, and the one that is chosen."""

    left: Jet
    right: Jet
    chosen: Jet

    @property
    def claim(self) -> str:
        """What the function is not at this point."""
        jumps = [a != b for a, b in zip(self.left, self.right, strict=True)]
        return NOT[jumps.index(True)]


@dataclass(frozen=True)
class Facts:
    """What is known of an elementwise function; every field is tested, also a ``False``.

    ``zeros`` brackets the isolated irrational zeros of f′ (1) and f″ (2), where float64 itself
    loses digits; ``"odd"`` is odd about (0, f(0)); codomain and Lipschitz constant are exact.

    A field that depends on the parameters is a function of them: ``limits=lambda alpha: ...``.
    """

    limits: Any
    codomain: Any
    lipschitz: Any
    kinks: Any = field(default_factory=dict)
    zeros: Mapping[int, Sequence[tuple[float, float]]] = field(default_factory=dict)
    symmetry: Literal["odd", "even"] | None = None
    monotone: bool | Callable[..., bool] = False
    convex: bool | Callable[..., bool] = False

    def at(self, **parameters: Any) -> Facts:
        """The facts for one setting of the parameters."""
        values: dict[str, Any] = {
            name: fact(**parameters) if callable(fact) else fact
            for name, fact in vars(self).items()
        }
        return Facts(**values)


@dataclass(eq=False)
class Operation:
    """One declared function: the callable, its truth, its witness, its facts, its derivatives."""

    name: str
    kind: Kind
    function: Callable[..., Any]
    formula: Callable[..., Tensor]
    truth: Callable[..., Any]
    torch: Callable[..., Tensor] | None
    facts: Facts | None = None
    domains: Domains = field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] = ({},)
    differs: Mapping[str, str] = field(default_factory=dict)
    coupled: Literal["dim", "class"] | None = None
    precision: Precision = "relative"
    mass: Callable[..., Tensor] | None = None
    truth_mass: Callable[..., Any] | None = None
    derivatives: dict[str, Callable[..., Any]] = field(default_factory=dict)

    signature: inspect.Signature = field(init=False, repr=False)
    """The formula's, without ``out``."""
    parameters: dict[str, Any] = field(init=False, repr=False)
    """Names and defaults of everything that is not a differentiable array."""
    arguments: tuple[str, ...] = field(init=False, repr=False)
    """The names of the arrays the operation is a function of."""
    mass_arguments: tuple[inspect.Parameter, ...] = field(init=False, repr=False)
    """What the mass of a mean is a function of."""

    def __post_init__(self) -> None:
        """Look at the signatures once: it takes longer than a small array does."""
        self.signature = inspect.signature(self.formula)
        named = self.signature.parameters
        self.parameters = {n: p.default for n, p in named.items() if p.default is not p.empty}
        self.arguments = tuple(n for n in named if n not in self.parameters)
        mass = inspect.signature(self.mass).parameters if self.mass is not None else {}
        self.mass_arguments = tuple(mass.values())

    def array_domains(self, given: Mapping[str, Any]) -> dict[str, tuple[Domain, ...]]:
        """What each array may hold, for the other arguments that are given."""
        domains: dict[str, tuple[Domain, ...]] = {}
        for name, domain in self.domains.items():
            if isinstance(domain, tuple):
                domains[name] = domain
            elif isinstance(domain, Domain):
                domains[name] = (domain,)
            elif not isinstance(domain, Number):
                domains[name] = (domain(**given),)
        return domains

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The arguments that have a gradient: the values of ``wrt``."""
        if self.kind != "loss":
            return ("x",)
        return choices(inspect.unwrap(self.derivatives["gradient"]))["wrt"]

    @property
    def reductions(self) -> tuple[str, ...]:
        """The reductions on offer besides ``"none"``."""
        return tuple(r for r in choices(self.formula).get("reduction", ()) if r != "none")

    @property
    def package(self) -> str:
        """The package that declares it."""
        return self.module.partition(".")[0]

    @property
    def module(self) -> str:
        """Where the formula stands."""
        return self.formula.__module__


@functools.cache
def choices(formula: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """The arguments annotated ``Literal``, and what each may be."""
    hints = typing.get_type_hints(formula)
    return {
        name: typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is Literal
    }


def operation(function: Callable[..., Any]) -> Operation:
    """The record behind a declared function or behind one of its derivatives."""
    record = getattr(function, "operation", None)
    if not isinstance(record, Operation):
        reject(
            "function", describe(function), "a function declared with gradref.declare", TypeError
        )
    return record


def called(name: str, parameters: Mapping[str, Any]) -> str:
    """An operation with what is not default, as a person writes it."""
    shown = (
        (n, f"<{v.draw}>" if isinstance(v, Domain) else repr(v)) for n, v in parameters.items()
    )
    given = ", ".join(f"{name}={value}" for name, value in shown)
    return f"{name}({given})" if given else name


def operations(*names: str) -> list[Operation]:
    """Every operation of the packages in the entry-point group ``gradref.operations``.

    ``names`` selects operations by name, or every operation of a package by the package's name;
    that one need not be in the group.
    """
    packages = _packages()
    found = [(package, record) for package in packages for record in declared(package)]
    known = {record.name for _, record in found}
    for name in names:
        if name not in known and name not in packages:
            others = list(declared(name)) if _is_importable(name) else []
            if not others:
                wants = f"one of {', '.join(sorted(known))}, or a package that declares operations"
                reject("operation", repr(name), wants)
            found += [(name, record) for record in others]
    chosen = set(names)
    return [record for package, record in found if not names or chosen & {record.name, package}]


@functools.cache
def _packages() -> list[str]:
    """Return the packages of the entry-point group, which are looked up on the disk."""
    return sorted(entry.value for entry in entry_points(group="gradref.operations"))


def _is_importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def declared(package: str) -> Iterator[Operation]:
    """The operations declared in a package among its public names, in the order of its source."""
    module = import_module(package)
    for value in vars(module).values():
        record = getattr(value, "operation", None)
        if not isinstance(record, Operation) or record.function is not value:
            continue
        if f"{record.module}.".startswith(f"{package}."):  # and not imported from another one
            yield record
