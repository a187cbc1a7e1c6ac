"""The focal loss of a logit, which counts a class the less the better it is predicted already.

The body of the loss is its unreduced value, those below it are its derivatives by x; the decorators
lift them and apply ``reduction`` and ``grad_output`` (gradref.declare.profiles).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations import sigmoid, softplus
from gradref.declare import loss, partial_derivatives, partial_hvp, second_partial_derivatives
from gradref.declare.domains import FROM_0_TO_1, NON_NEGATIVE, REAL, ZERO_OR_ONE
from gradref.formula.errorfree import times_exp
from gradref.formula.weighting import reduced, weighted
from gradref.truth import series

__all__ = [
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_gradient",
    "sigmoid_focal_loss_hessian_diagonal",
    "sigmoid_focal_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]


def _sigmoid_focal_truth(input: Any, target: Any, alpha: Any, gamma: Any) -> Any:
    m = (2 * target - 1) * input
    surprise, missing = series.each(series.softplus, -m), series.each(series.softplus, m)
    share = target * alpha + (1 - target) * (1 - alpha)
    return series.product(share * np.exp(-missing * gamma), surprise)


def _of_torchvision(
    input: Tensor, target: Tensor, alpha: float, gamma: float, reduction: str
) -> Tensor:
    """What torchvision.ops computes."""
    p = torch.sigmoid(input)
    surprise = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    p_of_target = p * target + (1 - p) * (1 - target)
    share = alpha * target + (1 - alpha) * (1 - target)
    return reduced(share * surprise * (1 - p_of_target) ** gamma, reduction)


def _with_p_to_gamma(
    input: Tensor, target: Tensor, alpha: float, gamma: float, reduction: str
) -> Tensor:
    m = _margin(input, target)
    return reduced(_share(target, alpha) * F.softplus(-m) * torch.sigmoid(m) ** gamma, reduction)


def _with_constant_factor(
    input: Tensor, target: Tensor, alpha: float, gamma: float, reduction: str
) -> Tensor:
    m = _margin(input, target)
    factor = (torch.sigmoid(-m) ** gamma).detach()
    return reduced(_share(target, alpha) * F.softplus(-m) * factor, reduction)


@loss(
    torch=_of_torchvision,
    truth=_sigmoid_focal_truth,
    domains={
        "input": REAL,
        "target": ZERO_OR_ONE,
        "alpha": FROM_0_TO_1,
        "gamma": NON_NEGATIVE,
    },
    cases=({}, {"alpha": 0.6, "gamma": 0.0}, {"gamma": 0.5}),
    mistakes={
        "p is raised to gamma, not 1 - p": _with_p_to_gamma,
        "the factor (1 - p)^gamma is taken for a constant": _with_constant_factor,
    },
)
def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "none",
) -> Tensor:
    r"""Focal loss of a logit: cross entropy, times a power of the probability that is missing.

    .. math:: \ell = -\alpha_t\,(1 - p_t)^\gamma \log p_t, \qquad p_t = \sigma(m), \qquad
              m = (2t - 1)\,x, \qquad \alpha_t = \alpha t + (1 - \alpha)(1 - t)

    For γ = 0 it is the weighted ``binary_cross_entropy_with_logits``. For no weights, which
    torchvision takes α = −1 for, take twice the loss of α = ½. Domain x ∈ ℝ, t ∈ {0, 1}, codomain
    [0, ∞), smooth. One shape: nothing is broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target that is neither 0 nor 1, ``alpha`` outside [0, 1],
    ``gamma`` below 0, or an unknown reduction.
    Source: Lin et al., Focal Loss for Dense Object Detection (2017);
    ``torchvision.ops.sigmoid_focal_loss``.

    >>> sigmoid_focal_loss(torch.tensor([0.0, 4.0, -4.0]), torch.tensor([1.0, 1.0, 1.0]))
    tensor([4.3322e-02, 1.4679e-06, 9.6873e-01])
    """
    m = _margin(input, target)
    factor = _log_of_factor(m, gamma)
    return weighted(times_exp(softplus(-m), factor), _share(target, alpha))


@partial_derivatives(sigmoid_focal_loss)
def sigmoid_focal_loss_gradient(
    input: Tensor, target: Tensor, alpha: float, gamma: float
) -> Tensor:
    r""":math:`\partial \ell / \partial x = (1 - 2t)\,\alpha_t\,(1 - p_t)^\gamma\,
    (1 - p_t - \gamma\,p_t \log p_t)`, in which nothing cancels.

    >>> sigmoid_focal_loss_gradient(torch.tensor([0.0, 4.0, -4.0]), torch.ones(3))
    tensor([-7.4572e-02, -4.3376e-06, -2.7160e-01])
    """
    m = _margin(input, target)
    slope = sigmoid(-m) + gamma * weighted(softplus(-m), sigmoid(m))
    factor = _log_of_factor(m, gamma)
    return (1 - 2 * target) * _share(target, alpha) * times_exp(slope, factor)


@second_partial_derivatives(sigmoid_focal_loss)
def sigmoid_focal_loss_hessian_diagonal(
    input: Tensor, target: Tensor, alpha: float, gamma: float
) -> Tensor:
    r""":math:`\alpha_t\,p_t\,(1 - p_t)^\gamma\,\bigl((1 - p_t)(1 + 2\gamma + \gamma \log p_t)
    - \gamma^2\,p_t \log p_t\bigr)`; below 0 where the class is predicted badly.

    >>> sigmoid_focal_loss_hessian_diagonal(torch.tensor([0.0, 4.0, -4.0]), torch.ones(3))
    tensor([ 9.9786e-02,  1.2753e-05, -1.1676e-02])
    """
    m = _margin(input, target)
    p, missing, surprise = sigmoid(m), sigmoid(-m), softplus(-m)
    bend = missing + gamma * (missing * (2 - surprise) + gamma * weighted(surprise, p))
    exponent = _log_of_factor(m, gamma) - surprise  # with that of p, which has lost bits in a tail
    curvature = torch.where(exponent < NOTHING, 0.0, times_exp(bend, exponent))
    return _share(target, alpha) * curvature


sigmoid_focal_loss_hvp = partial_hvp(sigmoid_focal_loss)

NOTHING = -1500.0
"""Below it c·exp(t) is 0 for every c that float64 holds."""


def _margin(input: Tensor, target: Tensor) -> Tensor:
    """The logit of the class that is true."""
    return (2 * target - 1) * input


def _log_of_factor(m: Tensor, gamma: float) -> Tensor:
    """γ log(1 − p), for γ = 0 also where p is 1."""
    return -gamma * softplus(m).clamp(max=torch.finfo(m.dtype).max)


def _share(target: Tensor, alpha: float) -> Tensor:
    return alpha * target + (1 - alpha) * (1 - target)
