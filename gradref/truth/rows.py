"""Value, Jacobian and Hessian of row-wise functions and losses, in ball arithmetic.

The truth runs on whole arrays of power series. A series along one coordinate gives its column of
the Jacobian and its diagonal entry of the Hessian; a series along two at once gives their mixed
entry by polarisation, ``2 H_ij = q(e_i + e_j) − q(e_i) − q(e_j)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx
from numpy.typing import NDArray

from gradref.truth.jets import GOOD_BITS, Balls, exactly

Objects = NDArray[np.object_]
Arrays = Mapping[str, NDArray[Any]]

BITS = {"float16": 384, "bfloat16": 384, "float32": 384, "float64": 1536}
"""Polarisation cancels absolutely: this many bits reach below the last one of each format."""

_series = np.frompyfunc(lambda value, slope: arb_series([value, slope], prec=3), 2, 1)
_coefficient = tuple(np.frompyfunc(lambda s, k=k: s[k], 1, 1) for k in range(3))


@dataclass(frozen=True)
class Derivatives:
    """Balls for R rows, K outputs and D coordinates: all columns of all differentiable arguments.

    ``jacobian`` has shape (R, K, D) and ``hessian`` (R, K, D, D); ``columns`` maps an argument to
    its coordinates. The outputs of a loss are its summands, whose magnitudes a gate needs; where
    nothing is coupled a row is one element.
    """

    value: Objects
    jacobian: Objects
    hessian: Objects
    columns: Mapping[str, slice]


def derivatives(
    truth: Callable[..., Any],
    arrays: Arrays,
    wrt: Sequence[str],
    parameters: Mapping[str, Any],
    bits: int,
) -> Derivatives:
    """Everything up to second order, at one precision."""
    with ctx.workprec(bits):
        exact, constants = exactly(parameters), _constants(arrays)
        widths = {name: arrays[name].shape[1] if arrays[name].ndim == 2 else 1 for name in wrt}
        coordinates = [(name, j) for name in wrt for j in range(widths[name])]

        def along(*coordinate: tuple[str, int]) -> Objects:
            moving = {name: np.zeros(arrays[name].shape) for name, _ in coordinate}
            for name, j in coordinate:
                moving[name][..., j if moving[name].ndim == 2 else slice(None)] = 1.0
            shifted = {name: _series(arrays[name], slope) for name, slope in moving.items()}
            result: Objects = truth(**{**constants, **shifted}, **exact)
            return result if result.ndim == 2 else result[:, None]

        singles = [along(c) for c in coordinates]
        rows, outputs = singles[0].shape
        size = len(coordinates)
        hessian = np.empty((rows, outputs, size, size), dtype=object)
        for i, single in enumerate(singles):
            hessian[:, :, i, i] = 2 * _coefficient[2](single)
        for i in range(size):
            for j in range(i):
                both = 2 * _coefficient[2](along(coordinates[i], coordinates[j]))
                mixed = (both - hessian[:, :, i, i] - hessian[:, :, j, j]) / 2
                hessian[:, :, i, j] = hessian[:, :, j, i] = mixed
        starts = np.cumsum([0, *widths.values()]).tolist()
        return Derivatives(
            value=_coefficient[0](singles[0]),
            jacobian=np.stack([_coefficient[1](single) for single in singles], axis=-1),
            hessian=hessian,
            columns={
                name: slice(a, b) for name, a, b in zip(wrt, starts, starts[1:], strict=False)
            },
        )


def denominators(
    mass: Callable[..., Any] | None, arrays: Arrays, parameters: Mapping[str, Any], rows: int
) -> Objects:
    """What every row counts for in a mean: its declared mass, else 1."""
    if mass is None:
        return np.array([arb(1)] * rows, dtype=object)
    return np.asarray(_coefficient[0](mass(**_constants(arrays), **parameters)))


def _constants(arrays: Arrays) -> dict[str, Any]:
    """Floats as series that do not move; indices as they are."""
    return {name: _series(a, 0) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def to_balls(objects: Objects, invisible: arb) -> Balls:
    """Rounded to twice float64; NaN where too little is certain, ``low`` NaN where not finite.

    What is known to be below ``invisible`` is 0.
    """
    high, low = np.empty(objects.shape), np.zeros(objects.shape)
    flat_high, flat_low = high.reshape(-1), low.reshape(-1)
    for i, ball in enumerate(objects.reshape(-1).tolist()):
        if not isinstance(ball, arb):
            ball = arb(ball)
        if not ball.is_finite():
            flat_high[i] = flat_low[i] = np.nan
        elif ball.rel_accuracy_bits() >= GOOD_BITS:
            flat_high[i] = float(ball)
            flat_low[i] = float(ball - flat_high[i])
        elif abs(ball) < invisible:
            flat_high[i] = 0.0
        else:
            flat_high[i] = np.nan
    return Balls(high, low)
