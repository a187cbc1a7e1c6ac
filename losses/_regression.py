"""Losses of a residual.

A loss of one residual is its profile φ, written as the unreduced and unweighted loss of x and t,
with φ′ and φ″ below it: of the residual r = x − t, and of what rounding r has lost where φ″ jumps.
The decorators lift them to both arguments and apply ``weight``, ``reduction`` and ``grad_output``
(gradref.declare.profiles).
"""

from __future__ import annotations

from math import inf, log, nan
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from activations import tanh, tanh_derivative
from gradref.declare import (
    profile_derivative,
    profile_hvp,
    profile_second_derivative,
    residual_loss,
)
from gradref.declare.domains import BETWEEN_0_AND_1, NON_NEGATIVE, POSITIVE, WEIGHT
from gradref.declare.facts import FROM_LEFT, FROM_RIGHT, Facts
from gradref.formula.errorfree import exp, log1p, near_0, two_product
from gradref.formula.weighting import reduced

__all__ = [
    "huber_loss",
    "huber_loss_gradient",
    "huber_loss_hessian_diagonal",
    "huber_loss_hvp",
    "l1_loss",
    "l1_loss_gradient",
    "l1_loss_hessian_diagonal",
    "l1_loss_hvp",
    "log_cosh_loss",
    "log_cosh_loss_gradient",
    "log_cosh_loss_hessian_diagonal",
    "log_cosh_loss_hvp",
    "mse_loss",
    "mse_loss_gradient",
    "mse_loss_hessian_diagonal",
    "mse_loss_hvp",
    "pseudo_huber_loss",
    "pseudo_huber_loss_gradient",
    "pseudo_huber_loss_hessian_diagonal",
    "pseudo_huber_loss_hvp",
    "quantile_loss",
    "quantile_loss_gradient",
    "quantile_loss_hessian_diagonal",
    "quantile_loss_hvp",
    "smooth_l1_loss",
    "smooth_l1_loss_gradient",
    "smooth_l1_loss_hessian_diagonal",
    "smooth_l1_loss_hvp",
    "sum_of_squares",
    "sum_of_squares_gradient",
    "sum_of_squares_hessian_diagonal",
    "sum_of_squares_hvp",
]

Reduction = Literal["none", "mean", "sum"]

# --- squared error -------------------------------------------------------------------------------


@residual_loss(
    torch=F.mse_loss,
    truth=lambda r: r * r,
    facts=Facts(limits={-inf: (inf, -inf, 2.0), inf: (inf, inf, 2.0)}),
    domains={"weight": WEIGHT},
    mass=lambda weight: weight,
    truth_mass=lambda input, weight, **_: input * 0 + 1 if weight is None else weight,
    cases=({}, {"weight": WEIGHT}),
)
def mse_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None
) -> Tensor:
    r"""Squared error; by default its mean.

    .. math:: \ell_i = w_i\,(x_i - t_i)^2, \qquad L = \frac{\sum_i \ell_i}{\sum_i w_i}

    ``reduction="sum"`` is Σ ℓᵢ, the residual sum of squares. Domain ℝ, codomain [0, ∞), smooth.
    ``input`` and ``target`` have one shape: nothing is broadcast but ``weight`` (numbers ≥ 0).
    float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a negative weight or an unknown reduction.
    Source: ``torch.nn.functional.mse_loss``.

    >>> mse_loss(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.5000)
    """
    return (input - target).square()


@profile_derivative(mse_loss)
def mse_loss_gradient(r: Tensor) -> Tensor:
    r""":math:`\varphi'(r) = 2r`."""
    return 2 * r


@profile_second_derivative(mse_loss)
def mse_loss_hessian_diagonal(r: Tensor) -> Tensor:
    r""":math:`\varphi''(r) = 2`."""
    return torch.where(r.isnan(), r, 2.0)


mse_loss_hvp = profile_hvp(mse_loss)


@residual_loss(
    torch=lambda input, target, reduction: F.mse_loss(input, target, reduction=reduction) / 2,
    truth=lambda r: r * r / 2,
    facts=Facts(limits={-inf: (inf, -inf, 1.0), inf: (inf, inf, 1.0)}),
)
def sum_of_squares(input: Tensor, target: Tensor, reduction: Reduction = "sum") -> Tensor:
    r"""Sum-of-squares error with the ½ that makes the residual its gradient.

    .. math:: E = \tfrac{1}{2} \sum_i (x_i - t_i)^2

    Domain ℝ, codomain [0, ∞), smooth. ``input`` and ``target`` have one shape: nothing is
    broadcast. Without the ½ it is ``mse_loss`` with ``reduction="sum"``. float64, float32,
    float16, bfloat16.

    Raises ValueError for two shapes or an unknown reduction.
    Source: Bishop, Pattern Recognition and Machine Learning (2006), equation 1.2.

    >>> sum_of_squares(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.5000)
    """
    return (input - target) * ((input - target) / 2)


@profile_derivative(sum_of_squares)
def sum_of_squares_gradient(r: Tensor) -> Tensor:
    r""":math:`\varphi'(r) = r`.

    >>> sum_of_squares_gradient(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([1., 2.])
    """
    return r


@profile_second_derivative(sum_of_squares)
def sum_of_squares_hessian_diagonal(r: Tensor) -> Tensor:
    r""":math:`\varphi''(r) = 1`."""
    return torch.where(r.isnan(), r, 1.0)


sum_of_squares_hvp = profile_hvp(sum_of_squares)

# --- squared error near the target, absolute error beyond ----------------------------------------


def _huber_truth(r: Any, delta: Any) -> Any:
    return r * r / 2 if abs(r[0]) < delta else delta * (r * r[0].sgn() - delta / 2)


def _within(r: Tensor, error: Tensor, width: float) -> Tensor:
    """Return 1 where abs(r + error) < width, else 0; NaN for NaN."""
    distance = r.abs()
    excess = torch.where(distance == width, error * r.sign(), distance - width)
    return (excess < 0).to(excess.dtype).masked_fill(excess.isnan(), nan)


@residual_loss(
    torch=F.huber_loss,
    truth=_huber_truth,
    facts=Facts(
        limits=lambda delta: {-inf: (inf, -delta, 0.0), inf: (inf, delta, 0.0)},
        kinks=lambda delta: {-delta: FROM_LEFT, delta: FROM_RIGHT},
    ),
    domains={"delta": POSITIVE, "weight": WEIGHT},
    cases=({}, {"delta": 0.7}, {"delta": 2.5, "weight": WEIGHT}),
)
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Squared error up to a residual of δ, absolute error beyond; by default its mean.

    .. math:: \ell = w\,h\,\bigl(|x - t| - \tfrac{1}{2} h\bigr), \qquad h = \min(|x - t|, \delta)

    The mean divides by the number of elements, also under ``weight`` (numbers ≥ 0). Domain ℝ,
    codomain [0, ∞), convex. One shape but for ``weight``; float64, float32, float16, bfloat16.
    Raises ValueError for two shapes, δ ≤ 0 or a negative weight. Source: Huber (1964).

    >>> huber_loss(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    reach = (input - target).clamp(-delta, delta)
    return reach * (input - target - reach / 2)


@profile_derivative(huber_loss)
def huber_loss_gradient(r: Tensor, delta: float) -> Tensor:
    r""":math:`\varphi'(r) = \max(-\delta, \min(r, \delta))`."""
    return r.clamp(-delta, delta)


@profile_second_derivative(huber_loss)
def huber_loss_hessian_diagonal(r: Tensor, error: Tensor, delta: float) -> Tensor:
    r""":math:`\varphi''(r) = 1` for :math:`|r| < \delta`, else 0, also at the corner."""
    return _within(r, error, delta)


huber_loss_hvp = profile_hvp(huber_loss)


@residual_loss(
    torch=F.smooth_l1_loss,
    truth=lambda r, beta: _huber_truth(r, beta) / beta if beta > 0 else r * r[0].sgn(),
    facts=Facts(
        limits={-inf: (inf, -1.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks=lambda beta: {-beta: FROM_LEFT, beta: FROM_RIGHT} if beta else {0.0: (0.0, 0.0, 0.0)},
    ),
    domains={"beta": NON_NEGATIVE},
    cases=({}, {"beta": 0.7}, {"beta": 2.5}, {"beta": 0.0}),
)
def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", beta: float = 1.0
) -> Tensor:
    r"""Absolute error, rounded off below a residual of β; by default its mean.

    .. math:: \ell = \frac{(x - t)^2}{2 \beta} \text{ for } |x - t| < \beta, \quad
              |x - t| - \tfrac{1}{2} \beta \text{ otherwise}

    It is ``huber_loss`` with δ = β, divided by β; for β = 0 the absolute error (L1 loss). Domain ℝ,
    codomain [0, ∞), convex. NaN gives NaN. One shape; float64, float32, float16, bfloat16. Raises
    ValueError for two shapes, a negative ``beta``. Source: ``torch.nn.functional.smooth_l1_loss``.

    >>> smooth_l1_loss(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    distance = (input - target).abs()
    reach = distance.clamp(max=beta)
    return distance if beta == 0 else reach / beta * (distance - reach / 2)


@profile_derivative(smooth_l1_loss)
def smooth_l1_loss_gradient(r: Tensor, beta: float) -> Tensor:
    r""":math:`\varphi'(r) = \max(-1, \min(r / \beta, 1))`, for β = 0 the sign of r, 0 at 0."""
    if beta == 0:
        return r.sign().masked_fill(r.isnan(), nan)
    return (r / beta).clamp(-1, 1)


@profile_second_derivative(smooth_l1_loss)
def smooth_l1_loss_hessian_diagonal(r: Tensor, error: Tensor, beta: float) -> Tensor:
    r""":math:`\varphi''(r) = 1 / \beta` for :math:`|r| < \beta`, else 0, also at the corner."""
    return _within(r, error, beta) / (beta or 1)


smooth_l1_loss_hvp = profile_hvp(smooth_l1_loss)

# --- absolute error, and with unequal sides ------------------------------------------------------


@residual_loss(
    torch=F.l1_loss,
    truth=lambda r: r * r[0].sgn(),
    facts=Facts(
        limits={-inf: (inf, -1.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks={0.0: (0.0, 0.0, 0.0)},
    ),
    domains={"weight": WEIGHT},
    mass=lambda weight: weight,
    truth_mass=lambda input, weight, **_: input * 0 + 1 if weight is None else weight,
    cases=({}, {"weight": WEIGHT}),
)
def l1_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None
) -> Tensor:
    r"""Absolute error; by default its mean.

    .. math:: \ell_i = w_i\,|x_i - t_i|, \qquad L = \frac{\sum_i \ell_i}{\sum_i w_i}

    Domain ℝ, codomain [0, ∞), convex. ``input`` and ``target`` have one shape: nothing is broadcast
    but ``weight`` (numbers ≥ 0). float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a negative weight or an unknown reduction.
    Source: ``torch.nn.functional.l1_loss``.

    >>> l1_loss(torch.tensor([2.0, -3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.5000)
    """
    return (input - target).abs()


@profile_derivative(l1_loss)
def l1_loss_gradient(r: Tensor) -> Tensor:
    r""":math:`\varphi'(r) = \operatorname{sign} r`, 0 at the corner, as in torch."""
    return r.sign().masked_fill(r.isnan(), nan)


@profile_second_derivative(l1_loss)
def l1_loss_hessian_diagonal(r: Tensor) -> Tensor:
    r""":math:`\varphi''(r) = 0`, also at the corner."""
    return torch.where(r.isnan(), r, 0.0)


l1_loss_hvp = profile_hvp(l1_loss)


@residual_loss(
    torch=lambda input, target, quantile, reduction: reduced(
        torch.where(input < target, quantile * (target - input), (1 - quantile) * (input - target)),
        reduction,
    ),
    truth=lambda r, quantile: r * (1 - quantile) if r[0] >= 0 else -quantile * r,
    facts=Facts(
        limits=lambda quantile: {-inf: (inf, -quantile, 0.0), inf: (inf, 1 - quantile, 0.0)},
        kinks={0.0: FROM_RIGHT},
    ),
    domains={"quantile": BETWEEN_0_AND_1},
    cases=({}, {"quantile": 0.9}),
)
def quantile_loss(
    input: Tensor, target: Tensor, quantile: float = 0.5, reduction: Reduction = "mean"
) -> Tensor:
    r"""Pinball loss, least at the quantile τ of the target; by default its mean.

    .. math:: \ell = \tau\,(t - x) \text{ for } x < t, \quad (1 - \tau)\,(x - t) \text{ otherwise}

    Domain ℝ, codomain [0, ∞), convex; half of the absolute error for τ = ½. One shape: nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a ``quantile`` outside of (0, 1) or an unknown reduction.
    Source: Koenker and Bassett (1978).

    >>> quantile_loss(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0]), 0.75, reduction="none")
    tensor([0.7500, 0.5000])
    """
    r = input - target
    return torch.where(r < 0, -quantile * r, (1 - quantile) * r)


@profile_derivative(quantile_loss)
def quantile_loss_gradient(r: Tensor, quantile: float) -> Tensor:
    r""":math:`\varphi'(r) = -\tau` for r < 0, else 1 − τ, also at the corner."""
    slope = torch.full_like(r, 1 - quantile).masked_fill(r < 0, -quantile)
    return slope.masked_fill(r.isnan(), nan)


@profile_second_derivative(quantile_loss)
def quantile_loss_hessian_diagonal(r: Tensor) -> Tensor:
    r""":math:`\varphi''(r) = 0`, also at the corner."""
    return torch.where(r.isnan(), r, 0.0)


quantile_loss_hvp = profile_hvp(quantile_loss)

# --- smooth at the target, linear far from it ----------------------------------------------------


@residual_loss(
    torch=lambda input, target, reduction: reduced(
        torch.logaddexp(input - target, target - input) - log(2), reduction
    ),
    truth=lambda r: (r.exp() / 2 + (-r).exp() / 2).log(),
    facts=Facts(limits={-inf: (inf, -1.0, 0.0), inf: (inf, 1.0, 0.0)}),
)
def log_cosh_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""Logarithm of the hyperbolic cosine of the residual; by default its mean.

    .. math:: \ell = \log \cosh(x - t) = |x - t| + \log(1 + e^{-2|x - t|}) - \log 2
              = -\tfrac{1}{2} \log(1 - \tanh^2(x - t))

    About half the squared error near the target, where only the last form does not cancel, and far
    from it the absolute error less log 2, where cosh itself overflows. Domain ℝ, codomain [0, ∞),
    smooth, convex. One shape: nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes or an unknown reduction. Source: Green (1990).

    >>> log_cosh_loss(torch.tensor([1.5, 1000.0]), torch.tensor([1.0, 0.0]), reduction="none")
    tensor([1.2011e-01, 9.9931e+02])
    """
    r = input - target
    a = r.abs()
    is_near = a < 0.5  # beyond, the difference from log 2 loses less than 1 − tanh²
    logarithm = log1p(torch.where(is_near, -tanh(r).square(), exp(-2 * a)))
    near = near_0(r, 0.5 * r.square(), -r.pow(4) / 12, 0.5 * logarithm.abs(), 2.0**-20)
    return torch.where(is_near, near, (a - log(2)) + logarithm)


@profile_derivative(log_cosh_loss)
def log_cosh_loss_gradient(r: Tensor) -> Tensor:
    r""":math:`\varphi'(r) = \tanh r`."""
    return tanh(r)


@profile_second_derivative(log_cosh_loss)
def log_cosh_loss_hessian_diagonal(r: Tensor) -> Tensor:
    r""":math:`\varphi''(r) = \operatorname{sech}^2 r`."""
    return tanh_derivative(r)


log_cosh_loss_hvp = profile_hvp(log_cosh_loss)


@residual_loss(
    torch=lambda input, target, reduction, delta: reduced(
        delta**2 * (torch.sqrt(1 + ((input - target) / delta) ** 2) - 1), reduction
    ),
    truth=lambda r, delta: delta * delta * ((1 + (r / delta) * (r / delta)).sqrt() - 1),
    facts=Facts(limits=lambda delta: {-inf: (inf, -delta, 0.0), inf: (inf, delta, 0.0)}),
    domains={"delta": POSITIVE},
    cases=({}, {"delta": 2.5}),
)
def pseudo_huber_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", delta: float = 1.0
) -> Tensor:
    r"""Smooth form of ``huber_loss``, of slope ±δ far from the target; by default its mean.

    .. math:: \ell = \delta^2 \bigl(\sqrt{1 + q^2} - 1\bigr)
              = \frac{\delta^2 q^2}{1 + \sqrt{1 + q^2}}, \qquad q = \frac{x - t}{\delta}

    The first form cancels near the target. Domain ℝ, codomain [0, ∞), smooth, convex. One shape:
    nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes or δ ≤ 0. Source: Charbonnier et al. (1994).

    >>> pseudo_huber_loss(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.0000, 2.1623])
    """
    r = input - target
    return r * _over_root(r, delta, 1)


@profile_derivative(pseudo_huber_loss)
def pseudo_huber_loss_gradient(r: Tensor, delta: float) -> Tensor:
    r""":math:`\varphi'(r) = r / \sqrt{1 + q^2}`."""
    return _over_root(r, delta, 0)


@profile_second_derivative(pseudo_huber_loss)
def pseudo_huber_loss_hessian_diagonal(r: Tensor, delta: float) -> Tensor:
    r""":math:`\varphi''(r) = (1 + q^2)^{-3/2}`."""
    q = (r / delta).clamp(-(2.0**511), 2.0**511)  # its square is finite
    product, error = two_product(q, delta)
    rest = ((r - product - error) / delta).nan_to_num(0, 0, 0)  # of q; it counts three times
    square = 1 + q.square()
    slope = 1 / square / torch.hypot(q, torch.ones_like(q))
    return slope - slope * (3 * (q / square) * rest)


pseudo_huber_loss_hvp = profile_hvp(pseudo_huber_loss)


def _over_root(r: Tensor, delta: float, more: float) -> Tensor:
    """r / (more + √(1 + q²)); for q > 1 δ times a quotient that tends to ±1, and not to inf/inf."""
    q = (r / delta).clamp(-(2.0**60), 2.0**60)
    is_near = q.abs() <= 1
    quotient = torch.where(is_near, r, q) / (more + (1 + q.square()).sqrt())
    return torch.where(is_near, quotient, delta * quotient)
