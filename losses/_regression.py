"""Losses of a residual.

A loss of one residual is its profile φ, written as the unreduced and unweighted loss of x and t,
with φ′ and φ″ below it: of the residual r = x − t, and of what rounding r has lost where φ″ jumps.
The decorators lift them to both arguments and apply ``weight``, ``reduction`` and ``grad_output``
(gradref.declare.profiles).
"""

from __future__ import annotations

from math import inf, nan
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import (
    profile_derivative,
    profile_hvp,
    profile_second_derivative,
    residual_loss,
)
from gradref.declare.domains import NON_NEGATIVE, POSITIVE, WEIGHT
from gradref.declare.facts import FROM_LEFT, FROM_RIGHT, Facts

__all__ = [
    "huber_loss",
    "huber_loss_gradient",
    "huber_loss_hessian_diagonal",
    "huber_loss_hvp",
    "mse_loss",
    "mse_loss_gradient",
    "mse_loss_hessian_diagonal",
    "mse_loss_hvp",
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
