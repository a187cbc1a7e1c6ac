"""Losses of a residual.

The body of a loss is the unreduced loss of every element or row, that of a gradient its derivative;
``reduction`` and ``grad_output`` are applied to it by the decorators (gradref.calls).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.operation import REAL, WEIGHT
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
    mass=lambda input, weight, **_: torch.ones_like(input) if weight is None else weight,
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

    .. math:: E = \tfrac12 \sum_i (x_i - t_i)^2

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
