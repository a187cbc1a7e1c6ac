"""Negative log-likelihoods of an observed number under a distribution with given parameters.

The body of a loss is the unreduced loss, that of a derivative its partial derivative by ``wrt``, or
by ``wrt`` and ``along``. The decorators lift them and apply ``reduction`` and ``grad_output``
(gradref.declare.profiles).
"""

from __future__ import annotations

from math import log, nan, pi
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import loss, partial_derivatives, partial_hvp, second_partial_derivatives
from gradref.declare.domains import (
    BETWEEN_1_AND_2,
    COUNT,
    NON_NEGATIVE,
    NON_NEGATIVE_REAL,
    POSITIVE_REAL,
    REAL,
)
from gradref.formula.errorfree import two_product
from gradref.formula.weighting import reduced, weighted
from gradref.truth import series

__all__ = [
    "gamma_nll_loss",
    "gamma_nll_loss_gradient",
    "gamma_nll_loss_hessian_diagonal",
    "gamma_nll_loss_hvp",
    "gaussian_nll_loss",
    "gaussian_nll_loss_gradient",
    "gaussian_nll_loss_hessian_diagonal",
    "gaussian_nll_loss_hvp",
    "poisson_nll_loss",
    "poisson_nll_loss_gradient",
    "poisson_nll_loss_hessian_diagonal",
    "poisson_nll_loss_hvp",
    "tweedie_nll_loss",
    "tweedie_nll_loss_gradient",
    "tweedie_nll_loss_hessian_diagonal",
    "tweedie_nll_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]

# --- Poisson -------------------------------------------------------------------------------------


def _poisson_truth(input: Any, target: Any, log_input: bool, full: bool, eps: Any) -> Any:
    rate = np.exp(input) if log_input else input
    log_rate = input if log_input else np.log(input + eps)
    terms = [rate, -target * log_rate]
    if full:
        terms.append(series.each(lambda t: (t + 1).lgamma(), target))
    return np.stack(terms, axis=-1)


@loss(
    torch=F.poisson_nll_loss,
    truth=_poisson_truth,
    domains={
        "input": lambda log_input, **_: REAL if log_input else POSITIVE_REAL,
        "target": COUNT,
        "eps": NON_NEGATIVE,
    },
    cases=({}, {"full": True}, {"log_input": False}, {"log_input": False, "full": True}),
    mistakes={"log t! is Stirling's approximation of it": F.poisson_nll_loss},
)
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Negative log-likelihood of counts under Poisson distributions; by default its mean.

    .. math:: \ell = \lambda - t \log \lambda\ [\,+ \log t!\,], \qquad \lambda = e^x

    for rates λ and counts t. Without ``log_input`` x is λ itself, with log(x + eps) for its
    logarithm. ``full`` adds log t! for every t; torch adds Stirling's approximation of it, for
    t > 1. Domain x ∈ ℝ, or x > 0 without ``log_input``; t ≥ 0; smooth. One shape: nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target below 0, a rate that is not positive, or an unknown
    reduction. Source: ``torch.nn.functional.poisson_nll_loss``.

    >>> poisson_nll_loss(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 3.0]), full=True)
    tensor(2.2425)
    """
    rate = torch.exp(input) if log_input else input
    log_rate = input if log_input else torch.log(input + eps)
    result = rate - weighted(log_rate, target)
    return result + _log_factorial(target) if full else result


@partial_derivatives(poisson_nll_loss)
def poisson_nll_loss_gradient(
    input: Tensor, target: Tensor, wrt: str, log_input: bool, full: bool, eps: float
) -> Tensor:
    r""":math:`\partial \ell / \partial x = e^x - t`, and :math:`1 - t / (x + \epsilon)` for rates.

    In t it is −log λ, and ψ(t + 1) − log λ with ``full``.

    >>> poisson_nll_loss_gradient(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]), True, False)
    tensor([-0.5000, -0.1409])
    """
    if wrt == "input":
        if log_input:
            return _unless_small(input, target, 1.0, torch.exp(input) - target)
        return 1 - target / (input + eps)
    slope = -input if log_input else -torch.log(input + eps)
    return slope + _digamma(target + 1) if full else slope


@second_partial_derivatives(poisson_nll_loss)
def poisson_nll_loss_hessian_diagonal(
    input: Tensor, target: Tensor, wrt: str, along: str, log_input: bool, full: bool, eps: float
) -> Tensor:
    r""":math:`\partial^2 \ell / \partial x^2 = e^x`, or :math:`t / (x + \epsilon)^2` for rates.

    In t it is 0, and ψ′(t + 1) with ``full``; mixed it is −1, or −1/(x + eps) for rates.

    >>> poisson_nll_loss_hessian_diagonal(torch.zeros(2), torch.tensor([2.0, 3.0]), reduction="sum")
    tensor([1., 1.])
    """
    if wrt != along:
        result = torch.full_like(input, -1.0) if log_input else -1 / (input + eps)
    elif wrt == "input":
        result = torch.exp(input) if log_input else target / (input + eps).square()
    else:
        result = torch.special.zeta(2, target + 1) if full else torch.zeros_like(target)
    return torch.where(input.isnan() | target.isnan(), nan, result)


poisson_nll_loss_hvp = partial_hvp(poisson_nll_loss)

FEW = 2.0**-12
"""Below it log t! is its power series, −γt + π²t²/12 − ζ(3)t³/3 + ζ(4)t⁴/4, to the last digit."""

SERIES = (-0.5772156649015329, 0.8224670334241132, -0.40068563438653143, 0.27058080842778454)


def _digamma(t: Tensor) -> Tensor:
    """Return ψ(t), evaluated in float64: torch's in float32 is off by 10 ulp."""
    result: Tensor = torch.digamma(t.to(torch.float64))
    return result.to(t.dtype)


def _log_factorial(t: Tensor) -> Tensor:
    """Return log t! = log Γ(t + 1)."""
    first, second, third, fourth = SERIES
    near_0 = t * (first + t * (second + t * (third + t * fourth)))
    return torch.where(t < FEW, near_0, torch.lgamma(t + 1))


# --- Gaussian ------------------------------------------------------------------------------------


def _clamped(variance: Any, eps: Any) -> Any:
    """max(v, eps), with the derivative of v."""
    result = variance + 0
    if variance[0] < eps:
        result[0] = eps
    return result


def _gaussian_truth(input: Any, target: Any, var: Any, full: bool, eps: Any) -> Any:
    variance = np.frompyfunc(lambda v: _clamped(v, eps), 1, 1)(var)
    squares = (input - target) * (input - target) / variance
    terms = [np.log(variance) / 2, squares / 2]
    if full:
        terms.append(var * 0 + (2 * eps.pi()).log() / 2)
    return np.stack(terms, axis=-1)


@loss(
    torch=F.gaussian_nll_loss,
    truth=_gaussian_truth,
    domains={"input": REAL, "target": REAL, "var": NON_NEGATIVE_REAL, "eps": NON_NEGATIVE},
    cases=({}, {"full": True, "eps": 0.01}),
)
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Negative log-likelihood of a number under a normal distribution; by default its mean.

    .. math:: \ell = \tfrac{1}{2} \Bigl(\log v + \frac{(x - t)^2}{v}\Bigr)
              \ [\,+ \tfrac{1}{2} \log 2\pi\,], \qquad v = \max(\mathrm{var}, \epsilon)

    ``full`` adds the constant. Domain x, t ∈ ℝ, var ≥ 0. Derivatives are by v, as torch documents:
    the clamp does not count, and below eps they are those at eps. One shape: nothing is broadcast.
    float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a variance below 0, or an unknown reduction.
    Source: ``torch.nn.functional.gaussian_nll_loss``; Nix and Weigend (1994).

    >>> gaussian_nll_loss(torch.tensor([1.0, 2.0]), torch.zeros(2), torch.ones(2))
    tensor(1.2500)
    """
    v, r = var.clamp(min=eps), input - target
    result = (v.log() + r * (r / v)) / 2
    return result + log(2 * pi) / 2 if full else result


@partial_derivatives(gaussian_nll_loss)
def gaussian_nll_loss_gradient(
    input: Tensor, target: Tensor, var: Tensor, wrt: str, eps: float
) -> Tensor:
    r""":math:`\partial \ell / \partial x = (x - t) / v = -\partial \ell / \partial t`.

    :math:`\partial \ell / \partial v = \tfrac{1}{2 v} (1 - (x - t)^2 / v)`.

    >>> x, t, v = torch.tensor([1.0, 3.0]), torch.zeros(2), torch.ones(2)
    >>> gaussian_nll_loss_gradient(x, t, v, reduction="sum", wrt="var")
    tensor([ 0., -4.])
    """
    v, r = var.clamp(min=eps), input - target
    if wrt == "var":
        return _shortfall(r, v, 1.0) / v / 2
    return r / v if wrt == "input" else -r / v


@second_partial_derivatives(gaussian_nll_loss)
def gaussian_nll_loss_hessian_diagonal(
    input: Tensor, target: Tensor, var: Tensor, wrt: str, along: str, eps: float
) -> Tensor:
    r""":math:`1 / v` by x and by t, and their negative mixed; with v :math:`\mp (x - t) / v^2`.

    :math:`\partial^2 \ell / \partial v^2 = \tfrac{1}{v^2} ((x - t)^2 / v - \tfrac{1}{2})`.

    >>> one = torch.ones(1)
    >>> gaussian_nll_loss_hessian_diagonal(2 * one, one, one, wrt="var")
    tensor([0.5000])
    """
    v, r = var.clamp(min=eps), input - target
    if wrt == along == "var":
        return -_shortfall(r, v, 0.5) / v / v
    if "var" in (wrt, along):
        return -r / v / v if "input" in (wrt, along) else r / v / v
    return torch.where(r.isnan(), r, 1 / v if wrt == along else -1 / v)


gaussian_nll_loss_hvp = partial_hvp(gaussian_nll_loss)


def _shortfall(r: Tensor, v: Tensor, level: float) -> Tensor:
    """level − r²/v, from the exact r² where that cancels."""
    quotient = r * (r / v)
    square, lost = two_product(r, r)
    cancelled = ((level * v - square) - lost) / v
    return torch.where((quotient - level).abs() < level / 2, cancelled, level - quotient)


# --- Gamma, of the logarithm of a mean -----------------------------------------------------------


@loss(
    torch=lambda input, target, reduction: reduced(target * torch.exp(-input) + input, reduction),
    truth=lambda input, target: np.stack([target * np.exp(-input), input], axis=-1),
    domains={"input": REAL, "target": POSITIVE_REAL},
)
def gamma_nll_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""Negative log-likelihood under Gamma distributions of mean eˣ, but for terms of t alone.

    .. math:: \ell = t\,e^{-x} + x

    By default its mean; half the Gamma deviance has the same derivatives in x. Domain x ∈ ℝ, t > 0,
    smooth, convex in x. One shape: nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is not positive, or an unknown reduction.
    Source: McCullagh and Nelder (1989), chapter 8; ``reg:gamma`` of XGBoost.

    >>> gamma_nll_loss(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0]), reduction="none")
    tensor([2.0000, 1.3679])
    """
    return _times_exp(target, -1.0, input) + input


@partial_derivatives(gamma_nll_loss)
def gamma_nll_loss_gradient(input: Tensor, target: Tensor, wrt: str) -> Tensor:
    r""":math:`\partial \ell / \partial x = 1 - t\,e^{-x}`, and :math:`e^{-x}` in t.

    >>> gamma_nll_loss_gradient(torch.zeros(2), torch.tensor([2.0, 0.5]), reduction="sum")
    tensor([-1.0000,  0.5000])
    """
    if wrt == "target":
        return torch.exp(-input)
    far = 1 - _times_exp(target, -1.0, input)
    return _unless_small(input, target, torch.exp(-input), far)


@second_partial_derivatives(gamma_nll_loss)
def gamma_nll_loss_hessian_diagonal(input: Tensor, target: Tensor, wrt: str, along: str) -> Tensor:
    r""":math:`\partial^2 \ell / \partial x^2 = t\,e^{-x}`; mixed it is −e⁻ˣ, in t 0.

    >>> gamma_nll_loss_hessian_diagonal(torch.zeros(2), torch.tensor([2.0, 0.5]), reduction="sum")
    tensor([2.0000, 0.5000])
    """
    if wrt != along:
        result = -torch.exp(-input)
    else:
        result = _times_exp(target, -1.0, input) if wrt == "input" else torch.zeros_like(target)
    return torch.where(input.isnan() | target.isnan(), nan, result)


gamma_nll_loss_hvp = partial_hvp(gamma_nll_loss)


# --- Tweedie, of the logarithm of a mean ---------------------------------------------------------


def _tweedie_in_torch(input: Tensor, target: Tensor, power: float, reduction: str) -> Tensor:
    by_target = target * torch.exp((1 - power) * input) / (1 - power)
    return reduced(torch.exp((2 - power) * input) / (2 - power) - by_target, reduction)


def _tweedie_truth(input: Any, target: Any, power: Any) -> Any:
    by_target = target * np.exp(input * (1 - power)) / (power - 1)
    return np.stack([np.exp(input * (2 - power)) / (2 - power), by_target], axis=-1)


@loss(
    torch=_tweedie_in_torch,
    truth=_tweedie_truth,
    domains={"input": REAL, "target": NON_NEGATIVE_REAL, "power": BETWEEN_1_AND_2},
    cases=({}, {"power": 1.25}),
)
def tweedie_nll_loss(
    input: Tensor, target: Tensor, power: float = 1.5, reduction: Reduction = "mean"
) -> Tensor:
    r"""Negative log-likelihood under Tweedie distributions of mean eˣ, but for terms of t alone.

    .. math:: \ell = \frac{e^{(2 - \rho) x}}{2 - \rho} - t\,\frac{e^{(1 - \rho) x}}{1 - \rho}

    for a variance that is the mean to the power ρ between 1, Poisson's, and 2, Gamma's: sums of a
    random number of amounts, as what an insurance pays. By default its mean; half the Tweedie
    deviance has the same derivatives in x. Domain x ∈ ℝ, t ≥ 0, smooth, convex in x. One shape:
    nothing is broadcast. x = inf gives inf, x = −inf too unless t = 0, NaN gives NaN. float64,
    float32, float16, bfloat16.

    Raises ValueError for two shapes, a target below 0, a power outside (1, 2), or an unknown
    reduction. Source: Jørgensen (1987); ``reg:tweedie`` of XGBoost.

    >>> tweedie_nll_loss(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]), reduction="none")
    tensor([6.0000, 3.2974])
    """
    return _exp(2 - power, input) / (2 - power) + _times_exp(target, 1 - power, input) / (power - 1)


@partial_derivatives(tweedie_nll_loss)
def tweedie_nll_loss_gradient(input: Tensor, target: Tensor, wrt: str, power: float) -> Tensor:
    r""":math:`\partial \ell / \partial x = e^{(2 - \rho) x} - t\,e^{(1 - \rho) x}`.

    In t it is :math:`e^{(1 - \rho) x} / (\rho - 1)`.

    >>> tweedie_nll_loss_gradient(torch.zeros(2), torch.tensor([2.0, 0.5]), reduction="sum")
    tensor([-1.0000,  0.5000])
    """
    if wrt == "target":
        return _exp(1 - power, input) / (power - 1)
    far = _exp(2 - power, input) - _times_exp(target, 1 - power, input)
    return _unless_small(input, target, _exp(1 - power, input), far)


@second_partial_derivatives(tweedie_nll_loss)
def tweedie_nll_loss_hessian_diagonal(
    input: Tensor, target: Tensor, wrt: str, along: str, power: float
) -> Tensor:
    r""":math:`(2 - \rho)\,e^{(2 - \rho) x} + (\rho - 1)\,t\,e^{(1 - \rho) x}` in x.

    Mixed it is :math:`-e^{(1 - \rho) x}`, in t 0.

    >>> tweedie_nll_loss_hessian_diagonal(torch.zeros(2), torch.tensor([2.0, 0.5]), reduction="sum")
    tensor([1.5000, 0.7500])
    """
    if wrt != along:
        result = -_exp(1 - power, input)
    elif wrt == "target":
        result = torch.zeros_like(target)
    else:
        by_target = _times_exp(target, 1 - power, input, power - 1)
        result = (2 - power) * _exp(2 - power, input) + by_target
    return torch.where(input.isnan() | target.isnan(), nan, result)


tweedie_nll_loss_hvp = partial_hvp(tweedie_nll_loss)


def _times_exp(t: Tensor, a: float, x: Tensor, factor: float = 1.0) -> Tensor:
    """t exp(a x) times a factor, none of which over- or underflows before; 0 for t = 0."""
    root = _exp(0.5 * a, x)
    return weighted(factor * root, weighted(root, t))


def _unless_small(x: Tensor, t: Tensor, factor: Tensor | float, far: Tensor) -> Tensor:
    """``far``; for small x, where both terms may be near 1, factor (eˣ − t) without a loss."""
    return torch.where(x.abs() < 0.5, factor * (torch.expm1(x) + (1 - t)), far)


def _exp(a: float, x: Tensor) -> Tensor:
    """exp(a x), with the rounding error of the product."""
    y, lost = two_product(x, a)
    result = torch.exp(y)
    return torch.where(result.isfinite(), result + result * lost, result)
