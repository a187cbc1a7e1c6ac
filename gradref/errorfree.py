"""Floating-point building blocks that keep what an ordinary operation rounds away.

The formulas use them where float64 alone would lose digits that a user can see: in the exponent of
a tail, and in a sum whose rounded value lies exactly between two bfloat16 numbers. In float32,
which formulas are compiled in for speed, what only decides ties is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SPLIT = {torch.float64: 2.0**27 + 1, torch.float32: 2.0**12 + 1}
"""What parts a number into two halves of its bits (Veltkamp)."""

DEEP = {torch.float64: -600.0, torch.float32: -40.0}
"""Below it exp(t) is on its way to subnormal numbers, which have lost digits."""

LIFT = 64.0
"""How far an exponent is lifted there: t + LIFT is exact."""


def parts(constant: tuple[float, float], like: Tensor) -> tuple[float, float]:
    """A constant of about 106 bits as a number of the dtype of ``like`` and what is left of it."""
    if like.dtype is torch.float64:
        return constant
    high = torch.tensor(constant[0], dtype=like.dtype).item()
    return high, constant[0] - high


def two_sum(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a + b as a rounded sum and its exact error (Knuth, TAOCP 2, 4.2.2)."""
    s = torch.as_tensor(a + b)
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def two_product(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a·b as a rounded product and its exact error (Dekker 1971); 0 where that overflows."""
    p = torch.as_tensor(a * b)
    a, b = (torch.as_tensor(factor, dtype=p.dtype, device=p.device) for factor in (a, b))
    a_high, b_high = _high_half(a), _high_half(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    error = torch.as_tensor(error)
    return p, torch.where(error.abs() < math.inf, error, 0.0)


def _high_half(a: Tensor) -> Tensor:
    c = SPLIT[a.dtype] * a
    return c - (c - a)


def sticky_sum(a: Tensor, b: Tensor) -> Tensor:
    """a + b, where what is rounded away still decides a later rounding to a shorter format.

    A sum of at most 25 bits can be a tie of such a format. If it is not exact it moves one ulp to
    the side of its error, as a sticky bit does in hardware (Boldo and Melquiond 2008).
    """
    if a.dtype is not torch.float64:
        return a + b
    s, error = two_sum(a, b)
    may_tie = (s.view(torch.int64) & (2**28 - 1)) == 0
    neighbour = torch.nextafter(s, torch.copysign(torch.full_like(s, math.inf), error))
    return torch.where(b == 0, a, torch.where(may_tie & (error != 0), neighbour, s))


def near_0(x: Tensor, a: Tensor, b: Tensor, elsewhere: Tensor, within: float) -> Tensor:
    """a + b for abs(x) < ``within``, and ``elsewhere``: the first two terms of a power series.

    They are added by :func:`sticky_sum`, as other forms round them before. In float32, where no
    tie is to be decided, it is ``elsewhere`` everywhere.
    """
    if x.dtype is not torch.float64:
        return elsewhere
    return torch.where(x.abs() < within, sticky_sum(a, b), elsewhere)


@dataclass(frozen=True)
class Exponential:
    """exp(t) as ``mantissa``·``scale``, of which no factor is subnormal where c·exp(t) is not.

    Deep in the tail exp(t) has lost digits that c·exp(t) would still have; there the factors are
    exp(t + LIFT) and exp(−LIFT).
    """

    mantissa: Tensor
    scale: Tensor

    @classmethod
    def of(cls, t: Tensor) -> Exponential:
        """exp(t)."""
        deep = t < DEEP[t.dtype]
        mantissa = torch.exp(torch.where(deep, t + LIFT, t))
        return cls(mantissa, torch.where(deep, math.exp(-LIFT), torch.ones_like(t)))

    @property
    def value(self) -> Tensor:
        """exp(t) itself."""
        return self.mantissa * self.scale

    def times(self, c: Tensor | float, error: Tensor | None = None) -> Tensor:
        """c·exp(t + error) for a tiny ``error``, without underflow before the last product."""
        if self.mantissa.dtype is not torch.float64:
            corrected = self.mantissa if error is None else self.mantissa * (1 + error)
            return corrected * c * self.scale
        product, rest = two_product(self.mantissa, c)
        if error is None:
            return product * self.scale
        return (product + (rest + product * error)) * self.scale


def times_exp(c: Tensor | float, t: Tensor, error: Tensor | None = None) -> Tensor:
    """c·exp(t + error) for a tiny ``error``, without underflow before the last product."""
    return Exponential.of(t).times(c, error)
