"""Settle the inputs that float64 cannot decide: declared points, ties near 0, and the rest by Arb.

Near 0 some functions come close to a tie at very many inputs: silu of a subnormal x is x/2 + x²/4,
and x/2 is a tie for every odd x. There a proved linear expansion says, for all of them at once, on
which side of the tie the truth is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradref.declare.operation import Facts
from gradref.judge.elementwise import declared_jets, settle_ties
from gradref.judge.gates import SMALLEST_FLOAT32, Mask
from gradref.judge.ulp import errors, spacing
from gradref.sweep.chunks import BEYOND_FLOAT32
from gradref.truth.jets import Balls, Floats, LinearExpansion, jets, linear_expansion_at_zero

JUST_ABOVE_HALF = float(np.nextafter(0.5, 1.0))


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
        for expansion, side in zip(self.expansions, (x < 0, x > 0), strict=True):
            if expansion is not None:
                where = np.flatnonzero(todo & side & (np.abs(x) <= expansion.reach))
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
