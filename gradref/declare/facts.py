"""What is known of an elementwise function: what is declared, and what follows from its truth.

Mathematics leaves open where to look and which value to take: where a function has a kink and what
it is there, what it tends to at ±inf, and between which numbers a derivative crosses zero. That is
declared. Both sides of a kink, codomain, Lipschitz constant, symmetry, monotonicity and convexity
follow from it; Arb computes them when they are first read.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gradref.arrays import reject

Jet = tuple[float, float, float]
"""Value, first and second derivative at one point."""

Side = Literal["left", "right"]
Choice = tuple[Side | float, Side | float, Side | float]
"""What f, f′ and f″ are at a kink: the limit from one side, or a number."""

FROM_LEFT: Choice = ("left", "left", "left")
FROM_RIGHT: Choice = ("right", "right", "right")

NOT = ("not continuous", "not differentiable", "not twice differentiable")

_BITS = 256
_GOOD_BITS = 72
"""A ball is good once this many bits of it are certain."""

_TERMS = 8
"""Terms of the Taylor polynomial, about the next float, that gives a limit at a kink."""

_NOTHING = 2.0**-200
"""What may be 0 and is smaller is 0: all that is left of terms that cancel in _BITS."""

_DISTANCES = (0.03, 0.31, 0.72, 1.7, 4.3, 19.0, 83.0, 1.2e4)
"""Where both sides of 0 are compared."""


@dataclass(frozen=True, eq=False)
class Kink:
    """A point where f, f′ or f″ jumps: the limits from both sides, and what is chosen there."""

    at: float
    choice: Choice
    truth: Callable[[Any], Any]

    @cached_property
    def left(self) -> Jet:
        """The limits of f, f′ and f″ from the left."""
        return _limits(self.truth, self.at, math.nextafter(self.at, -math.inf))

    @cached_property
    def right(self) -> Jet:
        """The limits of f, f′ and f″ from the right."""
        return _limits(self.truth, self.at, math.nextafter(self.at, math.inf))

    @cached_property
    def chosen(self) -> Jet:
        """f, f′ and f″ at the point itself."""
        first, second, third = (
            getattr(self, choice)[order] if isinstance(choice, str) else choice
            for order, choice in enumerate(self.choice)
        )
        return first, second, third

    @property
    def claim(self) -> str:
        """What the function is not at this point."""
        jumps = [a != b for a, b in zip(self.left, self.right, strict=True)]
        return NOT[jumps.index(True)]


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of an elementwise function.

    Declared are its jets at ±inf (``limits``), the points where f, f′ or f″ jumps with a ``Choice``
    for each (``kinks``), and brackets of the isolated irrational zeros of f′ (1) and f″ (2), where
    float64 itself loses digits (``zeros``). Elsewhere f′ and f″ change their sign at 0 at most. A
    field that depends on the parameters is a function of them: ``limits=lambda alpha: ...``.

    :meth:`at` gives the facts for one setting of the parameters, with a :class:`Kink` for each
    point and with all that follows from the truth.
    """

    limits: Any
    kinks: Any = field(default_factory=dict)
    zeros: Any = field(default_factory=dict)
    truth: Callable[..., Any] | None = None

    def at(self, **parameters: Any) -> Facts:
        """Return the facts for one setting of the parameters."""
        from gradref.truth.jets import exactly  # Arb is loaded by who asks for a proof

        assert self.truth is not None  # the operation has it put in
        truth = functools.partial(self.truth, **exactly(parameters))
        declared = (self.limits, self.kinks, self.zeros)
        limits: Any
        kinks: Any
        limits, kinks, zeros = (f(**parameters) if callable(f) else f for f in declared)
        points = {at: Kink(at, choice, truth) for at, choice in kinks.items()}
        return Facts(limits, points, zeros, truth)

    @cached_property
    def roots(self) -> dict[int, list[float]]:
        """The zeros in the brackets of every order, by bisection to the last float below."""
        return {
            order: [self._bisected(order, *bracket) for bracket in brackets]
            for order, brackets in self.zeros.items()
        }

    @cached_property
    def codomain(self) -> tuple[float, float]:
        """The least and the greatest value: at ±inf, at a kink, or where f′ is 0."""
        chosen = [kink.chosen[0] for kink in self.kinks.values()]
        values = [*self._extremes(0), *chosen]
        return float(np.min(values)), float(np.max(values))

    @cached_property
    def lipschitz(self) -> float:
        """The greatest size of f′; inf where f jumps."""
        if any(kink.left[0] != kink.right[0] for kink in self.kinks.values()):
            return math.inf
        return float(np.max(np.abs(self._extremes(1))))

    @cached_property
    def symmetry(self) -> Literal["odd", "even"] | None:
        """Whether f(−x) is f(x), or 2 f(0) − f(x): odd about (0, f(0))."""
        middle = self.kinks[0.0].chosen[0] if 0.0 in self.kinks else self._value(0, 0.0)
        pairs = [(self._value(0, -x), self._value(0, x)) for x in _DISTANCES]
        if all(math.isclose(a, b, rel_tol=1e-15) for a, b in pairs):
            return "even"
        if all(math.isclose(a - middle, middle - b, rel_tol=1e-12) for a, b in pairs):
            return "odd"
        return None

    @cached_property
    def monotone(self) -> bool:
        """Whether f increases: f′ is nowhere negative, and f jumps upwards only."""
        jets = ((k.left[0], k.chosen[0], k.right[0]) for k in self.kinks.values())
        upwards = all(left <= chosen <= right for left, chosen, right in jets)
        return upwards and all(self._value(1, x) >= 0 for x in self._between(1))

    @cached_property
    def convex(self) -> bool:
        """Whether f is convex: f″ is nowhere negative, f has no jump, and f′ jumps upwards only."""
        sides = [(kink.left, kink.right) for kink in self.kinks.values()]
        bends_up = all(left[0] == right[0] and left[1] <= right[1] for left, right in sides)
        return bends_up and all(self._value(2, x) >= 0 for x in self._between(2))

    def _extremes(self, order: int) -> list[float]:
        """Return the values among which the extreme ones of f or f′ are; NaN where nobody knows."""
        at_infinity = [limit[order] for limit in self.limits.values()]
        sides = [side[order] for kink in self.kinks.values() for side in (kink.left, kink.right)]
        inner = [0.0, *self.roots.get(order + 1, ())]
        return [
            *at_infinity,
            *sides,
            *(self._value(order, x) for x in inner if x not in self.kinks),
        ]

    def _between(self, order: int) -> Iterator[float]:
        """Yield a point of every interval in which f′ or f″ does not change its sign."""
        ends = sorted({0.0, *self.kinks, *self.roots.get(order, ())})
        yield from (ends[0] - 1, ends[-1] + 1)
        yield from ((a + b) / 2 for a, b in itertools.pairwise(ends))

    def _value(self, order: int, x: float) -> float:
        return _limits(self._known_truth, x, x)[order]

    @property
    def _known_truth(self) -> Callable[[Any], Any]:
        assert self.truth is not None  # what follows from it is asked of ``at(...)``
        return self.truth

    def _bisected(self, order: int, low: float, high: float) -> float:
        start = self._value(order, low) > 0
        if start == (self._value(order, high) > 0):
            wants = "a bracket in which the sign changes"
            reject("zeros", f"{(low, high)} for order {order}", wants)
        while low < (middle := (low + high) / 2) < high:
            low, high = (
                (middle, high) if (self._value(order, middle) > 0) == start else (low, middle)
            )
        return low


def _limits(truth: Callable[[Any], Any], at: float, start: float) -> Jet:
    """Return f, f′ and f″ at a point as the function on the side of ``start`` continues them.

    They come from the Taylor polynomial about ``start``, which is an ulp away or the point itself.
    NaN where too little is certain.
    """
    from flint import arb, arb_series, ctx  # Arb is loaded by who asks for a proof

    with ctx.workprec(_BITS):
        series, step = truth(arb_series([start, 1], prec=_TERMS)), arb(at) - arb(start)
        value, slope, bend = (
            _to_float(
                sum(
                    (series[k] * math.perm(k, order) * step ** (k - order))
                    for k in range(order, _TERMS)
                )
            )
            for order in range(3)
        )
    return value, slope, bend


def _to_float(ball: Any) -> float:
    if ball.rel_accuracy_bits() >= _GOOD_BITS:
        value = float(ball)
    else:
        value = 0.0 if abs(ball) < _NOTHING else math.nan
    return value + 0.0  # which is 0 and not −0
