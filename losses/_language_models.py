"""Losses of the logits of a language model: capped, and held to a normaliser near 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations import (
    log_softmax,
    log_softmax_jacobian_diagonal,
    log_softmax_jvp,
    logsumexp,
    sigmoid,
    softcap,
    softcap_derivative,
    softcap_second_derivative,
    softmax,
)
from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import INT64, NON_NEGATIVE, POSITIVE, REAL
from gradref.formula.errorfree import times_exp, two_sum
from gradref.formula.norms import is_at
from gradref.formula.weighting import reduced
from gradref.truth import series
from losses._classification import (
    CLASS_INDEX,
    Reduction,
    at_target,
    cross_entropy_truth,
    ignored,
    index_mass_truth,
    picked,
    row_mass,
)

__all__ = [
    "softcap_cross_entropy",
    "softcap_cross_entropy_gradient",
    "softcap_cross_entropy_hessian_diagonal",
    "softcap_cross_entropy_hvp",
    "z_loss",
    "z_loss_gradient",
    "z_loss_hessian_diagonal",
    "z_loss_hvp",
]

# --- cross entropy of soft-capped logits ---------------------------------------------------------


def _capped_in_torch(input: Tensor, target: Tensor, cap: float, **more: Any) -> Tensor:
    return F.cross_entropy(cap * torch.tanh(input / cap), target, **more)


def _capped_truth(input: Any, target: Any, cap: Any, ignore_index: int) -> Any:
    capped = series.each(lambda x: softcap.operation.truth(x, cap=cap), input)
    return cross_entropy_truth(capped, target, None, ignore_index, 0)


def _uncapped_backward(input: Tensor, target: Tensor, cap: float, **more: Any) -> Tensor:
    capped = cap * torch.tanh(input / cap)
    return F.cross_entropy(input + (capped - input).detach(), target, **more)


@loss(
    torch=_capped_in_torch,
    truth=_capped_truth,
    domains={"input": REAL, "target": CLASS_INDEX, "cap": POSITIVE, "ignore_index": INT64},
    coupled="class",
    precision="absolute, normwise",
    mass=lambda input, target, ignore_index: row_mass(input, target, None, ignore_index),
    truth_mass=lambda input, target, ignore_index, **_: index_mass_truth(
        input, target, None, ignore_index
    ),
    cases=({}, {"cap": 5.0, "ignore_index": 1}),
    mistakes={"the derivative of the cap is left out": _uncapped_backward},
)
def softcap_cross_entropy(
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross entropy of logits kept between −c and c by ``softcap``, against class indices.

    .. math:: \ell = -\log p_t, \qquad p = \operatorname{softmax}(y), \qquad
              y_j = c \tanh\frac{x_j}{c}

    The mean divides by the number of targets that are not ``ignore_index``; over none it is NaN
    with gradient 0. ``input`` has shape (C), (N, C) or (N, C, d₁, ...), ``target`` the same without
    C. Domain ℝ, codomain [0, 2c + log C], smooth. ±inf is ±c; a row with a NaN is NaN. float64,
    float32, float16, bfloat16.

    Raises IndexError for a class out of range, TypeError for a target that is not an integer,
    ValueError for shapes that do not match, a ``cap`` that is not positive, or an unknown
    reduction. Source: Gemma Team, Gemma 2 (2024); Liger's ``softcap``.

    >>> softcap_cross_entropy(torch.tensor([[2.0, 100.0, 1.0]]), torch.tensor([0]))
    tensor(27.9267)
    """
    return picked(-_Capped.of(input, cap).log_p, target, None, ignore_index)


@gradient(softcap_cross_entropy)
def softcap_cross_entropy_gradient(
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`(p_j - [j = t])\,\operatorname{sech}^2 \tfrac{x_j}{c}`.

    >>> softcap_cross_entropy_gradient(torch.tensor([[2.0, 100.0, 1.0]]), torch.tensor([0]))
    tensor([[-9.9557e-01,  5.0776e-03,  2.7412e-13]])
    """
    gradient = _Capped.of(input, cap).slope(target) * softcap_derivative(input, cap=cap)
    return gradient.masked_fill(ignored(target, ignore_index), 0)


@hvp(softcap_cross_entropy)
def softcap_cross_entropy_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    along: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`y'_j\,p_j \bigl(u_j - \sum_k p_k u_k\bigr) + (p_j - [j = t])\,y''_j v_j` for
    :math:`u = y' v`.

    >>> x, v = torch.tensor([[2.0, 100.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> softcap_cross_entropy_hvp(x, torch.tensor([0]), v)
    tensor([[ 4.4182e-03, -3.7611e-15, -2.0305e-25]])
    """
    row, first = _Capped.of(input, cap), softcap_derivative(input, cap=cap)
    bend = softcap_second_derivative(input, cap=cap) * tangent
    curved = row.slope(target) * (first * row.centred(first * tangent, target) + bend)
    return curved.masked_fill(ignored(target, ignore_index), 0)


@hessian_diagonal(softcap_cross_entropy)
def softcap_cross_entropy_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_j\,(1 - p_j)\,y_j'^2 + (p_j - [j = t])\,y''_j`.

    >>> softcap_cross_entropy_hessian_diagonal(torch.tensor([[2.0, 100.0, 1.0]]), torch.tensor([0]))
    tensor([[ 4.4182e-03, -3.3765e-04,  2.7320e-13]])
    """
    row, first = _Capped.of(input, cap), softcap_derivative(input, cap=cap)
    share = torch.where(at_target(input, target), -row.p, row.rest)
    bend = softcap_second_derivative(input, cap=cap)
    diagonal = row.slope(target) * (share * first.square() + bend)
    return diagonal.masked_fill(ignored(target, ignore_index), 0)


@dataclass(frozen=True)
class _Capped:
    """The softmax p of soft-capped logits, 1 − p and log p, with the greatest logit of a row.

    Far from 0 a soft-capped logit is ±c and a little less: with the two apart no digits are lost
    where logits are nearly equal, or p is small.
    """

    log_p: Tensor
    p: Tensor
    rest: Tensor
    greatest: Tensor

    @classmethod
    def of(cls, x: Tensor, cap: float) -> _Capped:
        is_far = x.abs() > cap / 2
        whole = torch.where(is_far, torch.copysign(torch.full_like(x, cap), x), 0.0)
        below_cap = cap * (2 * sigmoid(-2 * (x.abs() / cap)))
        part = torch.where(is_far, -torch.copysign(below_cap, x), softcap(x, cap=cap))
        greatest = is_at(x, x.argmax(-1, keepdim=True))
        y, lost = two_sum(whole - _at(whole, greatest), part - _at(part, greatest))
        weight = torch.exp(y)
        weight = weight + weight * lost
        others = weight.masked_fill(greatest, 0).sum(-1, keepdim=True)
        p = weight / (1 + others)
        return cls(
            log_p=y + (lost - torch.log1p(others)),
            p=p,
            rest=torch.where(greatest, others / (1 + others), 1 - p),
            greatest=greatest,
        )

    def slope(self, target: Tensor) -> Tensor:
        """Return p_j − [j = t]."""
        return torch.where(at_target(self.p, target), -self.rest, self.p)

    def centred(self, u: Tensor, target: Tensor) -> Tensor:
        """Return p_j (u_j − Σ p u) / (p_j − [j = t]), by which ``slope`` is to be multiplied."""
        apart = u - _at(u, self.greatest)
        centred = apart - (self.p * apart).sum(-1, keepdim=True)
        of_target = -self.p * centred / torch.where(self.rest == 0, 1.0, self.rest)
        return torch.where(at_target(u, target), of_target, centred)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """The value at one place of every row."""
    return torch.where(place, values, 0.0).sum(-1, keepdim=True)


# --- z-loss --------------------------------------------------------------------------------------


def _z_loss_truth(input: Any, scale: Any) -> Any:
    log_z = np.log(np.exp(input - input[:, :1]).sum(-1)) + input[:, 0]
    return series.product(log_z, log_z) * scale


def _of_logsumexp(input: Tensor, scale: float, reduction: str) -> Tensor:
    log_z = torch.logsumexp(input, min(1, input.dim() - 1))
    return reduced(scale * log_z.square(), reduction)


def _of_one_logsumexp(input: Tensor, scale: float, reduction: str) -> Tensor:
    log_z = torch.logsumexp(input, min(1, input.dim() - 1))
    return reduced(scale * log_z.detach() * log_z, reduction)


@loss(
    torch=_of_logsumexp,
    truth=_z_loss_truth,
    domains={"input": REAL, "scale": NON_NEGATIVE},
    coupled="class",
    cases=({}, {"scale": 1.0}),
    mistakes={"one of the two factors log Z is taken for a constant": _of_one_logsumexp},
)
def z_loss(input: Tensor, scale: float = 1e-4, reduction: Reduction = "mean") -> Tensor:
    r"""Square of the logarithm of the normaliser of softmax, which keeps that near 1; a mean.

    .. math:: \ell = s\,(\log Z)^2, \qquad Z = \sum_j e^{x_j}

    It is added to ``cross_entropy``, and Liger's ``lse_square_scale`` is s; the mean divides by the
    number of rows, as no row is ignored here. ``input`` has shape (C), (N, C) or (N, C, d₁, ...).
    Domain ℝ, codomain [0, ∞), smooth. −inf is probability 0; inf gives inf and derivatives of NaN.
    float64, float32, float16, bfloat16.

    Raises ValueError for a ``scale`` below 0 or an unknown reduction.
    Source: Chowdhery et al., PaLM (2022).

    >>> z_loss(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), scale=1.0)
    tensor(50.2407)
    """
    return scale * logsumexp(input).square()


@gradient(z_loss)
def z_loss_gradient(
    input: Tensor,
    scale: float = 1e-4,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_j = 2 s \log Z\;p_j`, with p = softmax(x).

    >>> z_loss_gradient(torch.tensor([10.0, 0.0]), scale=1.0)
    tensor([1.9999e+01, 9.0796e-04])
    """
    return times_exp(2 * scale * logsumexp(input).unsqueeze(-1), log_softmax(input))


@hvp(z_loss)
def z_loss_hvp(
    input: Tensor,
    tangent: Tensor,
    scale: float = 1e-4,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    along: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`2 s\,p\,(\bar v + \log Z\,(v - \bar v))`, with v̄ = Σ p v.

    >>> z_loss_hvp(torch.zeros(2), torch.tensor([1.0, 0.0]), scale=1.0)
    tensor([0.8466, 0.1534])
    """
    mean = (softmax(input) * tangent).sum(-1, keepdim=True)
    bend = mean + logsumexp(input).unsqueeze(-1) * log_softmax_jvp(input, tangent)
    return times_exp(2 * scale * bend, log_softmax(input))


@hessian_diagonal(z_loss)
def z_loss_hessian_diagonal(
    input: Tensor,
    scale: float = 1e-4,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`2 s\,p_j\,(p_j + \log Z\,(1 - p_j))`.

    >>> z_loss_hessian_diagonal(torch.zeros(2), scale=1.0)
    tensor([0.8466, 0.8466])
    """
    bend = softmax(input) + logsumexp(input).unsqueeze(-1) * log_softmax_jacobian_diagonal(input)
    return times_exp(2 * scale * bend, log_softmax(input))
