"""Exponential and special functions for formulas that are evaluated in float32, not in float64.

They compile to vector instructions, where torch's compile to calls. ``docs/coefficients.py`` prints
the coefficients, and measures their errors.
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
    -0.006943049840629101,
    0.02147073671221733,
    -0.05393347889184952,
    0.1333322525024414,
    -0.3333333134651184,
)
"""(tanh(x)/x − 1)/x² as a polynomial in x² for abs(x) ≤ SMALL, highest power first."""

ZERO, POLE, FAR = 1.25, -2.75, 15.0
UPPER_TAIL = (
    0.0009740626555867493,
    -0.0030043302103877068,
    -0.0016489592380821705,
    0.006428837776184082,
    0.01203963253647089,
    -0.010364139452576637,
    -0.061516039073467255,
    0.025852838531136513,
    0.3519560992717743,
    -0.8448288440704346,
    0.9230412840843201,
)
"""(z − POLE)·Φ(−z)·exp(z²/2) as a polynomial in s = (z − ZERO)/(z − POLE) for 0 ≤ z ≤ FAR, highest
power first."""

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


SILU_SLOPE = Root(
    -1.2784645557403564,
    1.2979282537628478e-08,
    (
        -4.0056627767626196e-05,
        0.00016278873954433948,
        0.0007969711441546679,
        0.00013267609756439924,
        -0.006606174632906914,
        -0.015223248861730099,
        0.01887478306889534,
        0.1466488093137741,
        0.2178117036819458,
    ),
)
GELU_SLOPE = Root(
    -0.7517915368080139,
    1.211444988769017e-08,
    (
        -0.0006912760436534882,
        -0.002093703718855977,
        0.004530938342213631,
        0.019382813945412636,
        -0.014771899208426476,
        -0.11400438100099564,
        -0.01819956861436367,
        0.3882848918437958,
        0.43149399757385254,
    ),
)
GELU_TANH_SLOPE = Root(
    -0.7524614334106445,
    1.1339627903339533e-08,
    (
        -0.0008494281792081892,
        -0.0022237193770706654,
        0.005247847177088261,
        0.01962995156645775,
        -0.01661950908601284,
        -0.1139393299818039,
        -0.015782726928591728,
        0.3875183165073395,
        0.4304001033306122,
    ),
)


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
    """Return log(1 + x) = k log 2 + log(1 + f), for finite x ≥ 0, with f near 0."""
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


def upper_tail(z: Tensor) -> Tensor:
    """Return Φ(−z)·exp(z²/2) for z ≥ 0: Mills' ratio times φ(0)."""
    distance = z - POLE
    return _polynomial(UPPER_TAIL, (z - ZERO) / distance) / distance


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
