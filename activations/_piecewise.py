"""Rectifiers and their smooth relatives: linear above zero, flat or exponential below."""

from __future__ import annotations

from math import copysign, frexp, inf, log, nan
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import (
    derivative,
    elementwise,
    hvp,
    jacobian_diagonal,
    jvp,
    loss,
    partial_derivatives,
    partial_hvp,
    rowwise,
    second_derivative,
    second_partial_derivatives,
    vjp,
    zero_second_derivative,
)
from gradref.declare.domains import (
    FINITE,
    NON_NEGATIVE,
    OR_INFINITE,
    POSITIVE,
    REAL,
    SHARED,
    at_least,
)
from gradref.declare.facts import FROM_LEFT, FROM_RIGHT, Facts
from gradref.formula.errorfree import (
    Exponential,
    exp,
    floor_to,
    log1p,
    may_hold,
    near_0,
    scaled_exponent,
    sticky_sum,
    tanh,
    times_exp,
    two_product,
)
from gradref.truth import series

__all__ = [
    "celu",
    "celu_derivative",
    "celu_second_derivative",
    "elu",
    "elu_derivative",
    "elu_second_derivative",
    "hardtanh",
    "hardtanh_derivative",
    "hardtanh_second_derivative",
    "leaky_relu",
    "leaky_relu_derivative",
    "leaky_relu_second_derivative",
    "prelu",
    "prelu_hvp",
    "prelu_jacobian_diagonal",
    "prelu_jvp",
    "prelu_vjp",
    "relu",
    "relu_derivative",
    "relu_second_derivative",
    "rrelu",
    "rrelu_derivative",
    "rrelu_second_derivative",
    "rrelu_with_noise",
    "rrelu_with_noise_gradient",
    "rrelu_with_noise_hessian_diagonal",
    "rrelu_with_noise_hvp",
    "selu",
    "selu_derivative",
    "selu_second_derivative",
    "softplus",
    "softplus_derivative",
    "softplus_second_derivative",
]


def _sides(x: Tensor, left: float, right: float) -> Tensor:
    """``left`` for x ≤ 0, ``right`` for x > 0, NaN for NaN."""
    return torch.full_like(x, left).masked_fill(x > 0, right).masked_fill(x.isnan(), nan)


@elementwise(
    torch=F.relu,
    truth=lambda x: x if x[0] > 0 else 0 * x,
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks={0.0: FROM_LEFT},
    ),
)
def relu(x: Tensor, /) -> Tensor:
    r"""Rectified linear unit.

    .. math:: \operatorname{relu}(x) = \max(x, 0)

    Domain ℝ, codomain [0, ∞). inf gives inf, −inf gives 0, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.relu``.

    >>> relu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    """
    return x.clamp(min=0)


@derivative(relu)
def relu_derivative(x: Tensor, /) -> Tensor:
    r""":math:`[x > 0]`, with 0 at the kink: the subdifferential there is [0, 1], torch takes 0.

    >>> relu_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """
    return _sides(x, 0.0, 1.0)


@second_derivative(relu)
def relu_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`0` on both sides; at the kink, where f″ does not exist, 0 as in torch.

    >>> relu_second_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 0.])
    """
    return _sides(x, 0.0, 0.0)


@elementwise(
    torch=F.leaky_relu,
    truth=lambda x, negative_slope: x if x[0] > 0 else x * negative_slope,
    facts=Facts(
        limits=lambda negative_slope: {
            -inf: (copysign(inf, -negative_slope) if negative_slope else 0.0, negative_slope, 0.0),
            inf: (inf, 1.0, 0.0),
        },
        kinks={0.0: FROM_LEFT},
    ),
    domains={"negative_slope": FINITE},
    cases=({}, {"negative_slope": 0.2}, {"negative_slope": 0.0}, {"negative_slope": -1.5}),
)
def leaky_relu(x: Tensor, /, negative_slope: float = 0.01) -> Tensor:
    r"""Leaky rectified linear unit, with the slope a below zero.

    .. math:: f(x) = x \text{ for } x > 0, \quad a\,x \text{ otherwise}

    Domain ℝ, codomain ℝ (for a > 0). inf gives inf, −inf gives −a·inf (0 for a = 0), NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``negative_slope`` is not finite.
    Source: ``torch.nn.functional.leaky_relu``.

    >>> leaky_relu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.0100,  0.0000,  2.0000])
    """
    if negative_slope == 0:
        return relu(x)
    below = sticky_sum(*two_product(x, negative_slope))
    return torch.where(x > 0, x, below)


@derivative(leaky_relu)
def leaky_relu_derivative(x: Tensor, /, negative_slope: float = 0.01) -> Tensor:
    r""":math:`1` for x > 0, else a; at the kink, with subdifferential [a, 1], torch takes a.

    >>> leaky_relu_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.0100, 0.0100, 1.0000])
    """
    return _sides(x, negative_slope, 1.0)


@second_derivative(leaky_relu)
def leaky_relu_second_derivative(x: Tensor, /, negative_slope: float = 0.01) -> Tensor:
    r""":math:`0` on both sides; at the kink, where f″ does not exist, 0 as in torch.

    >>> leaky_relu_second_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 0.])
    """
    return _sides(x, 0.0, 0.0)


@elementwise(
    torch=F.rrelu,
    truth=lambda x, lower, upper: x if x[0] > 0 else x * (lower + upper) / 2,
    facts=Facts(
        limits=lambda lower, upper: {
            -inf: (-inf, lower / 2 + upper / 2, 0.0),
            inf: (inf, 1.0, 0.0),
        },
        kinks={0.0: (0.0, "left", "left")},
    ),
    domains={"lower": POSITIVE, "upper": lambda lower, **_: at_least("lower", lower)},
    differs={"training": "with slopes drawn at random it is rrelu_with_noise, which is given them"},
)
def rrelu(x: Tensor, /, lower: float = 1 / 8, upper: float = 1 / 3) -> Tensor:
    r"""Randomized leaky rectified linear unit, as it is evaluated: with the mean of its slopes.

    .. math:: f(x) = x \text{ for } x > 0, \quad \tfrac{1}{2} (a + b)\,x \text{ otherwise}

    Domain ℝ, codomain ℝ. inf gives inf, −inf gives −inf, NaN gives NaN. Any shape; float64,
    float32, float16, bfloat16. Raises ValueError where ``lower`` is not positive, or above
    ``upper``. Source: ``torch.nn.functional.rrelu``; Xu, Wang, Chen and Li (2015).

    >>> rrelu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.2292,  0.0000,  2.0000])
    """
    return leaky_relu(x, lower / 2 + upper / 2)


@derivative(rrelu)
def rrelu_derivative(x: Tensor, /, lower: float = 1 / 8, upper: float = 1 / 3) -> Tensor:
    r""":math:`1` for x > 0, else the mean slope, also at the kink, as in torch.

    >>> rrelu_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.2292, 0.2292, 1.0000])
    """
    return _sides(x, lower / 2 + upper / 2, 1.0)


rrelu_second_derivative = zero_second_derivative(rrelu)


@loss(
    torch=lambda input, noise: torch.where(input > 0, input, noise * input),
    truth=lambda input, noise: _prelu_truth(input, noise),
    domains={"input": REAL, "noise": REAL},
)
def rrelu_with_noise(input: Tensor, noise: Tensor) -> Tensor:
    r"""Randomized leaky rectified linear unit, as it is trained: with a slope for each element.

    .. math:: f(x, a) = x \text{ for } x > 0, \quad a\,x \text{ otherwise}

    torch draws the slopes, from [⅛, ⅓] by default, and writes them where x ≤ 0 into the noise that
    it keeps for backward. Domain ℝ × ℝ. inf gives inf, −inf gives −a·inf, NaN gives NaN. One shape:
    nothing is broadcast. float64, float32, float16, bfloat16. Derivatives are named like those of a
    loss, since it is a function of several arrays.

    Raises ValueError for two shapes. Source: ``torch.nn.functional.rrelu`` with ``training=True``;
    Xu, Wang, Chen and Li (2015).

    >>> rrelu_with_noise(torch.tensor([-1.0, 2.0]), torch.tensor([0.25, 0.3]))
    tensor([-0.2500,  2.0000])
    """
    return torch.where(input > 0, input, noise * input)


@partial_derivatives(rrelu_with_noise)
def rrelu_with_noise_gradient(input: Tensor, noise: Tensor, wrt: str) -> Tensor:
    r""":math:`1` for x > 0, else a, also at the kink, as in torch; min(x, 0) in a.

    >>> rrelu_with_noise_gradient(torch.tensor([-1.0, 2.0]), torch.tensor([0.25, 0.3]))
    tensor([0.2500, 1.0000])
    """
    if wrt == "noise":
        return torch.where(input > 0, 0.0, input)
    return _prelu_slope(input, noise)


@second_partial_derivatives(rrelu_with_noise)
def rrelu_with_noise_hessian_diagonal(input: Tensor, noise: Tensor, wrt: str, along: str) -> Tensor:
    r""":math:`0`; mixed it is 0 for x > 0, else 1.

    >>> rrelu_with_noise_hessian_diagonal(torch.tensor([-1.0, 2.0]), torch.tensor([0.25, 0.3]))
    tensor([0., 0.])
    """
    return _sides(input, 0.0 if wrt == along else 1.0, 0.0)


rrelu_with_noise_hvp = partial_hvp(rrelu_with_noise)


# --- prelu ---------------------------------------------------------------------------------------

Argument = Literal["x", "weight"]


def _prelu_truth(x: Any, weight: Any) -> Any:
    return np.frompyfunc(lambda x, a: x if x[0] > 0 else a * x, 2, 1)(x, weight)


@rowwise(torch=F.prelu, truth=_prelu_truth, domains={"weight": SHARED}, coupled="class")
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    r"""Leaky rectified linear unit with a learned slope a for each channel, or one for all.

    .. math:: f(x, a) = x \text{ for } x > 0, \quad a\,x \text{ otherwise}

    Domain ℝ × ℝ. ``x`` has shape (C), (N, C) or (N, C, d₁, ...), ``weight`` (C), (1) or (). inf
    gives inf, −inf gives −a·inf, NaN gives NaN. float64, float32, float16, bfloat16.

    Raises ValueError for a ``weight`` of another shape. Source: ``torch.nn.functional.prelu``; He,
    Zhang, Ren and Sun (2015).

    >>> prelu(torch.tensor([-1.0, 2.0]), torch.tensor([0.25, 0.5]))
    tensor([-0.2500,  2.0000])
    """
    return torch.where(x > 0, x, weight * x)


@jacobian_diagonal(prelu)
def prelu_jacobian_diagonal(x: Tensor, weight: Tensor) -> Tensor:
    r""":math:`\partial f / \partial x = 1` for x > 0, else a; at the kink torch takes a.

    >>> prelu_jacobian_diagonal(torch.tensor([-1.0, 2.0]), torch.tensor(0.25))
    tensor([0.2500, 1.0000])
    """
    return _prelu_slope(x, weight)


@vjp(prelu)
def prelu_vjp(x: Tensor, weight: Tensor, grad_output: Tensor, *, wrt: Argument = "x") -> Tensor:
    r""":math:`g\,\partial f / \partial x`, or :math:`\sum g \min(x, 0)` for the slope of a channel.

    >>> x, g = torch.tensor([-1.0, 2.0, -3.0]), torch.ones(3)
    >>> prelu_vjp(x, torch.tensor(0.25), g, wrt="weight")
    tensor(-4.)
    """
    if wrt == "x":
        return _prelu_slope(x, weight) * grad_output
    return torch.where(x > 0, 0.0, x * grad_output)


@jvp(prelu)
def prelu_jvp(x: Tensor, weight: Tensor, tangent: Tensor, *, along: Argument = "x") -> Tensor:
    r""":math:`t\,\partial f / \partial x`, or :math:`t \min(x, 0)` as the slopes move along t.

    >>> prelu_jvp(torch.tensor([-1.0, 2.0]), torch.tensor(0.25), torch.ones(()), along="weight")
    tensor([-1.,  0.])
    """
    if along == "x":
        return _prelu_slope(x, weight) * tangent
    return torch.where(x > 0, 0.0, x * tangent)


@hvp(prelu)
def prelu_hvp(
    x: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    *,
    wrt: Argument = "x",
    along: Argument = "x",
) -> Tensor:
    r""":math:`g\,t\,[x \le 0]` where ``wrt`` and ``along`` differ, else 0; a sum for the slopes.

    >>> one = torch.ones(2)
    >>> prelu_hvp(torch.tensor([-1.0, 2.0]), torch.tensor(0.25), one, one, wrt="weight")
    tensor(1.)
    """
    if wrt == along:
        return _sides(x, 0.0, 0.0)
    mixed = torch.where(x > 0, 0.0, grad_output * tangent)
    return mixed.masked_fill(x.isnan(), nan)


def _prelu_slope(x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, weight).masked_fill(x.isnan(), nan)


# --- hardtanh ------------------------------------------------------------------------------------


def _hardtanh_truth(x: Any, min_val: Any, max_val: Any) -> Any:
    if min_val < x[0] < max_val:
        return x
    return 0 * x + (min_val if x[0] <= min_val else max_val)


@elementwise(
    torch=F.hardtanh,
    truth=_hardtanh_truth,
    facts=Facts(
        limits=lambda min_val, max_val: {-inf: (min_val, 0.0, 0.0), inf: (max_val, 0.0, 0.0)},
        kinks=lambda min_val, max_val: (
            {min_val: FROM_LEFT, max_val: FROM_RIGHT} if min_val < max_val else {}
        ),
    ),
    domains={"min_val": FINITE, "max_val": lambda min_val, **_: at_least("min_val", min_val)},
    cases=({}, {"min_val": 0.0, "max_val": 6.0}, {"min_val": -0.7, "max_val": 2.5}),
)
def hardtanh(x: Tensor, /, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    r"""Identity between two bounds a ≤ b, constant beyond; relu6 for a = 0 and b = 6.

    .. math:: f(x) = \max(a, \min(x, b))

    Domain ℝ, codomain [a, b]. inf gives b, −inf gives a, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where a bound is not finite, or ``max_val`` is below ``min_val``.
    Source: ``torch.nn.functional.hardtanh``.

    >>> hardtanh(torch.tensor([-2.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    return x.clamp(min_val, max_val)


@derivative(hardtanh)
def hardtanh_derivative(x: Tensor, /, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    r""":math:`[a < x < b]`, with 0 at both kinks, where the subdifferential is [0, 1], as in torch.

    >>> hardtanh_derivative(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([0., 1., 0.])
    """
    inside = (x > floor_to(min_val, x)) & (-x > floor_to(-max_val, x))
    return inside.to(x.dtype).masked_fill(x.isnan(), nan)


@second_derivative(hardtanh)
def hardtanh_second_derivative(x: Tensor, /, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    r""":math:`0` everywhere; at the kinks, where f″ does not exist, 0 as in torch.

    >>> hardtanh_second_derivative(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([0., 0., 0.])
    """
    return _sides(x, 0.0, 0.0)


@elementwise(
    torch=F.elu,
    truth=lambda x, alpha: x if x[0] > 0 else alpha * series.expm1(x),
    facts=Facts(
        limits=lambda alpha: {-inf: (-alpha, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks={0.0: ("left", "left", "right")},
    ),
    domains={"alpha": NON_NEGATIVE},
    cases=({}, {"alpha": 1.5}),
)
def elu(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r"""Exponential linear unit.

    .. math:: f(x) = x \text{ for } x > 0, \quad \alpha\,(e^x - 1) \text{ otherwise}

    Domain ℝ, codomain (−α, ∞). inf gives inf, −inf gives −α, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``alpha`` is negative or not finite.
    Source: ``torch.nn.functional.elu``; Clevert, Unterthiner and Hochreiter (2016).

    >>> elu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.6321,  0.0000,  2.0000])
    """
    expm1 = tanh(0.5 * x) * (exp(x) + 1)  # compiled for a CPU torch.expm1 cancels
    below = near_0(x, x, 0.5 * x.square(), expm1, 2.0**-40)  # αx can be a tie of bfloat16
    return torch.where(x > 0, x, alpha * below)


@derivative(elu)
def elu_derivative(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r""":math:`1` for x > 0, else :math:`\alpha e^x`.

    At 0 it is α, the slope from the left, as in torch; for α = 1 there is no kink.

    >>> elu_derivative(torch.tensor([-20.0, 0.0, 2.0]))
    tensor([2.0612e-09, 1.0000e+00, 1.0000e+00])
    """
    return torch.where(x > 0, 1.0, times_exp(alpha, x.clamp(max=0)))


@second_derivative(elu)
def elu_second_derivative(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r""":math:`0` for x > 0, else :math:`\alpha e^x`.

    At 0, where f″ jumps from α to 0 even for α = 1, it is 0 as in torch.

    >>> elu_second_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.3679, 0.0000, 0.0000])
    """
    return torch.where(x >= 0, 0.0, times_exp(alpha, x.clamp(max=0)))


SCALE, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
"""λ and α of selu, with which mean 0 and variance 1 are a fixed point of a layer."""


@elementwise(
    torch=F.selu,
    truth=lambda x: SCALE * (x if x[0] > 0 else ALPHA * series.expm1(x)),
    facts=Facts(
        limits={-inf: (-SCALE * ALPHA, 0.0, 0.0), inf: (inf, SCALE, 0.0)},
        kinks={0.0: ("left", "left", "right")},
    ),
)
def selu(x: Tensor, /) -> Tensor:
    r"""Scaled exponential linear unit, of two constants that keep activations normalized.

    .. math:: f(x) = \lambda x \text{ for } x > 0, \quad \lambda \alpha\,(e^x - 1) \text{ otherwise}

    Domain ℝ, codomain (−λα, ∞). inf gives inf, −inf gives −λα, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.selu``; Klambauer, Unterthiner, Mayr and Hochreiter (2017).

    >>> selu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-1.1113,  0.0000,  2.1014])
    """
    return SCALE * elu(x, ALPHA)


@derivative(selu)
def selu_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\lambda` for x > 0, else :math:`\lambda \alpha e^x`, also at 0, as in torch.

    >>> selu_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.6468, 1.7581, 1.0507])
    """
    return torch.where(x > 0, SCALE, times_exp(SCALE * ALPHA, x.clamp(max=0)))


@second_derivative(selu)
def selu_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`0` for x > 0, else :math:`\lambda \alpha e^x`; at 0, where it jumps, 0 as in torch.

    >>> selu_second_derivative(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0.6468, 0.0000, 0.0000])
    """
    return torch.where(x >= 0, 0.0, times_exp(SCALE * ALPHA, x.clamp(max=0)))


@elementwise(
    torch=F.celu,
    truth=lambda x, alpha: x if x[0] > 0 else alpha * series.expm1(x / alpha),
    facts=Facts(
        limits=lambda alpha: {-inf: (-alpha, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks={0.0: (0.0, 1.0, "right")},
    ),
    domains={"alpha": POSITIVE},
    cases=({}, {"alpha": 1.5}),
)
def celu(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r"""Exponential linear unit whose slope is continuous for every α.

    .. math:: f(x) = x \text{ for } x > 0, \quad \alpha\,(e^{x/\alpha} - 1) \text{ otherwise}

    Domain ℝ, codomain (−α, ∞). inf gives inf, −inf gives −α, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``alpha`` is not positive and finite.
    Source: ``torch.nn.functional.celu``; Barron (2017).

    >>> celu(torch.tensor([-1.0, 0.0, 2.0]), alpha=2.0)
    tensor([-0.7869,  0.0000,  2.0000])
    """
    t, _ = scaled_exponent(x, alpha)
    below = near_0(t, x, x * (0.5 * t), alpha * (tanh(0.5 * t) * (exp(t) + 1)), 2.0**-40)
    return torch.where(x > 0, x, below)


@derivative(celu)
def celu_derivative(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r""":math:`1` for x > 0, else :math:`e^{x/\alpha}`.

    >>> celu_derivative(torch.tensor([-1.0, 0.0, 2.0]), alpha=2.0)
    tensor([0.6065, 1.0000, 1.0000])
    """
    return times_exp(1.0, *scaled_exponent(x, alpha))


@second_derivative(celu)
def celu_second_derivative(x: Tensor, /, alpha: float = 1.0) -> Tensor:
    r""":math:`0` for x > 0, else :math:`\tfrac{1}{\alpha} e^{x/\alpha}`.

    At 0, where f″ jumps from 1/α to 0, it is 0 as in torch.

    >>> celu_second_derivative(torch.tensor([-1.0, 0.0, 2.0]), alpha=2.0)
    tensor([0.3033, 0.0000, 0.0000])
    """
    inverse = 1 / max(alpha, 2.0**-1023)  # for a smaller α it overflows
    return torch.where(x >= 0, 0.0, times_exp(inverse, *scaled_exponent(x, alpha)))


@elementwise(
    torch=lambda x, beta, threshold: (
        F.softplus(x, beta) if threshold == inf else F.softplus(x, beta, threshold)
    ),
    truth=lambda x, beta, threshold: (
        x if beta * x[0] > threshold else series.softplus(beta * x) / beta
    ),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks=lambda beta, threshold: (
            {} if threshold == inf else {threshold / beta: ("left", "left", "right")}
        ),
    ),
    domains={"beta": POSITIVE, "threshold": OR_INFINITE},
    cases=({}, {"beta": 2.5}, {"threshold": 20.0}, {"beta": 4.0, "threshold": 5.0}),
    differs={"threshold": "torch's 20 makes the float64 value jump by 2.06e-9 there; inf does not"},
)
def softplus(x: Tensor, /, beta: float = 1.0, threshold: float = inf) -> Tensor:
    r"""Smooth approximation of relu.

    .. math:: f(x) = \tfrac{1}{\beta} \log(1 + e^{\beta x})
              = \max(x, 0) + \tfrac{1}{\beta} \log(1 + e^{-|\beta x|})

    Where βx exceeds ``threshold`` it is x, which torch does from 20 on to avoid an overflow that
    the second form does not have. Domain ℝ, codomain (0, ∞), smooth unless a threshold is given.
    inf gives inf, −inf gives 0, NaN gives NaN. Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``beta`` is not positive and finite, or ``threshold`` is NaN.
    Source: ``torch.nn.functional.softplus``.

    >>> softplus(torch.tensor([-20.0, 0.0, 2.0]))
    tensor([2.0612e-09, 6.9315e-01, 2.1269e+00])
    """
    factors = _rescaled(x, beta)
    t, error = _exponent(*factors)
    excess = log1p(Exponential.of(t, error).value) / beta
    smallest = torch.finfo(x.dtype).tiny
    tiny = t < 0.9 * log(smallest)  # where exp(t) is about to underflow
    if beta < 1 and may_hold(tiny):
        root = Exponential.of(*_exponent(0.5 * factors[0], factors[1]))
        inverse = 1 / max(beta, smallest)  # for a smaller β only x = ±inf is as far out
        excess = torch.where(tiny, root.times(root.times(inverse)), excess)
    smooth = x.clamp(min=0) + excess
    return torch.where(_excess(x, beta, threshold) > 0, x, smooth)


@derivative(softplus)
def softplus_derivative(x: Tensor, /, beta: float = 1.0, threshold: float = inf) -> Tensor:
    r""":math:`\sigma(\beta x)`, and 1 where βx exceeds ``threshold``.

    >>> softplus_derivative(torch.tensor([-20.0, 0.0, 2.0]))
    tensor([2.0612e-09, 5.0000e-01, 8.8080e-01])
    """
    e = Exponential.of(*_exponent(x, beta)).value
    rise = torch.where(x > 0, 1.0, e) / (1 + e)
    return torch.where(_excess(x, beta, threshold) > 0, 1.0, rise)


@second_derivative(softplus)
def softplus_second_derivative(x: Tensor, /, beta: float = 1.0, threshold: float = inf) -> Tensor:
    r""":math:`\beta\,\sigma'(\beta x)`, and 0 where βx reaches ``threshold``, as in torch.

    >>> softplus_second_derivative(torch.tensor([-20.0, 0.0, 2.0]))
    tensor([2.0612e-09, 2.5000e-01, 1.0499e-01])
    """
    t, error = _exponent(x, beta)
    e = exp(t)
    smooth = times_exp(beta / (1 + e * (2 + e)), t, error)
    return torch.where(_excess(x, beta, threshold) >= 0, 0.0, smooth)


def _excess(x: Tensor, beta: float, threshold: float) -> Tensor:
    """A number with the sign of βx − threshold, before βx is rounded."""
    if threshold == inf:
        return torch.full_like(x, -inf)
    product, error = two_product(x, beta)
    return torch.where(product == threshold, error, product - threshold)


def _exponent(x: Tensor, beta: float) -> tuple[Tensor, Tensor | None]:
    """t = −|βx| and its rounding error, if any, which is a relative error of exp(t)."""
    if beta == 1:
        return -x.abs(), None
    product, error = two_product(x, beta)
    lost = torch.where(product.abs() < 1000, -error * product.sign(), 0.0)
    return -product.abs(), lost


def _rescaled(x: Tensor, beta: float) -> tuple[Tensor, float]:
    """Two factors of βx, of which neither is as large or small as an extreme β."""
    fraction, power = frexp(beta)
    return (x, beta) if abs(power) < 900 else (x * 2.0 ** (power - 1), 2 * fraction)
