"""Floating-point building blocks that keep what an ordinary operation rounds away.

The formulas use them where float64 alone would lose digits that a user can see: in the exponent of
a tail, and in a sum whose rounded value lies exactly between two bfloat16 numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SPLIT = 2.0**27 + 1


def two_sum(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a + b as a rounded sum and its exact error (Knuth, TAOCP 2, 4.2.2)."""
    s = torch.as_tensor(a + b)
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def two_product(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a·b as a rounded product and its exact error (Dekker 1971); 0 where that overflows."""
    p = torch.as_tensor(a * b)
    a_high, b_high = _high_half(a), _high_half(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    return p, torch.as_tensor(error).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _high_half(a: Tensor | float) -> Tensor | float:
    c = _SPLIT * a
    return c - (c - a)


def sticky_sum(a: Tensor, b: Tensor) -> Tensor:
    """a + b, where what is rounded away still decides a later rounding to a shorter format.

    A sum of at most 25 bits can be a tie of such a format. If it is not exact it moves one ulp to
    the side of its error, as a sticky bit does in hardware (Boldo and Melquiond 2008).
    """
    s, error = two_sum(a, b)
    may_tie = (s.view(torch.int64) & (2**28 - 1)) == 0
    neighbour = torch.nextafter(s, torch.copysign(torch.full_like(s, math.inf), error))
    return torch.where(b == 0, a, torch.where(may_tie & (error != 0), neighbour, s))


def times_exp(c: Tensor | float, t: Tensor, error: Tensor | None = None) -> Tensor:
    """c·exp(t + error) for a tiny ``error``, without underflow before the last product.

    Deep in the tail exp(t) is subnormal and has lost digits that c·exp(t) would still have; there
    exp(t + 64)·c·exp(−64) has them, and t + 64 is exact.
    """
    deep = t < -600
    lift = torch.where(deep, math.exp(-64), torch.ones_like(t))
    y, rest = two_product(torch.exp(t + 64 * deep), c)
    return y * lift if error is None else (y + (rest + y * error)) * lift
