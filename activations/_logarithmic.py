"""Logarithms of sums of exponentials, and products with a logarithm.

A function of several arrays, or of a row, with one value: its derivatives are named like those of a
loss, which it is a part of.
"""

from __future__ import annotations

from decimal import Decimal
from math import e
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from activations._rowwise import softmax, softmax_jacobian_diagonal, softmax_vjp
from activations._sigmoidal import sigmoid, sigmoid_derivative
from gradref.declare import (
    gradient,
    hessian_diagonal,
    hvp,
    loss,
    partial_derivatives,
    partial_hvp,
    second_partial_derivatives,
)
from gradref.declare.domains import NON_NEGATIVE_REAL, REAL
from gradref.formula.errorfree import log1p, two_product
from gradref.formula.norms import is_at
from gradref.truth import series

__all__ = [
    "entr",
    "entr_gradient",
    "entr_hessian_diagonal",
    "entr_hvp",
    "logaddexp",
    "logaddexp_gradient",
    "logaddexp_hessian_diagonal",
    "logaddexp_hvp",
    "logsumexp",
    "logsumexp_gradient",
    "logsumexp_hessian_diagonal",
    "logsumexp_hvp",
    "xlogy",
    "xlogy_gradient",
    "xlogy_hessian_diagonal",
    "xlogy_hvp",
]

# --- logsumexp -----------------------------------------------------------------------------------

Only = Literal["x"]


def _logsumexp_truth(x: Any) -> Any:
    first = x[..., :1]
    return first[..., 0] + np.log(np.exp(x - first).sum(-1))


@loss(
    torch=lambda x, dim: torch.logsumexp(x, dim),
    truth=_logsumexp_truth,
    domains={"x": REAL},
    coupled="dim",
    precision="absolute",
    differs={"dim": "torch has no default", "keepdim": "ours is torch's False"},
)
def logsumexp(x: Tensor, dim: int = -1) -> Tensor:
    r"""Logarithm of the sum of exponentials along ``dim``: a smooth maximum.

    .. math:: f(x) = \log \sum_j e^{x_j} = m + \log\Bigl(1 + \sum_{j \ne \mathrm{argmax}}
              e^{x_j - m}\Bigr), \qquad m = \max_j x_j

    Domain ℝⁿ, codomain ℝ, smooth, convex. −inf counts for nothing; a row of −inf alone, or with an
    inf or a NaN, gives NaN in the derivatives, and in the value −inf, inf or NaN. Shape
    (..., n, ...), the result is without ``dim``. float64, float32, float16, bfloat16.

    Raises IndexError for ``dim`` out of range. Source: ``torch.logsumexp``.

    >>> logsumexp(torch.tensor([1000.0, 1000.0]))
    tensor(1000.6932)
    """
    largest = x.amax(-1, keepdim=True)
    at = is_at(x, x.argmax(-1, keepdim=True))
    others = torch.exp(x - largest).masked_fill(at, 0).sum(-1)
    m = largest.squeeze(-1)
    return torch.where(m.isinf(), m, m + log1p(others))


@gradient(logsumexp)
def logsumexp_gradient(
    x: Tensor, dim: int = -1, *, wrt: Only = "x", grad_output: Tensor | None = None
) -> Tensor:
    r""":math:`\nabla f(x) = \operatorname{softmax}(x)`.

    >>> logsumexp_gradient(torch.tensor([1000.0, 1000.0]))
    tensor([0.5000, 0.5000])
    """
    return softmax(x, dim)


@hvp(logsumexp)
def logsumexp_hvp(
    x: Tensor,
    tangent: Tensor,
    dim: int = -1,
    *,
    wrt: Only = "x",
    along: Only = "x",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p\,(v - \sum_j p_j v_j)` for p = softmax(x): the Hessian is the Jacobian of softmax.

    >>> logsumexp_hvp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.2500, -0.2500])
    """
    return softmax_vjp(x, tangent, dim)


@hessian_diagonal(logsumexp)
def logsumexp_hessian_diagonal(
    x: Tensor, dim: int = -1, *, wrt: Only = "x", grad_output: Tensor | None = None
) -> Tensor:
    r""":math:`p_i\,(1 - p_i)` for p = softmax(x).

    >>> logsumexp_hessian_diagonal(torch.tensor([0.0, 0.0]))
    tensor([0.2500, 0.2500])
    """
    return softmax_jacobian_diagonal(x, dim)


# --- logaddexp -----------------------------------------------------------------------------------


@loss(
    torch=torch.logaddexp,
    truth=lambda input, other: (
        other + np.frompyfunc(lambda z: z.through(series.softplus), 1, 1)(input - other)
    ),
    domains={"input": REAL, "other": REAL},
    precision="absolute",
)
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    r"""Logarithm of the sum of two exponentials.

    .. math:: f(x, y) = \log(e^x + e^y) = \max(x, y) + \log\bigl(1 + e^{-|x - y|}\bigr)

    Domain ℝ × ℝ, codomain ℝ, smooth, convex. ±inf for both gives ±inf, with a derivative of NaN;
    NaN gives NaN. One shape: nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes. Source: ``torch.logaddexp``.

    >>> logaddexp(torch.tensor([1000.0, 0.0]), torch.tensor([1000.0, -50.0]))
    tensor([1.0007e+03, 1.9287e-22])
    """
    larger = torch.maximum(input, other)
    return torch.where(larger.isinf(), larger, larger + log1p(torch.exp(-(input - other).abs())))


@partial_derivatives(logaddexp)
def logaddexp_gradient(input: Tensor, other: Tensor, wrt: str) -> Tensor:
    r""":math:`\sigma(x - y)` in x and :math:`\sigma(y - x)` in y.

    >>> logaddexp_gradient(torch.tensor([2.0]), torch.tensor([2.0]))
    tensor([0.5000])
    """
    return sigmoid(input - other if wrt == "input" else other - input)


@second_partial_derivatives(logaddexp)
def logaddexp_hessian_diagonal(input: Tensor, other: Tensor, wrt: str, along: str) -> Tensor:
    r""":math:`\sigma'(x - y)` in x and in y; mixed its negative.

    >>> logaddexp_hessian_diagonal(torch.tensor([2.0]), torch.tensor([2.0]))
    tensor([0.2500])
    """
    slope = sigmoid_derivative(input - other)
    return slope if wrt == along else -slope


logaddexp_hvp = partial_hvp(logaddexp)

# --- products with a logarithm -------------------------------------------------------------------


@loss(
    torch=torch.xlogy,
    truth=lambda input, other: series.xlogy(input, other),
    domains={"input": REAL, "other": NON_NEGATIVE_REAL},
    differs={"other": "torch gives NaN below 0"},
)
def xlogy(input: Tensor, other: Tensor) -> Tensor:
    r"""A number times the logarithm of another, and 0 for the number 0.

    .. math:: f(x, y) = x \log y, \qquad 0 \log y = 0

    Domain ℝ × [0, ∞); at y = 0 it is ∓inf but for x = 0. NaN gives NaN. One shape: nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes or a number below 0 as ``other``. Source: ``torch.xlogy``.

    >>> xlogy(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]))
    tensor([0., 0.])
    """
    return torch.xlogy(input, other)


@partial_derivatives(xlogy)
def xlogy_gradient(input: Tensor, other: Tensor, wrt: str) -> Tensor:
    r""":math:`\log y` in x and :math:`x / y` in y, 0 there for x = 0.

    >>> xlogy_gradient(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0]), wrt="other")
    tensor([0.0000, 0.5000])
    """
    return torch.log(other) if wrt == "input" else _unless_0(input, input / other)


@second_partial_derivatives(xlogy)
def xlogy_hessian_diagonal(input: Tensor, other: Tensor, wrt: str, along: str) -> Tensor:
    r""":math:`-x / y^2` in y, 0 for x = 0; mixed it is 1/y, in x 0.

    >>> xlogy_hessian_diagonal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0]), wrt="other")
    tensor([ 0.0000, -0.5000])
    """
    if wrt != along:
        return 1 / other
    if wrt == "other":
        return _unless_0(input, -input / other / other)
    return torch.where(input.isnan() | other.isnan(), input + other, 0.0)


xlogy_hvp = partial_hvp(xlogy)


def _unless_0(x: Tensor, derivative: Tensor) -> Tensor:
    return torch.where(x == 0, 0 * x, derivative)


E = (e, float(Decimal(1).exp() - Decimal(e)))
"""Euler's number as a float64 and the rest of it."""


@loss(
    torch=torch.special.entr,
    truth=lambda x: -series.xlogy(x, x),
    domains={"x": NON_NEGATIVE_REAL},
    differs={"x": "torch gives -inf below 0"},
)
def entr(x: Tensor) -> Tensor:
    r"""Summand of Shannon's entropy.

    .. math:: f(x) = -x \log x, \qquad f(0) = 0

    Domain [0, ∞), codomain (−∞, 1/e], concave. inf gives −inf, NaN gives NaN. Any shape; float64,
    float32, float16, bfloat16. Raises ValueError for a number below 0.
    Source: ``torch.special.entr``; Shannon (1948).

    >>> entr(torch.tensor([0.5, 1.0]))
    tensor([0.3466, -0.0000])
    """
    return -torch.xlogy(x, x)


@partial_derivatives(entr)
def entr_gradient(x: Tensor) -> Tensor:
    r""":math:`f'(x) = -(\log x + 1) = -\log(e x)`, by log1p about its root 1/e; inf at 0.

    >>> entr_gradient(torch.tensor([0.0, 0.5, 1.0]))
    tensor([    inf, -0.3069, -1.0000])
    """
    product, lost = two_product(x, E[0])
    beyond_root = (product - 1) + (lost + x * E[1])
    near = beyond_root.abs() < 0.5
    return -torch.where(near, torch.log1p(beyond_root), torch.log(x) + 1)


@second_partial_derivatives(entr)
def entr_hessian_diagonal(x: Tensor) -> Tensor:
    r""":math:`f''(x) = -1 / x`; −inf at 0.

    >>> entr_hessian_diagonal(torch.tensor([0.0, 0.5]))
    tensor([-inf, -2.])
    """
    return -1 / x


entr_hvp = partial_hvp(entr)
