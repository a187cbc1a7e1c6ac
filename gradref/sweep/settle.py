"""Settle the inputs that float64 cannot decide: declared points, ties of lines, the rest by Arb.

Some functions come close to a tie at very many inputs: silu of a subnormal x is x/2 + x²/4, and x/2
is a tie for every odd x; softshrink takes ½ from integers of 24 bits. There a proved linear
expansion says, for all of them at once, on which side of the tie the truth is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradref.declare.operation import Facts
from gradref.formula.errorfree import two_product
from gradref.judge.elementwise import declared_jets, settle_ties
from gradref.judge.gates import SMALLEST_FLOAT32, Mask
from gradref.judge.ulp import errors, spacing, to_floats
from gradref.sweep.chunks import BEYOND_FLOAT32
from gradref.truth.jets import (
    Balls,
    Floats,
    LinearExpansion,
    asymptote,
    jets,
    line_to_infinity,
    linear_expansion_at_zero,
)

JUST_ABOVE_HALF = float(np.nextafter(0.5, 1.0))

SMALL = 2.0**-500
"""A slope above it leaves no product with a float32 among the subnormal numbers of float64."""


@dataclass(frozen=True)
class Settled:
    """Proved errors in ulp, with the truth; NaN where the cap of bits decides nothing."""

    ulp: Floats
    truth: Floats
    by_expansion: int
    by_arb: int

    @property
    def undecided(self) -> int:
        """Return how many are left undecided."""
        return int(np.isnan(self.ulp).sum())


@dataclass(frozen=True)
class Settler:
    """Decides the errors of f, f′ or f″ in one dtype, without the formula in float64."""

    truth: Callable[..., Any]
    order: int
    dtype: torch.dtype
    facts: Facts
    parameters: dict[str, Any]

    def settle(self, x: Floats, got: Floats) -> Settled:
        """Return the error of ``got`` at each x; for an x of NaN only NaN is right."""
        ulp, truth = np.full(len(x), np.nan), np.full(len(x), np.nan)
        todo = ~np.isnan(x)
        ulp[~todo] = np.where(np.isnan(got[~todo]), 0.0, np.inf)
        for at, jet in declared_jets(self.facts).items():
            here = todo & (x == at)
            if here.any():
                truth[here] = jet[self.order]
                ulp[here] = errors(got[here], Balls.exactly(truth[here]), self.dtype)
                todo &= ~here
        by_expansion = 0
        size, sides = np.abs(x), (x < 0, x > 0)
        for line, side in zip(self.lines, sides, strict=True):
            if line is not None and line.value == 0 and abs(line.slope) > SMALL:
                where = np.flatnonzero(todo & side & (size >= line.begin) & np.isfinite(got))
                ulp[where], truth[where] = _off_line(line, x[where], got[where], self.dtype)
                todo[where] = False
                by_expansion += len(where)
        linear_parts = (*self.expansions, *self.lines, *self.asymptotes)
        for expansion, side in zip(linear_parts, 3 * sides, strict=True):
            if expansion is not None:
                inside = (size >= expansion.begin) & (size <= expansion.reach)
                where = np.flatnonzero(todo & side & inside)
                tied, beyond, linear = _ties(expansion, x[where], got[where], self.dtype)
                where = where[tied]
                ulp[where], truth[where] = np.where(beyond, JUST_ABOVE_HALF, 0.5), linear
                todo[where] = False
                by_expansion += len(where)
        rest = np.flatnonzero(todo)
        balls = jets(self.truth, x[rest], **self.parameters)[self.order]
        exact = errors(got[rest], balls, self.dtype)
        settle_ties(
            exact, self.truth, self.order, x[rest], got[rest], balls, self.dtype, self.parameters
        )
        ulp[rest] = np.where(np.isnan(balls.high), np.nan, exact)
        truth[rest] = balls.high
        return Settled(ulp, truth, by_expansion, len(rest))

    @property
    def exact(self) -> list[tuple[float, float]]:
        """Return the sides of 0 where the truth is a multiple of x that float64 holds exactly."""
        sides = ((-BEYOND_FLOAT32, -SMALLEST_FLOAT32), (SMALLEST_FLOAT32, BEYOND_FLOAT32))
        return [
            side
            for expansion, side in zip(self.expansions, sides, strict=True)
            if expansion is not None
            and (expansion.side, expansion.value, expansion.reach) == (0, 0.0, BEYOND_FLOAT32)
            and _fits(expansion.slope)
        ]

    @functools.cached_property
    def expansions(self) -> tuple[LinearExpansion | None, ...]:
        """Return the linear expansions on the negative and on the positive side of 0."""
        return tuple(
            linear_expansion_at_zero(self.truth, self.order, sign, **self.parameters)
            for sign in (-1, 1)
        )

    @functools.cached_property
    def lines(self) -> tuple[LinearExpansion | None, ...]:
        """Return the lines that the truth is far from 0, on the negative and the positive side."""
        last_kink = max(map(abs, self.facts.kinks), default=0.0)
        return tuple(
            line_to_infinity(self.truth, self.order, sign, last_kink, **self.parameters)
            for sign in (-1, 1)
        )

    @functools.cached_property
    def asymptotes(self) -> tuple[LinearExpansion | None, ...]:
        """Return what f tends to, on the negative and on the positive side."""
        if self.order:
            return None, None
        changes = [abs(end) for bracket in self.facts.zeros.get(2, ()) for end in bracket]
        last_change = max([*changes, *map(abs, self.facts.kinks)], default=0.0)
        return tuple(
            asymptote(self.truth, sign, last_change, **self.parameters) for sign in (-1, 1)
        )


def _off_line(
    line: LinearExpansion, x: Floats, got: Floats, dtype: torch.dtype
) -> tuple[Floats, Floats]:
    """Return the errors off a line through 0, in ulp, and the line.

    Where it comes within the rounding error of the product to a tie, that error decides.
    """
    product, rest = (to_floats(part) for part in two_product(torch.from_numpy(x), line.slope))
    distance, unit = got - product, spacing(product, dtype)
    ulp = np.abs(distance) / unit
    odd = (got / unit) % 2 != 0
    beyond = np.where(rest == 0, odd, np.sign(rest) != np.sign(distance))
    return np.where((ulp == 0.5) & beyond, JUST_ABOVE_HALF, ulp), product


def _ties(
    expansion: LinearExpansion, x: Floats, got: Floats, dtype: torch.dtype
) -> tuple[Mask, Mask, Floats]:
    """Return where the linear part is a tie; there, whether ``got`` is wrong, and the linear part.

    Of the two nearest results the one on the side of the remainder is right; without a remainder
    the even one. A tie counts only where the linear part is exact in float64.
    """
    product = x * expansion.slope
    linear = expansion.value + product
    with np.errstate(invalid="ignore", divide="ignore"):
        is_exact = np.where(expansion.slope == 0, True, product / expansion.slope == x)
        is_exact &= _fits(expansion.slope) & (linear - expansion.value == product)
        is_exact &= linear - product == expansion.value
        distance = got - linear
        half = spacing(linear, dtype) / 2
        tied = is_exact & (np.abs(distance) == half)
        tied &= expansion.bound * np.abs(x) ** expansion.power < half
    distance, got, half = distance[tied], got[tied], half[tied]
    odd = (got / (2 * half)) % 2 != 0
    return tied, odd if expansion.side == 0 else np.sign(distance) != expansion.side, linear[tied]


def _fits(slope: float) -> bool:
    """Return whether the product of the slope and any float32 number is exact in float64."""
    mantissa, _ = np.frexp(slope)
    return bool(mantissa * 2.0**29 == np.round(mantissa * 2.0**29))
