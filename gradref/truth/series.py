"""Functions of power series in ball arithmetic that python-flint has not, or only a slow one.

A truth is written with these and with the methods of ``flint.arb_series``; it runs on series
``x₀ + x₁h + x₂h²`` whose coefficients are balls, so that f, f′ and f″/2 have proved bounds. The
constant term of x is an exact number, so a truth may branch on ``x[0]``. The truth of rows runs on
arrays of :class:`gradref.truth.hessians.Expansion`, by way of :func:`each`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _with_constant(series: Any, constant: Any) -> Any:
    series[0] = constant
    return series


def expm1(x: Any) -> Any:
    """Return exp(x) − 1, without cancellation in the constant term."""
    return _with_constant(x.exp(), x[0].expm1())


def log1p(x: Any) -> Any:
    """Return log(1 + x), without cancellation in the constant term."""
    return _with_constant((1 + x).log(), x[0].log1p())


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(−x)), without a huge exponential on either side of 0."""
    if x[0] > 0:
        return 1 / (1 + (-x).exp())
    e = x.exp()
    return e / (1 + e)


def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)), without a huge exponential on either side of 0."""
    return x + log1p((-x).exp()) if x[0] > 0 else log1p(x.exp())


def tanh(x: Any) -> Any:
    """Return tanh(x), without cancellation near 0 or far from it."""
    if x[0] < 0:
        return -tanh(-x)
    if x[0] > 1:
        return 1 - 2 * logistic(-2 * x)
    e = expm1(2 * x)
    return e / (e + 2)


def each(function: Callable[[Any], Any], array: Any) -> Any:
    """Return ``function``, which takes one power series, of every number of an array."""
    return np.frompyfunc(lambda number: number.through(function), 1, 1)(array)


def xlogy(x: Any, y: Any) -> Any:
    """Return x log y for arrays, with 0 log y = 0 also for its derivatives by y alone."""
    return np.frompyfunc(_xlogy, 2, 1)(x, y)


def magnitude(x: Any) -> Any:
    """Return the magnitudes of an array, with a derivative of 0 at 0."""
    return np.frompyfunc(_magnitude, 1, 1)(x)


def norm(u: Any, p: Any) -> Any:
    """Return the p-norm of every row of an array; where it is 0 it has no derivative.

    The magnitude of an element that is 0 has the derivative 0, as in torch; for p between 1 and 2,
    where its second derivative is infinite, the truth is left open.
    """

    def power(x: Any) -> Any:
        if p == 2:
            return x * x
        size = _magnitude(x)
        return size if p == 1 or (size[0] == 0 and p > 2) else (size.log() * p).exp()

    def root(t: Any) -> Any:
        return t.sqrt() if p == 2 or t[0] == 0 else (t.log() / p).exp()

    total = np.frompyfunc(power, 1, 1)(u).sum(-1)
    return total if p == 1 else np.frompyfunc(root, 1, 1)(total)


def _magnitude(x: Any) -> Any:
    return x if x[0] > 0 else -x if x[0] < 0 else 0 * x


def _xlogy(x: Any, y: Any) -> Any:
    product = x * y.log()
    if x.value.is_zero():
        product.value = 0 * x.value
        moving = x.gradient.keys()
        product.gradient = {i: d for i, d in product.gradient.items() if i in moving}
        product.hessian = {ij: d for ij, d in product.hessian.items() if moving & set(ij)}
    return product


def product(f: Any, g: Any) -> Any:
    """Return f·g for arrays as three summands, as columns: each has a term of the product rule.

    Those of a second derivative may cancel, and a gate needs the magnitudes of terms.
    """
    f_0, g_0 = _number(f), _number(g)
    return np.stack([f * g_0, (g - g_0) * f_0, (f - f_0) * (g - g_0)], axis=-1)


_number = np.frompyfunc(lambda x: x[0], 1, 1)
