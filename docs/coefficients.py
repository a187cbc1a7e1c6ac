"""The coefficients of ``gradref/float32.py``, fitted with mpmath, and the error that they have.

python docs/coefficients.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mpf

from gradref.formula import float32

mpmath.mp.dps = 50
NODES = 400
ROUNDS = 60


def exp_rest(r: mpf) -> mpf:
    """(exp(r) − 1 − r)/r²."""
    return (mpmath.exp(r) - 1 - r) / r**2


def tanh_ratio(u: mpf) -> mpf:
    """(tanh(x)/x − 1)/x² for x² = u."""
    x = mpmath.sqrt(u)
    return (mpmath.tanh(x) / x - 1) / u


def artanh_rest(u: mpf) -> mpf:
    """(2 artanh(s) − 2s)/s³ for s² = u."""
    s = mpmath.sqrt(u)
    return 2 * (mpmath.atanh(s) - s) / s**3


def tail_ratio(s: mpf) -> mpf:
    """(z − POLE)·Φ(−z)·exp(z²/2) for s = (z − ZERO)/(z − POLE)."""
    z = (float32.ZERO - float32.POLE * s) / (1 - s)
    tail = mpmath.exp(z**2 / 2) * mpmath.erfc(z / mpmath.sqrt(2)) / 2
    return (z - float32.POLE) * tail


def silu_slope(x: mpf) -> mpf:
    """silu′(x)."""
    s = 1 / (1 + mpmath.exp(-x))
    return s * (1 + x * (1 - s))


def gelu_slope(x: mpf) -> mpf:
    """gelu′(x)."""
    return mpmath.ncdf(x) + x * mpmath.npdf(x)


def gelu_tanh_slope(x: mpf) -> mpf:
    """gelu′(x) by the tanh form, x σ(v)."""
    root = mpmath.sqrt(2 / mpmath.pi)
    cubic = mpf(44715) / 10**6
    s = 1 / (1 + mpmath.exp(-2 * root * (x + cubic * x**3)))
    return s * (1 + x * 2 * root * (1 + 3 * cubic * x**2) * (1 - s))


@dataclass(frozen=True)
class Fit:
    """A polynomial for a function on an interval."""

    function: Callable[[mpf], mpf]
    low: float
    high: float
    degree: int

    def coefficients(self) -> tuple[float, ...]:
        """Those of the least relative error, in float32, highest power first.

        Least squares at Chebyshev's points, weighted more and more where the error is largest
        (Lawson 1961).
        """
        nodes = np.cos((np.arange(NODES) + 0.5) * np.pi / NODES)
        points = (self.low + self.high) / 2 + (self.high - self.low) / 2 * nodes
        values = np.array([float(self.function(mpf(x))) for x in points])
        basis = np.polynomial.chebyshev.chebvander(nodes, self.degree)
        weights = np.ones(NODES)
        for _ in range(ROUNDS):
            scale = np.sqrt(weights) / np.abs(values)
            series, *_ = np.linalg.lstsq(basis * scale[:, None], values * scale, rcond=None)
            weights *= np.abs(basis @ series / values - 1)
            weights /= weights.sum()
        fitted = np.polynomial.Chebyshev(series, domain=[self.low, self.high])
        powers = fitted.convert(kind=np.polynomial.Polynomial).coef
        return tuple(float(c) for c in powers[::-1].astype(np.float32))

    def error(self, coefficients: Sequence[float]) -> float:
        """The largest relative error at other points, of exact arithmetic."""
        points = [mpf(x) for x in np.linspace(self.low, self.high, 4002)[1:]]
        return float(
            max(abs(mpmath.polyval(coefficients, x) / self.function(x) - 1) for x in points)
        )


def about(function: Callable[[mpf], mpf], zero: mpf) -> Callable[[mpf], mpf]:
    """f(zero + d)/d."""
    return lambda d: function(zero + d) / d


START = float32.ZERO / float32.POLE
END = (float32.FAR - float32.ZERO) / (float32.FAR - float32.POLE)
FITS = {
    "EXP": (Fit(exp_rest, -float32.REDUCED, float32.REDUCED, 5), float32.EXP),
    "TANH": (Fit(tanh_ratio, 0.0, float32.SMALL**2, 4), float32.TANH),
    "ARTANH": (Fit(artanh_rest, 0.0, (3 - 2 * 2**0.5) ** 2, 2), float32.ARTANH),
    "UPPER_TAIL": (Fit(tail_ratio, START, END, 10), float32.UPPER_TAIL),
}
ROOTS = {
    name: (mpmath.findroot(function, root.high), function, root)
    for name, function, root in (
        ("SILU_SLOPE", silu_slope, float32.SILU_SLOPE),
        ("GELU_SLOPE", gelu_slope, float32.GELU_SLOPE),
        ("GELU_TANH_SLOPE", gelu_tanh_slope, float32.GELU_TANH_SLOPE),
    )
}
REACH = float32.REACH_OF_ROOT
FITS |= {
    name: (Fit(about(function, zero), -REACH, REACH, 8), root.coefficients)
    for name, (zero, function, root) in ROOTS.items()
}


def main() -> None:
    """Print the coefficients as they are to stand in the source, and their error."""
    for name, (fit, present) in FITS.items():
        fitted = fit.coefficients()
        print(f"{name} = {fitted!r}")
        errors = f"{fit.error(fitted):.2g}, of those in the source {fit.error(present):.2g}"
        print(f"  largest relative error {errors}")
    for name, (zero, _, _) in ROOTS.items():
        high = np.float32(zero)
        print(f"{name}: root {float(high)!r} + {float(np.float32(zero - mpf(float(high))))!r}")


if __name__ == "__main__":
    main()
