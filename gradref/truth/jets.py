"""Jets of an elementwise function: f, f′ and f″ with proved bounds, and linear expansions at 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx
from numpy.typing import NDArray

Floats = NDArray[np.float64]

START_BITS = 96
CAP_BITS = 6144
GOOD_BITS = 72
"""How many bits of a good ball are certain: the 53 of float64 and a margin."""

LEAST_ULP = 2.0**-1000
"""An ulp above which the remainder of a number is a normal float64."""

_INVISIBLE = arb(2) ** -1200
"""A magnitude below it rounds to 0 in every format."""


@dataclass(frozen=True)
class Balls:
    """Real numbers known to about 106 bits: the nearest float64, and the remainder in its ulp.

    ``high`` is NaN where a number is undecided at the cap. ``rest`` is in ulp because the remainder
    of a subnormal number is no float64 itself.
    """

    high: Floats
    rest: Floats

    def __getitem__(self, index: Any) -> Balls:
        return Balls(self.high[index], self.rest[index])

    @classmethod
    def exactly(cls, high: Floats) -> Balls:
        """Return balls of numbers that float64 holds exactly."""
        return cls(high, np.zeros_like(high))


def in_two(ball: arb) -> tuple[float, float]:
    """Return a good ball as the nearest float64 and the remainder in its ulp."""
    high = float(ball)
    if not high or math.isinf(high):
        return high, 0.0
    low, ulp = ball - high, math.ulp(high)
    return high, float(low) / ulp if ulp > LEAST_ULP else float(low / arb(ulp))


def to_balls(balls: Iterable[arb], invisible: arb) -> Balls:
    """Return balls of Arb as a float64 and a remainder each: NaN where the ball is not good.

    A ball below ``invisible`` is 0; the remainder of one that is not finite is NaN as well.
    """
    pairs = [_decided(ball, invisible) for ball in balls]
    high, rest = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Balls(high.copy(), rest.copy())


def _decided(ball: arb, invisible: arb) -> tuple[float, float]:
    if not ball.is_finite():
        return math.nan, math.nan
    if ball.rel_accuracy_bits() >= GOOD_BITS:
        return in_two(ball)
    return (0.0, 0.0) if abs(ball) < invisible else (math.nan, 0.0)


def jets(truth: Callable[..., Any], x: Floats, **parameters: Any) -> Balls:
    """Return f, f′ and f″ at finite ``x``, as balls of shape (3, len(x)), by Ziv's loop.

    A point with a ball that is not good is evaluated again at twice the precision.
    """
    high, rest = np.full((3, len(x)), np.nan), np.zeros((3, len(x)))
    todo: Iterable[int] = range(len(x))
    bits = START_BITS
    exact = exactly(parameters)
    points = x.tolist()
    while bits <= CAP_BITS and todo:
        with ctx.workprec(bits):
            todo = [i for i in todo if not _settle(truth, points[i], exact, high[:, i], rest[:, i])]
        bits *= 2
    return Balls(high, rest)


def _settle(
    truth: Callable[..., Any], x: float, parameters: dict[str, Any], high: Floats, rest: Floats
) -> bool:
    series = truth(arb_series([x, 1], prec=3), **parameters)
    good = True
    for order in range(3):
        ball = series[order]
        if order == 2:
            ball = ball * 2
        if ball.rel_accuracy_bits() >= GOOD_BITS or ball.is_zero() or abs(ball) < _INVISIBLE:
            high[order], rest[order] = in_two(ball)
        else:
            good = False
    return good


def beyond_half(
    truth: Callable[..., Any], x: float, order: int, got: float, half: float, **parameters: Any
) -> bool:
    """Return whether ``got`` is not the truth rounded to nearest even; ``half`` is half an ulp.

    By Ziv's loop, for points where 106 bits cannot tell; True where the cap does not decide it.
    """
    exact = exactly(parameters)
    bits = START_BITS
    while bits <= 2 * CAP_BITS:  # 4095 − tanh 4095 is decided at 11,818
        with ctx.workprec(bits):
            value = truth(arb_series([x, 1], prec=3), **exact)[order] * (1, 1, 2)[order]
            error = abs(value - got)
            if error.is_exact() and error == half:
                return (got / (2 * half)) % 2 != 0
            if error < half or error > half:
                return bool(error > half)
        bits *= 2
    return True


def exactly(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a truth, with floats as exact balls."""
    return {name: arb(v) if type(v) is float else v for name, v in parameters.items()}


# --- linear expansions at 0 and at infinity ------------------------------------------------------


@dataclass(frozen=True)
class LinearExpansion:
    """The truth on one side of 0, for ``begin`` ≤ abs(x) ≤ ``reach``: value + slope·x + remainder.

    The remainder has the sign ``side``, 0 where there is none, and a magnitude of at most
    ``bound``·abs(x)^``power``.
    """

    value: float
    slope: float
    side: int
    bound: float
    power: int
    reach: float
    begin: float = 0.0


EXPANSION_BITS = 4096
BESIDE_0 = -3000
"""Exponent of the point that stands for the limit at 0, on either side."""

NOTHING = arb(2) ** -1500
LEAST_EXPONENT, END_OF_EXPONENTS = -150, 128
"""Exponents between which the finite float32 numbers other than 0 lie."""


def linear_expansion_at_zero(
    truth: Callable[..., Any], order: int, sign: int, **parameters: Any
) -> LinearExpansion | None:
    """Return the linear expansion of f, f′ or f″ on the side of ``sign``; None if none is proved.

    By Taylor's theorem: value and slope beside 0, then in one binade after the other a ball for the
    first coefficient after the slope that is not 0. It reaches as far as that has one sign, which
    ends at a kink. Between 0 and the first float f is taken to be smooth.
    """
    exact = exactly(parameters)
    with ctx.workprec(EXPANSION_BITS):
        beside = _coefficients(truth, arb(sign) * arb(2) ** BESIDE_0, order, exact)
        value, slope = float(beside[0]), float(beside[1])
        if not (abs(beside[0] - value) < NOTHING and abs(beside[1] - slope) < NOTHING):
            return None
        power = next((m for m in (2, 3, 4) if not abs(beside[m]) < NOTHING), 2)
        side, bound, reach = None, arb(0), 0.0
        for exponent in range(LEAST_EXPONENT, END_OF_EXPONENTS):
            rest = _coefficients(truth, _binade(exponent, sign), order, exact)[power]
            if sign < 0 and power == 3:
                rest = -rest
            here = 0 if rest.is_zero() else 1 if rest > 0 else -1 if rest < 0 else None
            if here is None or side not in (None, here):
                break
            side, bound, reach = here, bound.max(abs(rest)), 2.0 ** (exponent + 1)
    if side is None:
        return None
    return LinearExpansion(value, slope, side, float(bound.upper()), power, reach)


def line_to_infinity(
    truth: Callable[..., Any], order: int, sign: int, last_kink: float, **parameters: Any
) -> LinearExpansion | None:
    """Return the straight line that f, f′ or f″ is on the side of ``sign``, from a power of 2 on.

    In one binade after the other, from the greatest down to the last kink, the slope is the same
    and nothing follows it. None if that holds in no binade.
    """
    exact = exactly(parameters)
    with ctx.workprec(EXPANSION_BITS):
        begin = None
        try:
            value, slope = _furthest_line(truth, order, sign, exact)
            for exponent in reversed(range(LEAST_EXPONENT, END_OF_EXPONENTS)):
                _, here, *rest = _coefficients(truth, _binade(exponent, sign), order, exact)
                if 2.0**exponent < last_kink or not all(c == 0 for c in (here - slope, *rest)):
                    break
                begin = 2.0**exponent
        except ValueError:  # the truth has divided by a ball that holds 0
            return None
    if begin is None:
        return None
    return LinearExpansion(float(value), float(slope), 0, 0.0, 2, 2.0**END_OF_EXPONENTS, begin)


def asymptote(
    truth: Callable[..., Any], sign: int, last_change: float, **parameters: Any
) -> LinearExpansion | None:
    """Return the line that f tends to on the side of ``sign``, if f″ keeps its sign there.

    f″ is taken to change its sign nowhere beyond ``last_change``, as :class:`Facts` declares it.
    Then f minus the line falls to 0 without a change of sign: it has that of f″.
    """
    exact = exactly(parameters)
    begin = 2.0 ** max(5, math.ceil(math.log2(max(last_change, 1.0))))
    with ctx.workprec(EXPANSION_BITS):
        try:
            value, slope = _furthest_line(truth, 0, sign, exact)
            at_begin, _, bend, *_ = _coefficients(truth, arb(sign * begin), 0, exact)
        except ValueError:  # the truth has divided by a ball that holds 0
            return None
        line = float(value), float(slope)
        if not (abs(value - line[0]) < NOTHING and abs(slope - line[1]) < NOTHING):
            return None
        off = abs(at_begin - line[0] - line[1] * sign * arb(begin))
        side = 1 if bend > 0 else -1 if bend < 0 else 0
    reach = 2.0**END_OF_EXPONENTS
    return LinearExpansion(*line, side, float(off.upper()), 0, reach, begin) if side else None


def _furthest_line(
    truth: Callable[..., Any], order: int, sign: int, exact: dict[str, Any]
) -> tuple[arb, arb]:
    """Return value at 0 and slope of the tangent at the greatest power of 2 of float32."""
    furthest = arb(sign) * arb(2) ** (END_OF_EXPONENTS - 1)
    value, slope = _coefficients(truth, furthest, order, exact)[:2]
    return value - slope * furthest, slope


def _binade(exponent: int, sign: int) -> arb:
    """Return the ball of the numbers from 2^exponent to twice that, or of their negatives."""
    low = arb(2) ** exponent
    return arb(sign) * (low * 3 / 2 + arb(0, low / 2))


def _coefficients(
    truth: Callable[..., Any], at: arb, order: int, parameters: dict[str, Any]
) -> list[arb]:
    """Return five Taylor coefficients of the derivative of an order."""
    series = truth(arb_series([at, 1], prec=order + 5), **parameters)
    return [series[order + j] * math.perm(order + j, order) for j in range(5)]
