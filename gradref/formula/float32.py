"""Elementary functions for formulas that are evaluated in float32, not in float64.

They compile to vector instructions, where torch's compile to calls. The polynomials of one
activation stand beside its formula, as a :class:`Root` or a :class:`Quotient`.
``docs/coefficients.py`` prints all coefficients, and measures their errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

EXP = (
    0.00019859099120367318,
    0.0013937130570411682,
    0.008333365432918072,
    0.041666433215141296,
    0.1666666716337204,
    0.5,
)
"""(exp(r) − 1 − r)/r² as a polynomial for abs(r) ≤ REDUCED, highest power first."""

REDUCED = 0.36
"""A little more than ½ log 2, as an error may be added to a reduced argument."""

LOG_2 = (0.693359375, log(2) - 0.693359375)
"""log 2 as a number of few bits, whose multiples are exact, and the remainder."""

FURTHEST = 170.0
"""Beyond it exp is 0 or inf, and 2ᵏ no longer the product of two normal powers of 2."""

ROUNDER = 1.5 * 2.0**23
"""Added to a number, it rounds that to an integer, which is left in the last bits of the sum."""

ROOT_OF_HALF = 0x3F3504F3
"""The bits of √½: log1p takes no multiple of log 2 for 1 + x from √½ to √2."""

ARTANH = (0.29580509662628174, 0.39988765120506287, 0.6666668653488159)
"""(2 artanh(s) − 2s)/s³ as a polynomial in s² for abs(s) ≤ 3 − 2√2, highest power first."""

HALF_OF_ITS_BITS = -(1 << 12)

SMALL = 0.5
"""Up to it tanh is a polynomial; beyond, nothing cancels."""

TANH = (
    -0.006943048909306526,
    0.02147073671221733,
    -0.05393347889184952,
    0.1333322525024414,
    -0.3333333134651184,
)
"""(tanh(x)/x − 1)/x² as a polynomial in x² for abs(x) ≤ SMALL, highest power first."""

REACH_OF_ROOT = 0.6
"""The distance from a root up to which its polynomial serves; beyond, the terms cancel less."""


@dataclass(frozen=True)
class Root:
    """A root of a function, as the sum of two numbers, and a polynomial for the function about it.

    The function is (x − root) times the polynomial in x − root, highest power first, for
    abs(x − root) ≤ REACH_OF_ROOT.
    """

    high: float
    low: float
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Quotient:
    """A function of z ≥ 0 that falls as 1/z, as a polynomial over z − pole.

    The polynomial is one in (z − zero)/(z − pole), which is bounded; highest power first.
    """

    zero: float
    pole: float
    coefficients: tuple[float, ...]

    def __call__(self, z: Tensor) -> Tensor:
        """Return the function at z."""
        distance = z - self.pole
        return _polynomial(self.coefficients, (z - self.zero) / distance) / distance


def exponential(t: Tensor, error: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, b, c with exp(t + error) = a·b·(1 + c), a and b powers of 2, for a small error."""
    t = t.clamp(-FURTHEST, FURTHEST)
    rounded = t * (1 / log(2)) + ROUNDER
    n, k = rounded - ROUNDER, rounded.view(torch.int32)  # of which the last bits are n
    r = (t - n * LOG_2[0]) - n * LOG_2[1]
    if error is not None:
        r = r + error
    half = k >> 1
    return _power_of_2(half), _power_of_2(k - half), r + r.square() * _polynomial(EXP, r)


def _power_of_2(k: Tensor) -> Tensor:
    """Return 2ᵏ, from the last bits of k."""
    return ((k + 127) << 23).view(torch.float32)


def exp(t: Tensor) -> Tensor:
    """Return exp(t)."""
    a, b, c = exponential(t)
    return (a + a * c) * b


def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x) = k log 2 + log(1 + f), for finite x > −1, with f near 0."""
    k = ((1 + x).view(torch.int32) - ROOT_OF_HALF) >> 23
    f = torch.where(k == 0, x, (1 + x) * _power_of_2(-k) - 1)
    s = f / (2 + f)
    of_f = f - s * (f - s.square() * _polynomial(ARTANH, s.square()))
    return k * LOG_2[0] + (of_f + k * LOG_2[1])


def square(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x² as the exact square of the upper 12 bits of x, and the remainder."""
    upper = (x.view(torch.int32) & HALF_OF_ITS_BITS).view(torch.float32)
    return upper.square(), (x - upper) * (x + upper)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x) from one exponential, which tanh′ shares."""
    e = exp(-2 * x.abs())
    far = (1 - e) * (1 / (1 + e))
    near = x + x * (x.square() * _polynomial(TANH, x.square()))
    return torch.where(x.abs() < SMALL, near, torch.where(x < 0, -far, far))


def near(x: Tensor, root: Root, elsewhere: Tensor) -> Tensor:
    """Return ``elsewhere``, but about a root, where its terms cancel, the polynomial there."""
    distance = (x - root.high) - root.low
    about = distance * _polynomial(root.coefficients, distance)
    return torch.where(distance.abs() <= REACH_OF_ROOT, about, elsewhere)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return a polynomial at x, by Horner's rule."""
    result = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result
