"""What float64 cannot decide: declared points, ties near 0, and the rest one by one, with Arb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradref.declare.operation import Facts
from gradref.judge.elementwise import declared_jets, settle_ties
from gradref.judge.gates import Mask
from gradref.judge.ulp import errors, spacing
from gradref.truth.jets import Balls, Floats, Line, jets, line_at_zero

SMALLEST, FARTHEST = 2.0**-149, 2.0**128
"""Between them lie the magnitudes of all float32 numbers other than 0."""

JUST_ABOVE_HALF = float(np.nextafter(0.5, 1.0))


@dataclass(frozen=True)
class Settled:
    """Errors in ulp that are proved, with the truth; NaN where undecided at the cap of bits."""

    ulp: Floats
    truth: Floats
    by_line: int
    by_arb: int

    @property
    def undecided(self) -> int:
        """How many were left."""
        return int(np.isnan(self.ulp).sum())


@dataclass(frozen=True)
class Settler:
    """Settles the errors of f, f′ or f″ in one dtype."""

    truth: Callable[..., Any]
    order: int
    dtype: torch.dtype
    facts: Facts
    parameters: dict[str, Any]

    def settle(self, x: Floats, got: Floats) -> Settled:
        """The error of ``got`` at every x; a NaN wants a NaN."""
        ulp, truth = np.full(len(x), np.nan), np.full(len(x), np.nan)
        todo = ~np.isnan(x)
        ulp[~todo] = np.where(np.isnan(got[~todo]), 0.0, np.inf)
        for at, jet in declared_jets(self.facts).items():
            here = todo & (x == at)
            if here.any():
                truth[here] = jet[self.order]
                ulp[here] = errors(got[here], Balls.exactly(truth[here]), self.dtype)
                todo &= ~here
        by_line = 0
        for line, side in zip(self.lines, (x < 0, x > 0), strict=True):
            if line is not None:
                where = np.flatnonzero(todo & side & (np.abs(x) <= line.reach))
                tied, beyond, on_line = _ties(line, x[where], got[where], self.dtype)
                where = where[tied]
                ulp[where], truth[where] = np.where(beyond, JUST_ABOVE_HALF, 0.5), on_line
                todo[where] = False
                by_line += len(where)
        rest = np.flatnonzero(todo)
        balls = jets(self.truth, x[rest], **self.parameters)[self.order]
        exact = errors(got[rest], balls, self.dtype)
        settle_ties(
            exact, self.truth, self.order, x[rest], got[rest], balls, self.dtype, self.parameters
        )
        ulp[rest] = np.where(np.isnan(balls.high), np.nan, exact)
        truth[rest] = balls.high
        return Settled(ulp, truth, by_line, len(rest))

    @property
    def exact(self) -> list[tuple[float, float]]:
        """The sides on which the truth is a multiple of x that float64 holds."""
        sides = ((-FARTHEST, -SMALLEST), (SMALLEST, FARTHEST))
        return [
            side
            for line, side in zip(self.lines, sides, strict=True)
            if line is not None
            and (line.side, line.value, line.reach) == (0, 0.0, FARTHEST)
            and _fits(line.slope)
        ]

    @functools.cached_property
    def lines(self) -> tuple[Line | None, ...]:
        """The lines on the negative and on the positive side of 0."""
        return tuple(
            line_at_zero(self.truth, self.order, sign, **self.parameters) for sign in (-1, 1)
        )


def _ties(line: Line, x: Floats, got: Floats, dtype: torch.dtype) -> tuple[Mask, Mask, Floats]:
    """Where ``got`` is just half an ulp beside the line, which of those are beyond, the line there.

    The truth is on the side of the line's remainder, or in a tie that only an even ``got`` wins.
    The numbers have at most 24 bits, so that a slope of few bits makes an exact product.
    """
    product = x * line.slope
    on_line = line.value + product
    with np.errstate(invalid="ignore", divide="ignore"):
        is_exact = np.where(line.slope == 0, True, product / line.slope == x)
        is_exact &= _fits(line.slope) & (on_line - line.value == product)
        is_exact &= on_line - product == line.value
        distance = got - on_line
        half = spacing(on_line, dtype) / 2
        tied = is_exact & (np.abs(distance) == half)
        tied &= line.bound * np.abs(x) ** line.power < half
    distance, got, half = distance[tied], got[tied], half[tied]
    odd = (got / (2 * half)) % 2 != 0
    return tied, odd if line.side == 0 else np.sign(distance) != line.side, on_line[tied]


def _fits(slope: float) -> bool:
    """Whether the product of the slope and a float32 number is exact in float64."""
    mantissa, _ = np.frexp(slope)
    return bool(mantissa * 2.0**29 == np.round(mantissa * 2.0**29))
