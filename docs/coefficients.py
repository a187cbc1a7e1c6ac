"""The coefficients of polynomials in float32, fitted to the truth, and the error that they have.

python docs/coefficients.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx

from activations import _gated, gelu, mish, quick_gelu, silu
from gradref.declare.operation import Operation, operation
from gradref.formula import float32
from gradref.truth.jets import exactly

BITS = 300
NODES = 400
ROUNDS = 60

RealFunction = Callable[[arb], arb]


@dataclass(frozen=True)
class Fit:
    """A polynomial for a function on an interval, and the coefficients that stand in the source."""

    function: RealFunction
    low: float
    high: float
    present: Sequence[float]

    def coefficients(self) -> tuple[float, ...]:
        """Return those of the least relative error, in float32, highest power first.

        Least squares at Chebyshev's points, weighted more and more where the error is largest
        (Lawson 1961).
        """
        nodes = np.cos((np.arange(NODES) + 0.5) * np.pi / NODES)
        points = (self.low + self.high) / 2 + (self.high - self.low) / 2 * nodes
        values = np.array([float(self.function(arb(x))) for x in points])
        basis = np.polynomial.chebyshev.chebvander(nodes, len(self.present) - 1)
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
        """Return the largest relative error at other points, of exact arithmetic."""
        points = [arb(x) for x in np.linspace(self.low, self.high, 4002)[1:].tolist()]
        return max(float(abs(_polynomial(coefficients, x) / self.function(x) - 1)) for x in points)


def _polynomial(coefficients: Sequence[float], x: arb) -> arb:
    result = arb(0)
    for coefficient in coefficients:
        result = result * x + arb(coefficient)
    return result


# --- elementary functions ------------------------------------------------------------------------


def exp_rest(r: arb) -> arb:
    """Return (exp(r) − 1 − r)/r²."""
    return (r.expm1() - r) / r**2


def tanh_ratio(u: arb) -> arb:
    """Return (tanh(x)/x − 1)/x² for x² = u."""
    x = u.sqrt()
    return (x.tanh() / x - 1) / u


def artanh_rest(u: arb) -> arb:
    """Return (2 artanh(s) − 2s)/s³ for s² = u."""
    s = u.sqrt()
    return 2 * (s.atanh() - s) / s**3


# --- functions of an activation, by its truth ----------------------------------------------------


@dataclass(frozen=True)
class RootFit:
    """The polynomial about the root of f′ in one setting of the parameters."""

    record: Operation
    parameters: dict[str, Any]
    present: float32.Root

    @property
    def fit(self) -> Fit:
        """Return the fit of f′(root + d)/d."""
        zero = sum(map(arb, self.high_and_low()), arb(0))
        reach = float32.REACH_OF_ROOT
        present = self.present.coefficients
        return Fit(lambda d: self._slope(zero + d) / d, -reach, reach, present)

    def high_and_low(self) -> tuple[float, float]:
        """Return the root as the sum of two float32 numbers."""
        assert self.record.facts is not None  # the function is elementwise
        (root,) = self.record.facts.at(**{**self.record.parameters, **self.parameters}).roots[1]
        high = float(np.float32(root))
        return high, float(np.float32(root - high))

    def _slope(self, x: arb) -> arb:
        given = exactly({**self.record.parameters, **self.parameters})
        return self.record.truth(arb_series([x, 1], prec=2), **given)[1]


FURTHEST = 15.0
"""The end of the interval on which the tail of Φ is fitted; both it and exp(−z²/2) underflow."""


def tail_ratio(s: arb) -> arb:
    """Return (z − pole)·Φ(−z)·exp(z²/2) for s = (z − zero)/(z − pole), as gelu(−z) = −z Φ(−z)."""
    zero, pole = _gated.UPPER_TAIL.zero, _gated.UPPER_TAIL.pole
    z = (zero - pole * s) / (1 - s)
    value = operation(gelu).truth(arb_series([-z, 1], prec=1), approximate="none")[0]
    return (z - pole) * (-value / z) * (z**2 / 2).exp()


def _mapped(z: float) -> float:
    return (z - _gated.UPPER_TAIL.zero) / (z - _gated.UPPER_TAIL.pole)


REDUCED, SMALL = float32.REDUCED, float32.SMALL
FITS = {
    "EXP": Fit(exp_rest, -REDUCED, REDUCED, float32.EXP),
    "TANH": Fit(tanh_ratio, 0.0, SMALL**2, float32.TANH),
    "ARTANH": Fit(artanh_rest, 0.0, (3 - 2 * 2**0.5) ** 2, float32.ARTANH),
    "UPPER_TAIL": Fit(tail_ratio, _mapped(0.0), _mapped(FURTHEST), _gated.UPPER_TAIL.coefficients),
}
ROOTS = {
    "SILU_SLOPE": RootFit(operation(silu), {}, _gated.SILU_SLOPE),
    "QUICK_GELU_SLOPE": RootFit(operation(quick_gelu), {}, _gated.QUICK_GELU_SLOPE),
    "MISH_SLOPE": RootFit(operation(mish), {}, _gated.MISH_SLOPE),
    "GELU_SLOPE": RootFit(operation(gelu), {}, _gated.GELU_SLOPE),
    "GELU_TANH_SLOPE": RootFit(operation(gelu), {"approximate": "tanh"}, _gated.GELU_TANH_SLOPE),
}


def main() -> None:
    """Print the coefficients as they are to stand in the source, and their error."""
    ctx.prec = BITS
    for name, fit in {**FITS, **{name: root.fit for name, root in ROOTS.items()}}.items():
        fitted = fit.coefficients()
        print(f"{name} = {fitted!r}")
        errors = f"{fit.error(fitted):.2g}, of those in the source {fit.error(fit.present):.2g}"
        print(f"  largest relative error {errors}")
    for name, root in ROOTS.items():
        high, low = root.high_and_low()
        print(f"{name}: root {high!r} + {low!r}")


if __name__ == "__main__":
    main()
