"""Losses of a margin: of a number for a label of −1 or 1, or of one class over the others.

A loss of the margin m = yx is its profile φ, with φ′ and φ″ below it; one that is no function of
the margin has its derivatives by x there. The decorators lift them and apply ``reduction`` and
``grad_output`` (gradref.declare.profiles).
"""

from __future__ import annotations

from math import inf
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations import sigmoid, sigmoid_derivative, softplus
from gradref.declare import (
    gradient,
    hessian_diagonal,
    hvp,
    loss,
    margin_loss,
    partial_derivatives,
    partial_hvp,
    profile_derivative,
    profile_hvp,
    profile_second_derivative,
    second_partial_derivatives,
)
from gradref.declare.domains import CLASS_WEIGHT, FINITE, ONE_OR_TWO, REAL, SIGN, class_indices
from gradref.declare.facts import FROM_RIGHT, Facts
from gradref.formula.errorfree import shifted_difference
from gradref.formula.weighting import reduced, weighted
from gradref.truth import series

__all__ = [
    "hinge_embedding_loss",
    "hinge_embedding_loss_gradient",
    "hinge_embedding_loss_hessian_diagonal",
    "hinge_embedding_loss_hvp",
    "hinge_loss",
    "hinge_loss_gradient",
    "hinge_loss_hessian_diagonal",
    "hinge_loss_hvp",
    "margin_ranking_loss",
    "margin_ranking_loss_gradient",
    "margin_ranking_loss_hessian_diagonal",
    "margin_ranking_loss_hvp",
    "multi_margin_loss",
    "multi_margin_loss_gradient",
    "multi_margin_loss_hessian_diagonal",
    "multi_margin_loss_hvp",
    "soft_margin_loss",
    "soft_margin_loss_gradient",
    "soft_margin_loss_hessian_diagonal",
    "soft_margin_loss_hvp",
    "squared_hinge_loss",
    "squared_hinge_loss_gradient",
    "squared_hinge_loss_hessian_diagonal",
    "squared_hinge_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]

# --- logistic loss of the margin -----------------------------------------------------------------


@margin_loss(
    torch=F.soft_margin_loss,
    truth=lambda m: series.softplus(-m),
    facts=Facts(limits={-inf: (inf, -1.0, 0.0), inf: (0.0, 0.0, 0.0)}),
)
def soft_margin_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""Logistic loss of the margin; by default its mean.

    .. math:: \ell = \log\bigl(1 + e^{-yx}\bigr) = \operatorname{softplus}(-yx)

    It does not overflow for a margin far below 0, as torch's does. Domain x ∈ ℝ, y ∈ {−1, 1},
    codomain (0, ∞), smooth, convex. One shape: nothing is broadcast. float64, float32, float16,
    bfloat16.

    Raises ValueError for two shapes, a target that is neither −1 nor 1, or an unknown reduction.
    Source: ``torch.nn.functional.soft_margin_loss``.

    >>> soft_margin_loss(torch.tensor([2.0, -100.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([  0.1269, 100.0000])
    """
    return softplus(-target * input)


@profile_derivative(soft_margin_loss)
def soft_margin_loss_gradient(m: Tensor) -> Tensor:
    r""":math:`\varphi'(m) = -\sigma(-m)`."""
    return -sigmoid(-m)


@profile_second_derivative(soft_margin_loss)
def soft_margin_loss_hessian_diagonal(m: Tensor) -> Tensor:
    r""":math:`\varphi''(m) = \sigma'(m)`."""
    return sigmoid_derivative(m)


soft_margin_loss_hvp = profile_hvp(soft_margin_loss)

# --- what is missing to a margin of 1 ------------------------------------------------------------


@margin_loss(
    torch=lambda input, target, reduction: reduced(F.relu(1 - target * input), reduction),
    truth=lambda m: 1 - m if m[0] < 1 else 0 * m,
    facts=Facts(
        limits={-inf: (inf, -1.0, 0.0), inf: (0.0, 0.0, 0.0)},
        kinks={1.0: FROM_RIGHT},
    ),
)
def hinge_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""What the margin lacks to 1; by default its mean.

    .. math:: \ell = \max(0, 1 - yx)

    Domain x ∈ ℝ, y ∈ {−1, 1}, codomain [0, ∞), convex. One shape: nothing is broadcast. float64,
    float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is neither −1 nor 1, or an unknown reduction.
    Source: Cortes and Vapnik (1995).

    >>> hinge_loss(torch.tensor([2.0, 0.25, -1.0]), torch.tensor([1.0, 1.0, 1.0]), reduction="none")
    tensor([0.0000, 0.7500, 2.0000])
    """
    return (1 - target * input).clamp(min=0)


@profile_derivative(hinge_loss)
def hinge_loss_gradient(m: Tensor) -> Tensor:
    r""":math:`\varphi'(m) = -[m < 1]`, 0 at the corner, with subdifferential [−1, 0]."""
    return torch.where(m.isnan(), m, -(m < 1).to(m.dtype))


@profile_second_derivative(hinge_loss)
def hinge_loss_hessian_diagonal(m: Tensor) -> Tensor:
    r""":math:`\varphi''(m) = 0`, also at the corner."""
    return torch.where(m.isnan(), m, 0.0)


hinge_loss_hvp = profile_hvp(hinge_loss)


@margin_loss(
    torch=lambda input, target, reduction: reduced(F.relu(1 - target * input).square(), reduction),
    truth=lambda m: (1 - m) * (1 - m) if m[0] < 1 else 0 * m,
    facts=Facts(
        limits={-inf: (inf, -inf, 2.0), inf: (0.0, 0.0, 0.0)},
        kinks={1.0: FROM_RIGHT},
    ),
)
def squared_hinge_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""Square of what the margin lacks to 1; by default its mean.

    .. math:: \ell = \max(0, 1 - yx)^2

    Domain x ∈ ℝ, y ∈ {−1, 1}, codomain [0, ∞), convex. One shape: nothing is broadcast. float64,
    float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is neither −1 nor 1, or an unknown reduction.
    Source: Lee and Mangasarian (2001).

    >>> squared_hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.0000, 0.2500])
    """
    return hinge_loss(input, target, "none").square()


@profile_derivative(squared_hinge_loss)
def squared_hinge_loss_gradient(m: Tensor) -> Tensor:
    r""":math:`\varphi'(m) = -2 \max(0, 1 - m)`."""
    return -2 * (1 - m).clamp(min=0)


@profile_second_derivative(squared_hinge_loss)
def squared_hinge_loss_hessian_diagonal(m: Tensor) -> Tensor:
    r""":math:`\varphi''(m) = 2\,[m < 1]`, 0 where it jumps."""
    return torch.where(m.isnan(), m, 2 * (m < 1).to(m.dtype))


squared_hinge_loss_hvp = profile_hvp(squared_hinge_loss)

# --- distance, or what is missing to a margin ----------------------------------------------------


def _hinge_embedding_truth(input: Any, target: Any, margin: Any) -> Any:
    def of(x: Any, y: Any) -> Any:
        if y[0] > 0:
            return x
        return margin - x if x[0] <= margin else 0 * x

    return np.frompyfunc(of, 2, 1)(input, target)


@loss(
    torch=F.hinge_embedding_loss,
    truth=_hinge_embedding_truth,
    domains={"input": REAL, "target": SIGN, "margin": FINITE},
    cases=({}, {"margin": 2.5}),
)
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Distance x of a similar pair, and what a dissimilar one lacks to the margin Δ; a mean.

    .. math:: \ell = x \text{ for } y = 1, \qquad \ell = \max(0, \Delta - x) \text{ for } y = -1

    Domain x ∈ ℝ, y ∈ {−1, 1}, codomain ℝ, convex; for y = −1 it has a corner at x = Δ. One shape:
    nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is neither −1 nor 1, a ``margin`` that is not
    finite, or an unknown reduction. Source: ``torch.nn.functional.hinge_embedding_loss``.

    >>> hinge_embedding_loss(torch.tensor([0.25, 0.25]), torch.tensor([1.0, -1.0]))
    tensor(0.5000)
    """
    return torch.where(target > 0, input, (margin - input).clamp(min=0))


@partial_derivatives(hinge_embedding_loss)
def hinge_embedding_loss_gradient(input: Tensor, target: Tensor, margin: float) -> Tensor:
    r""":math:`\partial \ell / \partial x = 1` for y = 1; for y = −1 it is −1 up to Δ, else 0.

    At the corner x = Δ, with subdifferential [−1, 0], it is −1 as in torch.

    >>> hinge_embedding_loss_gradient(torch.tensor([0.5, 3.0]), torch.tensor([-1.0, -1.0]))
    tensor([-0.5000,  0.0000])
    """
    slope = torch.where(target > 0, 1.0, torch.where(input <= margin, -1.0, 0.0))
    return torch.where(input.isnan(), input, slope)


@second_partial_derivatives(hinge_embedding_loss)
def hinge_embedding_loss_hessian_diagonal(input: Tensor, target: Tensor) -> Tensor:
    r""":math:`0` everywhere, as in torch at the corner.

    >>> hinge_embedding_loss_hessian_diagonal(torch.tensor([0.5, 3.0]), torch.tensor([-1.0, 1.0]))
    tensor([0., 0.])
    """
    return torch.where(input.isnan(), input, 0.0)


hinge_embedding_loss_hvp = partial_hvp(hinge_embedding_loss)

# --- margin of one score over another -------------------------------------------------------------


def _margin_ranking_truth(input1: Any, input2: Any, target: Any, margin: Any) -> Any:
    lacks = target * (input2 - input1) + margin
    return np.frompyfunc(lambda z: z if z[0] >= 0 else 0 * z, 1, 1)(lacks)


@loss(
    torch=F.margin_ranking_loss,
    truth=_margin_ranking_truth,
    domains={"input1": REAL, "input2": REAL, "target": SIGN, "margin": FINITE},
    precision="absolute",
    cases=({}, {"margin": 0.7}),
)
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""What the score that should be higher lacks to lead the other one by a margin Δ; a mean.

    .. math:: \ell = \max\bigl(0, \Delta - y\,(x_1 - x_2)\bigr)

    Domain ℝ × ℝ, y = 1 where x₁ should be higher, −1 where x₂ should; codomain [0, ∞), convex, with
    a corner at 0. One shape: nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is neither −1 nor 1, a ``margin`` that is not
    finite, or an unknown reduction. Source: ``torch.nn.functional.margin_ranking_loss``.

    >>> margin_ranking_loss(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(2.)
    """
    return shifted_difference(-target * input1, -target * input2, margin).clamp(min=0)


@partial_derivatives(margin_ranking_loss)
def margin_ranking_loss_gradient(
    input1: Tensor, input2: Tensor, target: Tensor, wrt: str, margin: float
) -> Tensor:
    r""":math:`-y` in x₁ and y in x₂ where ℓ is positive, else 0.

    At the corner it is not 0, as in torch.

    >>> a, b, y = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])
    >>> margin_ranking_loss_gradient(a, b, y, reduction="sum")
    tensor([-1.,  0.])
    """
    lacks = shifted_difference(-target * input1, -target * input2, margin)
    slope = torch.where(lacks >= 0, -target if wrt == "input1" else target, 0.0)
    return torch.where(lacks.isnan(), lacks, slope)


@second_partial_derivatives(margin_ranking_loss)
def margin_ranking_loss_hessian_diagonal(input1: Tensor, input2: Tensor) -> Tensor:
    r""":math:`0` everywhere, as in torch at the corner.

    >>> margin_ranking_loss_hessian_diagonal(torch.zeros(1), torch.ones(1), torch.ones(1))
    tensor([0.])
    """
    return torch.where(input1.isnan() | input2.isnan(), input1 + input2, 0.0)


margin_ranking_loss_hvp = partial_hvp(margin_ranking_loss)

# --- margin of the true class over every other one -----------------------------------------------

Argument = Literal["input"]


def _multi_margin_truth(input: Any, target: Any, p: int, margin: Any, weight: Any) -> Any:
    rows, classes = np.arange(len(target)), input.shape[-1]
    lacks = margin - input[rows, target][:, None] + input
    terms = np.frompyfunc(lambda z: z if z[0] > 0 else 0 * z, 1, 1)(lacks)
    terms[rows, target] = 0 * terms[rows, target]
    scaled = (terms if p == 1 else terms * terms) / classes
    return scaled if weight is None else scaled * weight[target][:, None]


@loss(
    torch=F.multi_margin_loss,
    truth=_multi_margin_truth,
    domains={
        "input": REAL,
        "target": class_indices(),
        "p": ONE_OR_TWO,
        "margin": FINITE,
        "weight": CLASS_WEIGHT,
    },
    coupled="class",
    cases=({}, {"p": 2, "margin": 0.7, "weight": CLASS_WEIGHT}),
)
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""What the true class lacks to lead every other class by a margin Δ; by default its mean.

    .. math:: \ell = \frac{w_t}{C} \sum_{j \ne t} \max(0, z_j)^p, \qquad z_j = \Delta - x_t + x_j

    ``input`` has shape (C), (N, C) or (N, C, d₁, ...), ``target`` the same without C. The mean
    divides by the number of rows. Domain ℝ, codomain [0, ∞), convex; for p = 1 it has a corner
    where some z is 0. float64, float32, float16, bfloat16.

    Raises IndexError for a class out of range, TypeError for a target that is not an integer,
    ValueError for shapes that do not match, ``p`` other than 1 and 2 or a negative weight.
    Source: ``torch.nn.functional.multi_margin_loss``; Crammer and Singer (2001).

    >>> multi_margin_loss(torch.tensor([0.1, 0.2, 0.4]), torch.tensor(2))
    tensor(0.5000)
    """
    lacks, scale = _lacks(input, target, margin, weight)
    return weighted(lacks**p, scale).sum(-1)


@gradient(multi_margin_loss)
def multi_margin_loss_gradient(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_j = \tfrac{w_t}{C}\,p\,z_j^{p-1}\,[z_j > 0]` for j ≠ t.

    For the true class it is minus their sum. At a corner, z_j = 0, it is 0 as in torch.

    >>> multi_margin_loss_gradient(torch.tensor([1.0, 0.0, -3.0]), torch.tensor(1))
    tensor([ 0.3333, -0.3333,  0.0000])
    """
    lacks, scale = _lacks(input, target, margin, weight)
    slope = torch.where(lacks.isnan(), lacks, p * lacks ** (p - 1)).masked_fill(lacks == 0, 0)
    return _balanced(weighted(slope, scale), target)


@hvp(multi_margin_loss)
def multi_margin_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{2 w_t}{C}\,(v_j - v_t)\,[z_j > 0]` for p = 2 and j ≠ t; 0 for p = 1.

    For the true class it is minus their sum.

    >>> v = torch.tensor([1.0, 0.0, 0.0])
    >>> multi_margin_loss_hvp(torch.tensor([1.0, 0.0, -3.0]), torch.tensor(1), v, p=2)
    tensor([ 0.6667, -0.6667,  0.0000])
    """
    of_target = tangent.gather(-1, target.unsqueeze(-1))
    bends = _bends(input, target, p, margin, weight)
    return _balanced(bends * (tangent - of_target), target)


@hessian_diagonal(multi_margin_loss)
def multi_margin_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{2 w_t}{C}\,[z_j > 0]` for p = 2, their sum for t; 0 for p = 1.

    >>> multi_margin_loss_hessian_diagonal(torch.tensor([1.0, 0.0, -3.0]), torch.tensor(1), p=2)
    tensor([0.6667, 0.6667, 0.0000])
    """
    return _balanced(_bends(input, target, p, margin, weight), target, 1)


def _lacks(
    input: Tensor, target: Tensor, margin: float, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """max(0, z_j), 0 for j = t; and w_t/C."""
    of_target = input.gather(-1, target.unsqueeze(-1))
    lacks = shifted_difference(input, of_target, margin).clamp(min=0)
    lacks = lacks.scatter(-1, target.unsqueeze(-1), 0)
    of_row = torch.ones_like(of_target) if weight is None else weight[target].unsqueeze(-1)
    return lacks, of_row / input.shape[-1]


def _bends(input: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None) -> Tensor:
    """The second derivative of every summand by its z."""
    lacks, scale = _lacks(input, target, margin, weight)
    return scale * torch.where(lacks.isnan(), lacks, (lacks > 0) * (p * (p - 1.0)))


def _balanced(others: Tensor, target: Tensor, sign: int = -1) -> Tensor:
    """Derivatives by the other classes with that by the true one, their sum times ``sign``."""
    return others.scatter(-1, target.unsqueeze(-1), sign * others.sum(-1, keepdim=True))
