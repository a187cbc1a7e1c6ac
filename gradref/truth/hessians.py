"""Value, gradient and Hessian of functions of several numbers, in ball arithmetic.

A truth of rows runs on arrays of :class:`Expansion`: numbers with their first and second
derivatives by the coordinates they depend on, and no others. So the Hessian of a sum whose terms
depend on one coordinate each costs no more than its diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx
from numpy.typing import NDArray

from gradref.truth.jets import Balls, exactly, to_balls

Objects = NDArray[np.object_]
Arrays = Mapping[str, NDArray[Any]]
Coordinates = tuple[int, int]

BITS = 1536
"""A precision in which 1 + x keeps bits of any float64 x, as terms of that size may cancel."""

INVISIBLE = arb(2) ** (-1074 - 80)
"""A magnitude below it rounds to 0 in every format."""


class Expansion:
    """A number with its derivatives by coordinates: ``gradient[i]`` and ``hessian[i, j]``, i ≤ j.

    A derivative without an entry is 0. An expansion has the arithmetic of numbers and, by the chain
    rule, each method of ``flint.arb_series`` without arguments, such as ``exp``.
    ``x[0]`` is its value.
    """

    __slots__ = ("gradient", "hessian", "value")

    def __init__(
        self,
        value: arb,
        gradient: dict[int, arb] | None = None,
        hessian: dict[Coordinates, arb] | None = None,
    ) -> None:
        self.value, self.gradient, self.hessian = value, gradient or {}, hessian or {}

    def __getitem__(self, order: int) -> arb:
        if order:
            raise IndexError("an expansion in several coordinates has no coefficient but x[0]")
        return self.value

    def __setitem__(self, order: int, value: arb) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Callable[[], Expansion]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda: self.through(lambda series: getattr(series, name)())

    def through(self, function: Callable[[Any], Any]) -> Expansion:
        """Return ``function``, which takes a power series, of this number by the chain rule."""
        if not self.gradient:
            return Expansion(function(arb_series([self.value], prec=1))[0])
        series = function(arb_series([self.value, 1], prec=3))
        slope, bend = series[1], 2 * series[2]
        gradient = {i: slope * d for i, d in self.gradient.items()}
        hessian = {ij: slope * d for ij, d in self.hessian.items()}
        if not bend.is_zero():
            bent = {i: bend * d for i, d in self.gradient.items()}
            for i, a in bent.items():
                for j, b in self.gradient.items():
                    if i <= j:
                        hessian[i, j] = hessian[i, j] + a * b if (i, j) in hessian else a * b
        return Expansion(series[0], gradient, hessian)

    def __add__(self, other: Any) -> Expansion:
        if not isinstance(other, Expansion):
            return Expansion(self.value + other, self.gradient, self.hessian)
        return Expansion(
            self.value + other.value,
            _sum(self.gradient, other.gradient),
            _sum(self.hessian, other.hessian),
        )

    def __mul__(self, other: Any) -> Expansion:
        if not isinstance(other, Expansion):
            return Expansion(
                self.value * other,
                {i: d * other for i, d in self.gradient.items()},
                {ij: d * other for ij, d in self.hessian.items()},
            )
        if not other.gradient:
            return self.__mul__(other.value)
        if not self.gradient:
            return other.__mul__(self.value)
        hessian = _sum((self * other.value).hessian, (other * self.value).hessian)
        for i, a in self.gradient.items():
            for j, b in other.gradient.items():
                ij, term = (i, j) if i <= j else (j, i), a * b
                term = 2 * term if i == j else term
                hessian[ij] = hessian[ij] + term if ij in hessian else term
        gradient = _sum((self * other.value).gradient, (other * self.value).gradient)
        return Expansion(self.value * other.value, gradient, hessian)

    def __neg__(self) -> Expansion:
        return self.__mul__(-1)

    def __sub__(self, other: Any) -> Expansion:
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> Expansion:
        return (-self).__add__(other)

    def __truediv__(self, other: Any) -> Expansion:
        if not isinstance(other, Expansion):
            return self.__mul__(1 / arb(other))
        return self.__mul__(other.through(lambda series: 1 / series))

    def __rtruediv__(self, other: Any) -> Expansion:
        return self.through(lambda series: 1 / series).__mul__(other)

    def __radd__(self, other: Any) -> Expansion:
        return self.__add__(other)

    def __rmul__(self, other: Any) -> Expansion:
        return self.__mul__(other)


def _sum(a: dict[Any, arb], b: dict[Any, arb]) -> dict[Any, arb]:
    if len(a) < len(b):
        a, b = b, a
    result = dict(a)
    for key, value in b.items():
        result[key] = result[key] + value if key in result else value
    return result


@dataclass(frozen=True)
class Derivatives:
    """Balls for R rows, K outputs and D coordinates: the columns of all differentiable arguments.

    ``jacobian`` has shape (R, K, D) and ``hessian`` (R, K, D, D); ``columns`` maps an argument to
    its coordinates. The outputs of a loss are its summands, since a gate needs their magnitudes;
    where nothing is coupled a row is one element.
    """

    value: Objects
    jacobian: Objects
    hessian: Objects
    columns: Mapping[str, slice]

    def take(self, rows: Any) -> Derivatives:
        """Return some of the rows."""
        return Derivatives(self.value[rows], self.jacobian[rows], self.hessian[rows], self.columns)


def derivatives(
    truth: Callable[..., Any],
    arrays: Arrays,
    wrt: Sequence[str],
    parameters: Mapping[str, Any],
    shared: Sequence[str] = (),
    bits: int = BITS,
) -> Derivatives:
    """Return value, Jacobian and Hessian of every row with respect to the arguments ``wrt``.

    The arrays that are ``shared`` are no rows, but one that belongs to all of them.
    """
    with ctx.workprec(bits):
        arrays = {n: a[None] if n in shared and n in wrt else a for n, a in arrays.items()}
        widths = {name: arrays[name].shape[1] if arrays[name].ndim == 2 else 1 for name in wrt}
        starts = np.cumsum([0, *widths.values()]).tolist()
        columns = {n: slice(a, b) for n, a, b in zip(wrt, starts, starts[1:], strict=False)}
        moving = {name: _moving(arrays[name], columns[name].start) for name in wrt}
        outputs: Objects = truth(**{**_constants(arrays), **moving}, **exactly(parameters))
        outputs = outputs if outputs.ndim == 2 else outputs[:, None]
        size, zero = starts[-1], arb(0)
        jacobian = np.full((*outputs.shape, size), zero, dtype=object)
        hessian = np.full((*outputs.shape, size, size), zero, dtype=object)
        for place in np.ndindex(outputs.shape):
            output: Any = outputs[place]
            for i, d in output.gradient.items():
                jacobian[*place, i] = d
            for (i, j), d in output.hessian.items():
                hessian[*place, i, j] = hessian[*place, j, i] = d
        return Derivatives(_values(outputs), jacobian, hessian, columns)


_values = np.frompyfunc(lambda expansion: expansion.value, 1, 1)
_constant = np.frompyfunc(lambda value: Expansion(arb(value)), 1, 1)


def _moving(array: NDArray[Any], first: int) -> Objects:
    """Return an array as expansions: its columns are the coordinates from ``first`` on."""
    columns = first + (np.arange(array.shape[1]) if array.ndim == 2 else np.zeros(1, dtype=int))
    one = arb(1)
    expand = np.frompyfunc(lambda value, i: Expansion(arb(value), {int(i): one}), 2, 1)
    return np.asarray(expand(array, np.broadcast_to(columns, array.shape)))


def _constants(arrays: Arrays) -> dict[str, Any]:
    """Return floats as expansions in no coordinate; indices as they are."""
    return {name: _constant(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def denominators(
    mass: Callable[..., Any] | None, arrays: Arrays, parameters: Mapping[str, Any], rows: int
) -> Objects:
    """Return the weight of every row in a mean: the declared mean weight, else 1."""
    if mass is None:
        return np.array([arb(1)] * rows, dtype=object)
    return np.asarray(_values(mass(**_constants(arrays), **parameters)))


def rounded_to_balls(objects: Objects) -> Balls:
    """Return numbers to about 106 bits: NaN where fewer are certain, 0 below ``INVISIBLE``."""
    flat = [ball if isinstance(ball, arb) else arb(ball) for ball in objects.reshape(-1).tolist()]
    found = to_balls(flat, INVISIBLE)
    return Balls(found.high.reshape(objects.shape), found.rest.reshape(objects.shape))
