"""Losses of a number and a label of −1 or 1.

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
    loss,
    margin_loss,
    profile_derivative,
    profile_hvp,
    profile_second_derivative,
)
from gradref.declare.domains import FINITE, REAL, SIGN
from gradref.declare.facts import Facts
from gradref.truth import series

__all__ = [
    "hinge_embedding_loss",
    "hinge_embedding_loss_gradient",
    "hinge_embedding_loss_hessian_diagonal",
    "hinge_embedding_loss_hvp",
    "soft_margin_loss",
    "soft_margin_loss_gradient",
    "soft_margin_loss_hessian_diagonal",
    "soft_margin_loss_hvp",
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


@profile_derivative(hinge_embedding_loss)
def hinge_embedding_loss_gradient(input: Tensor, target: Tensor, margin: float) -> Tensor:
    r""":math:`\partial \ell / \partial x = 1` for y = 1; for y = −1 it is −1 up to Δ, else 0.

    At the corner x = Δ, with subdifferential [−1, 0], it is −1 as in torch.

    >>> hinge_embedding_loss_gradient(torch.tensor([0.5, 3.0]), torch.tensor([-1.0, -1.0]))
    tensor([-0.5000,  0.0000])
    """
    slope = torch.where(target > 0, 1.0, torch.where(input <= margin, -1.0, 0.0))
    return torch.where(input.isnan(), input, slope)


@profile_second_derivative(hinge_embedding_loss)
def hinge_embedding_loss_hessian_diagonal(input: Tensor, target: Tensor) -> Tensor:
    r""":math:`0` everywhere, as in torch at the corner.

    >>> hinge_embedding_loss_hessian_diagonal(torch.tensor([0.5, 3.0]), torch.tensor([-1.0, 1.0]))
    tensor([0., 0.])
    """
    return torch.where(input.isnan(), input, 0.0)


hinge_embedding_loss_hvp = profile_hvp(hinge_embedding_loss)
