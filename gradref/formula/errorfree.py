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

from gradref.formula import float32

SPLIT = 2.0**27 + 1
"""What parts a float64 into two halves of its bits (Veltkamp)."""

DEEP = -600.0
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
    if s.dtype is torch.float32:
        return _in_two(_wide(a) + b)
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def two_product(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a·b as a rounded product and its exact error (Dekker 1971); 0 where that overflows."""
    p = torch.as_tensor(a * b)
    if p.dtype is torch.float32:
        return _in_two(_wide(a) * b)
    a, b = (torch.as_tensor(factor, dtype=p.dtype, device=p.device) for factor in (a, b))
    a_high, b_high = _high_half(a), _high_half(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    error = torch.as_tensor(error)
    return p, torch.where(error.abs() < math.inf, error, 0.0)


def _high_half(a: Tensor) -> Tensor:
    c = SPLIT * a
    return c - (c - a)


def _wide(a: Tensor | float) -> Tensor:
    return torch.as_tensor(a, dtype=torch.float64)


def _in_two(wide: Tensor) -> tuple[Tensor, Tensor]:
    """A float64, in which products of float32 are exact and sums to 53 bits, as two float32.

    Where a compiler rounds a product and a sum in one step, float32 alone could not tell what the
    error is of.
    """
    high = wide.to(torch.float32)
    low = (wide - high).to(torch.float32)
    return high, torch.where(low.abs() < math.inf, low, 0.0)


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


def some(condition: Tensor) -> bool:
    """Whether it may hold anywhere, so that a form for few numbers is left out where none are.

    On a CPU that is looked up. It may hold where nobody can tell, in a trace or under vmap, and on
    other devices, which would have to wait for the answer.
    """
    if torch.compiler.is_compiling() or condition.device.type != "cpu":
        return True
    try:
        return bool(condition.any())
    except RuntimeError:
        return True


def near_0(x: Tensor, a: Tensor, b: Tensor, elsewhere: Tensor, within: float) -> Tensor:
    """a + b for abs(x) < ``within``, and ``elsewhere``: the first two terms of a power series.

    They are added by :func:`sticky_sum`, as other forms round them before. In float32, where no
    tie is to be decided, it is ``elsewhere`` everywhere.
    """
    if x.dtype is not torch.float64:
        return elsewhere
    near = x.abs() < within
    return torch.where(near, sticky_sum(a, b), elsewhere) if some(near) else elsewhere


def near_root(x: Tensor, root: float32.Root, elsewhere: Tensor) -> Tensor:
    """``elsewhere``, in float32 without what its terms lose where they cancel."""
    return elsewhere if x.dtype is torch.float64 else float32.near(x, root, elsewhere)


def exp(t: Tensor) -> Tensor:
    """exp(t), in float32 so that it compiles to vector instructions."""
    return torch.exp(t) if t.dtype is torch.float64 else float32.exp(t)


def tanh(x: Tensor) -> Tensor:
    """tanh(x), in float32 so that it compiles to vector instructions."""
    return torch.tanh(x) if x.dtype is torch.float64 else float32.tanh(x)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x) for finite x ≥ 0, in float32 so that it compiles to vector instructions."""
    return torch.log1p(x) if x.dtype is torch.float64 else float32.log1p(x)


@dataclass(frozen=True)
class Exponential:
    """exp(t) = mantissa·scale·(1 + rest), where no factor is subnormal where c·exp(t) is not.

    Deep in the tail exp(t) has lost digits that c·exp(t) would still have; there the factors are
    exp(t + LIFT) and exp(−LIFT), in float32 powers of 2. The rest is what a tiny error of t makes,
    in float32 all between two powers of 2; it is added where a product is rounded.
    """

    mantissa: Tensor
    scale: Tensor
    rest: Tensor | None = None

    @classmethod
    def of(cls, t: Tensor, error: Tensor | None = None) -> Exponential:
        """exp(t + error) for a tiny ``error``."""
        if t.dtype is not torch.float64:
            return cls(*float32.exponential(t, error))
        deep = t < DEEP
        if not some(deep):
            return cls(torch.exp(t), torch.ones_like(t), error)
        mantissa = torch.exp(torch.where(deep, t + LIFT, t))
        return cls(mantissa, torch.where(deep, math.exp(-LIFT), torch.ones_like(t)), error)

    @property
    def value(self) -> Tensor:
        """exp(t) itself."""
        if self.rest is None:
            return self.mantissa * self.scale
        return (self.mantissa + self.mantissa * self.rest) * self.scale

    def times(self, c: Tensor | float) -> Tensor:
        """c·exp(t), without underflow before the last product."""
        if self.rest is None:
            return self.mantissa * c * self.scale
        if self.mantissa.dtype is not torch.float64:
            product = self.mantissa * c  # a power of 2: nothing is lost
            return (product + product * self.rest) * self.scale
        product, lost = two_product(self.mantissa, c)
        return (product + (lost + product * self.rest)) * self.scale


def times_exp(c: Tensor | float, t: Tensor, error: Tensor | None = None) -> Tensor:
    """c·exp(t + error) for a tiny ``error``, without underflow before the last product."""
    return Exponential.of(t, error).times(c)
