"""Losses of a residual.

The body of a loss is the unreduced loss of every element or row, that of a gradient its derivative;
``reduction`` and ``grad_output`` are applied to it by the decorators (gradref.declare.calls).
"""

from __future__ import annotations

from math import nan
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.operation import NON_NEGATIVE_NUMBER, POSITIVE_NUMBER, REAL, WEIGHT
from gradref.formula.errorfree import two_sum
from gradref.truth import series
from losses._weighting import weighted

Reduction = Literal["none", "mean", "sum"]
Argument = Literal["input", "target"]
_PAIR = {"input": REAL, "target": REAL}

# --- squared error -------------------------------------------------------------------------------


@loss(
    torch=F.mse_loss,
    truth=lambda input, target, weight: (
        (input - target) * (input - target) * (1 if weight is None else weight)
    ),
    domains={**_PAIR, "weight": WEIGHT},
    mass=lambda weight: weight,
    truth_mass=lambda input, weight, **_: input * 0 + 1 if weight is None else weight,
    cases=({}, {"weight": WEIGHT}),
)
def mse_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None
) -> Tensor:
    r"""Squared error; by default its mean.

    .. math:: \ell_i = w_i\,(x_i - t_i)^2, \qquad L = \frac{\sum_i \ell_i}{\sum_i w_i}

    ``reduction="sum"`` is Σ ℓᵢ, the residual sum of squares, and ``"none"`` is ℓ itself. Domain ℝ,
    codomain [0, ∞), smooth. ``input`` and ``target`` have one shape: nothing is broadcast but
    ``weight`` (numbers ≥ 0). float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a negative weight or an unknown reduction.
    Source: ``torch.nn.functional.mse_loss``.

    >>> mse_loss(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.5000)
    """
    return weighted((input - target).square(), weight)


@gradient(mse_loss)
def mse_loss_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x = 2w\,(x - t) = -\partial \ell / \partial t`.

    >>> mse_loss_gradient(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([1., 2.])
    """
    sign = 1 if wrt == "input" else -1
    return weighted(2 * sign * (input - target), weight)


@hvp(mse_loss)
def mse_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm 2w\,v`: the derivative of the gradient for ``wrt`` as ``along`` moves along v.

    >>> x = torch.tensor([2.0, 3.0])
    >>> mse_loss_hvp(x, torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor([1., 0.])
    """
    sign = 1 if wrt == along else -1
    return weighted(2 * sign * tangent, weight)


@hessian_diagonal(mse_loss)
def mse_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial^2 \ell / \partial x^2 = \partial^2 \ell / \partial t^2 = 2w`.

    >>> mse_loss_hessian_diagonal(torch.tensor([2.0, 3.0]), torch.zeros(2), reduction="sum")
    tensor([2., 2.])
    """
    return weighted(torch.full_like(input, 2.0), weight)


@loss(
    torch=lambda input, target, reduction: F.mse_loss(input, target, reduction=reduction) / 2,
    truth=lambda input, target: (input - target) * (input - target) / 2,
    domains=_PAIR,
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
    return (input - target).square() / 2


@gradient(sum_of_squares)
def sum_of_squares_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "sum",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial E / \partial x = x - t = -\partial E / \partial t`.

    >>> sum_of_squares_gradient(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([1., 2.])
    """
    return input - target if wrt == "input" else target - input


@hvp(sum_of_squares)
def sum_of_squares_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "sum",
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm v`: the Hessian is the identity.

    >>> sum_of_squares_hvp(torch.zeros(2), torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor([1., 0.])
    """
    return tangent if wrt == along else -tangent


@hessian_diagonal(sum_of_squares)
def sum_of_squares_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "sum",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`1` everywhere.

    >>> sum_of_squares_hessian_diagonal(torch.zeros(2), torch.zeros(2))
    tensor([1., 1.])
    """
    return torch.ones_like(input)


# --- squared error near the target, absolute error beyond ----------------------------------------


def _huber_truth(input: Any, target: Any, delta: Any, weight: Any) -> Any:
    def of(residual: Any) -> Any:
        distance = residual if residual[0] > 0 else -residual
        if distance[0] < delta:
            return residual * residual / 2
        return delta * (distance - delta / 2)

    return series.each(of, input - target) * (1 if weight is None else weight)


@loss(
    torch=F.huber_loss,
    truth=_huber_truth,
    domains={**_PAIR, "delta": POSITIVE_NUMBER, "weight": WEIGHT},
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

    .. math:: \ell = w\,\tfrac{1}{2} (x - t)^2 \text{ for } |x - t| < \delta, \quad
              w\,\delta\,\bigl(|x - t| - \tfrac{1}{2} \delta\bigr) \text{ otherwise}

    Both are :math:`w\,h\,(|x - t| - h/2)` with :math:`h = \min(|x - t|, \delta)`. The mean divides
    by the number of elements, also under ``weight`` (``mse_loss``: by the sum of the weights), as
    in torch. Domain ℝ, codomain [0, ∞), convex; ℓ and its gradient are continuous, the second
    derivative jumps from w to 0 at :math:`|x - t| = \delta`. ``input`` and ``target`` have one
    shape: nothing is broadcast but ``weight`` (numbers ≥ 0). NaN gives NaN. float64, float32,
    float16, bfloat16.

    Raises ValueError for two shapes, a ``delta`` that is not positive and finite, a negative weight
    or an unknown reduction.
    Source: ``torch.nn.functional.huber_loss``; Huber (1964).

    >>> huber_loss(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    distance = (input - target).abs()
    reach = distance.clamp(max=delta)
    return weighted(reach * (distance - reach / 2), weight)


@gradient(huber_loss)
def huber_loss_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x = w \max(-\delta, \min(x - t, \delta))
    = -\partial \ell / \partial t`.

    >>> huber_loss_gradient(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), reduction="sum")
    tensor([0.5000, 1.0000])
    """
    sign = 1 if wrt == "input" else -1
    return weighted(sign * (input - target).clamp(-delta, delta), weight)


@hvp(huber_loss)
def huber_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm w\,v` for :math:`|x - t| < \delta`, else 0: also at the corner, as in torch.

    >>> x, v = torch.tensor([0.5, 3.0]), torch.tensor([1.0, 1.0])
    >>> huber_loss_hvp(x, torch.zeros(2), v, reduction="sum")
    tensor([1., 0.])
    """
    sign = 1 if wrt == along else -1
    return weighted(sign * _is_within(input, target, delta) * tangent, weight)


@hessian_diagonal(huber_loss)
def huber_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`w` for :math:`|x - t| < \delta`, else 0: also at the corner, as in torch.

    >>> x = torch.tensor([0.5, 1.0, 3.0])
    >>> huber_loss_hessian_diagonal(x, torch.zeros(3), reduction="sum")
    tensor([1., 0., 0.])
    """
    return weighted(_is_within(input, target, delta), weight)


def _smooth_l1_truth(input: Any, target: Any, beta: Any) -> Any:
    def of(residual: Any) -> Any:
        if residual[0] == 0 and beta == 0:
            return 0 * residual  # the corner of an absolute value
        distance = residual if residual[0] > 0 else -residual
        if distance[0] < beta:
            return residual * residual / (2 * beta)
        return distance - beta / 2

    return series.each(of, input - target)


@loss(
    torch=F.smooth_l1_loss,
    truth=_smooth_l1_truth,
    domains={**_PAIR, "beta": NON_NEGATIVE_NUMBER},
    cases=({}, {"beta": 0.7}, {"beta": 2.5}, {"beta": 0.0}),
)
def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", beta: float = 1.0
) -> Tensor:
    r"""Absolute error, rounded off below a residual of β; by default its mean.

    .. math:: \ell = \frac{(x - t)^2}{2 \beta} \text{ for } |x - t| < \beta, \quad
              |x - t| - \tfrac{1}{2} \beta \text{ otherwise}

    It is ``huber_loss`` with δ = β, divided by β; for β = 0 it is the absolute error (L1 loss).
    Domain ℝ, codomain [0, ∞), convex; ℓ and its gradient are continuous, the second derivative
    jumps from 1/β to 0 at :math:`|x - t| = \beta`; for β = 0 there is a corner at x = t. ``input``
    and ``target`` have one shape: nothing is broadcast. NaN gives NaN. float64, float32, float16,
    bfloat16.

    Raises ValueError for two shapes, a ``beta`` that is negative or not finite, or an unknown
    reduction.
    Source: ``torch.nn.functional.smooth_l1_loss``; Girshick (2015).

    >>> smooth_l1_loss(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    distance = (input - target).abs()
    if beta == 0:
        return distance
    reach = distance.clamp(max=beta)
    return reach / beta * (distance - reach / 2)


@gradient(smooth_l1_loss)
def smooth_l1_loss_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    beta: float = 1.0,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x = \max(-1, \min((x - t) / \beta, 1))
    = -\partial \ell / \partial t`.

    For β = 0 it is the sign of x − t: at the corner, with subdifferential [−1, 1], 0 as in torch.

    >>> smooth_l1_loss_gradient(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 1.0]), "sum")
    tensor([0.5000, 1.0000])
    """
    residual = input - target if wrt == "input" else target - input
    if beta == 0:
        return residual.sign().masked_fill(residual.isnan(), nan)
    return (residual / beta).clamp(-1, 1)


@hvp(smooth_l1_loss)
def smooth_l1_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    beta: float = 1.0,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm v / \beta` for :math:`|x - t| < \beta`, else 0: also at the corner, as in torch.

    >>> x, v = torch.tensor([0.5, 3.0]), torch.tensor([1.0, 1.0])
    >>> smooth_l1_loss_hvp(x, torch.zeros(2), v, reduction="sum", beta=2.0)
    tensor([0.5000, 0.0000])
    """
    sign = 1 if wrt == along else -1
    return sign * _smooth_l1_curvature(input, target, beta) * tangent


@hessian_diagonal(smooth_l1_loss)
def smooth_l1_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    beta: float = 1.0,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`1 / \beta` for :math:`|x - t| < \beta`, else 0: also at the corner, as in torch.

    >>> x = torch.tensor([0.5, 2.0, 3.0])
    >>> smooth_l1_loss_hessian_diagonal(x, torch.zeros(3), reduction="sum", beta=2.0)
    tensor([0.5000, 0.0000, 0.0000])
    """
    return _smooth_l1_curvature(input, target, beta)


def _smooth_l1_curvature(input: Tensor, target: Tensor, beta: float) -> Tensor:
    within = _is_within(input, target, beta)
    return within if beta == 0 else within / beta


def _is_within(input: Tensor, target: Tensor, threshold: float) -> Tensor:
    """1 where |x − t| < threshold, before the difference is rounded, else 0; NaN for NaN."""
    residual, error = two_sum(input, -target)
    distance = residual.abs()
    excess = torch.where(distance == threshold, error * residual.sign(), distance - threshold)
    return (excess < 0).to(excess.dtype).masked_fill(excess.isnan(), nan)


# --- Euclidean norm ------------------------------------------------------------------------------


def _euclidean_truth(input: Any, target: Any) -> Any:
    return np.sqrt(((input - target) * (input - target)).sum(-1))


@loss(
    torch=lambda input, target, dim: torch.linalg.vector_norm(input - target, dim=dim),
    truth=_euclidean_truth,
    domains=_PAIR,
    coupled="dim",
)
def euclidean_norm(input: Tensor, target: Tensor, dim: int = -1) -> Tensor:
    r"""Euclidean norm of the residual along ``dim``, without overflow on the way.

    .. math:: r = \lVert x - t \rVert_2

    Domain ℝⁿ, codomain [0, ∞), smooth except at x = t, where it has a corner. ``input`` and
    ``target`` have one shape (..., n, ...), the result is without ``dim``. float64, float32,
    float16, bfloat16.

    Raises ValueError for two shapes, IndexError where ``dim`` is out of range.
    Source: ``torch.linalg.vector_norm``.

    >>> euclidean_norm(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor(5.)
    """
    scale, direction = _polar(input - target, dim)
    return scale.squeeze(dim) * direction.square().sum(dim).sqrt()


@gradient(euclidean_norm)
def euclidean_norm_gradient(
    input: Tensor,
    target: Tensor,
    dim: int = -1,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial r / \partial x = (x - t) / r = -\partial r / \partial t`.

    At the corner x = t, where the subdifferential is the unit ball, it is 0 as in torch.

    >>> euclidean_norm_gradient(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor([0.6000, 0.8000])
    """
    unit = _unit(input - target, dim)
    return unit if wrt == "input" else -unit


@hvp(euclidean_norm)
def euclidean_norm_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    dim: int = -1,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm (v - u\,u^T v) / r`, u = (x − t)/r; NaN at the corner.

    >>> euclidean_norm_hvp(torch.tensor([3.0, 4.0]), torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor([ 0.1280, -0.0960])
    """
    residual = input - target
    unit = _unit(residual, dim)
    across = tangent * _others(unit.square(), unit, dim) - unit * _others(unit * tangent, unit, dim)
    product = across / euclidean_norm(input, target, dim).unsqueeze(dim)
    return product if wrt == along else -product


@hessian_diagonal(euclidean_norm)
def euclidean_norm_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    dim: int = -1,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`(1 - u_i^2) / r`, u = (x − t)/r; NaN at the corner.

    >>> euclidean_norm_hessian_diagonal(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor([0.1280, 0.0720])
    """
    unit = _unit(input - target, dim)
    return _others(unit.square(), unit, dim) / euclidean_norm(input, target, dim).unsqueeze(dim)


def _polar(residual: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest magnitude, and the residual in units of it."""
    scale = residual.abs().amax(dim, keepdim=True)
    return scale, residual / torch.where((scale == 0) | scale.isinf(), 1.0, scale)


def _unit(residual: Tensor, dim: int) -> Tensor:
    _, direction = _polar(residual, dim)
    norm = direction.square().sum(dim, keepdim=True).sqrt()
    return direction / torch.where(norm == 0, 1.0, norm)


def _others(terms: Tensor, unit: Tensor, dim: int) -> Tensor:
    """For every i the sum of the terms j ≠ i; a sum of its own where u_i dominates."""
    largest = unit.abs().argmax(dim, keepdim=True)
    first = torch.zeros_like(unit, dtype=torch.bool).scatter(dim, largest, True)
    total = terms.sum(dim, keepdim=True)
    return torch.where(first, terms.masked_fill(first, 0).sum(dim, keepdim=True), total - terms)
