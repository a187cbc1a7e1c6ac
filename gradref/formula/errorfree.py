"""Error-free transformations: sums and products with the error that rounding makes in them.

Formulas use them where float64 alone would lose digits that a user can see: in the exponent of a
tail, and in a sum that is a tie between two bfloat16 numbers once it is rounded. In float32, which
formulas are compiled in for speed, what only decides ties is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradref.formula import float32

SPLIT = 2.0**27 + 1
"""Veltkamp's factor, by which a float64 is split into two halves of its bits."""

DEEP = -600.0
"""Below it exp(t) comes near the subnormal numbers, which have lost bits."""

LIFT = 64.0
"""What is added to such a t; the sum is exact."""


def parts(constant: tuple[float, float], like: Tensor) -> tuple[float, float]:
    """Return a constant of about 106 bits as a number in the dtype of ``like`` and its rest."""
    if like.dtype is torch.float64:
        return constant
    high = torch.tensor(constant[0], dtype=like.dtype).item()
    return high, constant[0] - high


def floor_to(number: float, like: Tensor) -> float:
    """Return the greatest number in the dtype of ``like`` that is not above ``number``.

    An element exceeds the one exactly when it exceeds the other: a comparison rounds its numbers.
    """
    nearest = torch.tensor(number, dtype=like.dtype)
    below = torch.nextafter(nearest, torch.tensor(-math.inf, dtype=like.dtype))
    return nearest.item() if nearest.item() <= number else below.item()


def two_sum(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return a + b as a rounded sum and its exact error (Knuth, TAOCP 2, 4.2.2)."""
    s = torch.as_tensor(a + b)
    if s.dtype is torch.float32:
        return _as_float32_and_rest(_wide(a) + b)
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def shifted_difference(x: Tensor, y: Tensor, shift: float) -> Tensor:
    """Return x − y + shift, with what rounding the difference has lost."""
    rounded, lost = two_sum(x, -y)
    return rounded + shift + torch.where(lost.isnan(), 0.0, lost)


def two_product(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return a·b as a rounded product and its exact error (Dekker 1971); 0 if that overflows."""
    p = torch.as_tensor(a * b)
    if p.dtype is torch.float32:
        return _as_float32_and_rest(_wide(a) * b)
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


def _as_float32_and_rest(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return a float64 as a float32 and the remainder.

    Float64 holds the product of two float32 exactly, and their sum to 53 bits. Float32 alone would
    not do: a compiler may fuse a product and a sum into one rounding, whose error is another one.
    """
    high = wide.to(torch.float32)
    low = (wide - high).to(torch.float32)
    return high, torch.where(low.abs() < math.inf, low, 0.0)


def scaled_exponent(x: Tensor, alpha: float) -> tuple[Tensor, Tensor | None]:
    """Return t = min(x, 0)/α for exp(t), at least −1000, and its rounding error, if any."""
    if alpha == 1:
        return x.clamp(max=0), None
    fraction, power = math.frexp(alpha)
    half = -power // 2  # of a power of 2 that may not be a float
    scaled = x * 2.0**half * 2.0 ** (-power - half)
    t = (scaled / fraction).clamp(-1000, 0)
    product, error = two_product(t, fraction)
    lost = ((scaled - product) - error) / fraction
    return t, torch.where((t > -1000) & (t < 0), lost, 0.0)


def sticky_sum(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b so that rounding it again, to a shorter format, rounds the exact sum.

    A sum of at most 25 bits may be a tie of such a format. If it is inexact, it is moved one ulp
    towards the exact sum, as by the sticky bit of hardware (Boldo and Melquiond 2008).
    """
    if a.dtype is not torch.float64:
        return a + b
    s, error = two_sum(a, b)
    may_tie = (s.view(torch.int64) & (2**28 - 1)) == 0
    neighbour = torch.nextafter(s, torch.copysign(torch.full_like(s, math.inf), error))
    return torch.where(b == 0, a, torch.where(may_tie & (error != 0), neighbour, s))


def may_hold(condition: Tensor) -> bool:
    """Return whether a condition may hold anywhere, to skip a form that no number needs.

    On a CPU the numbers are looked at. Else the answer is True: a trace and vmap have no numbers,
    and another device would have to be waited for.
    """
    if torch.compiler.is_compiling() or condition.device.type != "cpu":
        return True
    try:
        return bool(condition.any())
    except RuntimeError:
        return True


def near_0(x: Tensor, a: Tensor, b: Tensor, elsewhere: Tensor, within: float) -> Tensor:
    """Return a + b, the first two terms of a power series, for abs(x) < ``within``.

    Their sum is a :func:`sticky_sum`; other forms round each term before. For other x, and in
    float32, where no tie is to be decided, return ``elsewhere``.
    """
    if x.dtype is not torch.float64:
        return elsewhere
    near = x.abs() < within
    return torch.where(near, sticky_sum(a, b), elsewhere) if may_hold(near) else elsewhere


def near_root(x: Tensor, root: float32.Root, elsewhere: Tensor) -> Tensor:
    """Return ``elsewhere``; in float32 a polynomial about the root, where its terms cancel."""
    return elsewhere if x.dtype is torch.float64 else float32.near(x, root, elsewhere)


def exp(t: Tensor) -> Tensor:
    """Return exp(t), in float32 so that it compiles to vector instructions."""
    return torch.exp(t) if t.dtype is torch.float64 else float32.exp(t)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x), in float32 so that it compiles to vector instructions."""
    return torch.tanh(x) if x.dtype is torch.float64 else float32.tanh(x)


def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), for finite x > −1; in float32 it compiles to vector instructions."""
    return torch.log1p(x) if x.dtype is torch.float64 else float32.log1p(x)


@dataclass(frozen=True)
class Exponential:
    """exp(t) as mantissa·scale·(1 + rest): no factor is subnormal unless c·exp(t) is.

    In float64 mantissa and scale are exp(t) and 1; deep in the tail, where exp(t) has lost bits
    that c·exp(t) still has, exp(t + LIFT) and exp(−LIFT). There ``rest`` is a tiny error of t. In
    float32 mantissa and scale are powers of 2, and ``rest`` is all that lies between two of them.
    A product adds its share of ``rest`` last: 1 + rest would be rounded.
    """

    mantissa: Tensor
    scale: Tensor
    rest: Tensor | None = None

    @classmethod
    def of(cls, t: Tensor, error: Tensor | None = None) -> Exponential:
        """Return exp(t + error) for a tiny ``error``."""
        if t.dtype is not torch.float64:
            return cls(*float32.exponential(t, error))
        deep = t < DEEP
        if not may_hold(deep):
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
        """Return c·exp(t), without underflow before the last product."""
        if self.rest is None:
            return self.mantissa * c * self.scale
        if self.mantissa.dtype is not torch.float64:
            product = self.mantissa * c  # a power of 2: nothing is lost
            return (product + product * self.rest) * self.scale
        product, lost = two_product(self.mantissa, c)
        return (product + (lost + product * self.rest)) * self.scale


def times_exp(c: Tensor | float, t: Tensor, error: Tensor | None = None) -> Tensor:
    """Return c·exp(t + error) for a tiny ``error``, without underflow before the last product."""
    return Exponential.of(t, error).times(c)
