"""Maps onto the simplex beside softmax: with noise, and with exact zeros."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations._rowwise import softmax, softmax_hvp, softmax_vjp
from gradref.declare import hvp, jacobian, jacobian_diagonal, jvp, rowwise, vjp
from gradref.declare.domains import POSITIVE, REAL

__all__ = [
    "gumbel_softmax",
    "gumbel_softmax_hvp",
    "gumbel_softmax_jvp",
    "gumbel_softmax_vjp",
    "sparsemax",
    "sparsemax_hvp",
    "sparsemax_jacobian",
    "sparsemax_jacobian_diagonal",
    "sparsemax_jvp",
    "sparsemax_vjp",
]

# --- gumbel_softmax ------------------------------------------------------------------------------

Argument = Literal["x", "noise"]


def _gumbel_softmax_truth(x: Any, noise: Any, tau: Any, hard: bool) -> Any:
    z = (x + noise) / tau
    e = np.exp(z - z[..., :1])
    p = e / e.sum(-1, keepdims=True)
    if hard:
        for row, z_row in zip(p, z, strict=True):
            first = max(range(len(row)), key=lambda i: (float(z_row[i].value), -i))
            for i, share in enumerate(row):
                share.value = 0 * share.value + (i == first)
    return p


def _gumbel_softmax(x: Tensor, noise: Tensor, tau: float, hard: bool, dim: int) -> Tensor:
    p = F.softmax((x + noise) / tau, dim)
    return _one_hot(x + noise, dim) + p - p.detach() if hard else p


@rowwise(
    torch=_gumbel_softmax,
    truth=_gumbel_softmax_truth,
    domains={"noise": REAL, "tau": POSITIVE},
    cases=({}, {"tau": 2.5}),
    differs={"eps": "torch's has no effect and is deprecated"},
)
def gumbel_softmax(
    x: Tensor, noise: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1
) -> Tensor:
    r"""Softmax of x plus Gumbel noise, at a temperature τ: a relaxed sample of a category.

    .. math:: p = \operatorname{softmax}\Bigl(\frac{x + n}{\tau}\Bigr)

    With ``hard`` the value is 1 at the largest p (the first of equal ones) and 0 elsewhere, the
    sample itself, and the derivatives are those of p: the straight-through estimator. Domain
    ℝⁿ × ℝⁿ; −inf gives 0. One shape (..., n, ...), any ``dim``; float64, float32, float16,
    bfloat16.

    torch draws the noise, :math:`-\log E` for exponentially distributed E; here it is given.

    Raises ValueError for two shapes or ``tau`` that is not positive, IndexError where ``dim`` is
    out of range. Source: ``torch.nn.functional.gumbel_softmax``; Jang, Gu and Poole (2017).

    >>> x, noise = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0])
    >>> gumbel_softmax(x, noise), gumbel_softmax(x, noise, hard=True)
    (tensor([0.7311, 0.2689]), tensor([1., 0.]))
    """
    z = (x + noise) / tau
    p = softmax(z, dim)
    return torch.where(p.isnan(), p, _one_hot(z, dim)) if hard else p


@vjp(gumbel_softmax)
def gumbel_softmax_vjp(
    x: Tensor,
    noise: Tensor,
    grad_output: Tensor,
    tau: float = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    wrt: Argument = "x",
) -> Tensor:
    r""":math:`\tfrac{1}{\tau} p\,(g - \sum_j p_j g_j)`, for x and for the noise.

    >>> one = torch.tensor([1.0, 0.0])
    >>> gumbel_softmax_vjp(torch.zeros(2), torch.zeros(2), one, tau=0.5)
    tensor([ 0.5000, -0.5000])
    """
    return softmax_vjp((x + noise) / tau, grad_output / tau, dim)


@jvp(gumbel_softmax)
def gumbel_softmax_jvp(
    x: Tensor,
    noise: Tensor,
    tangent: Tensor,
    tau: float = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    along: Argument = "x",
) -> Tensor:
    r""":math:`\tfrac{1}{\tau} p\,(t - \sum_j p_j t_j)`, for x and for the noise.

    >>> one = torch.tensor([1.0, 0.0])
    >>> gumbel_softmax_jvp(torch.zeros(2), torch.zeros(2), one, tau=0.5)
    tensor([ 0.5000, -0.5000])
    """
    return softmax_vjp((x + noise) / tau, tangent / tau, dim)


@hvp(gumbel_softmax)
def gumbel_softmax_hvp(
    x: Tensor,
    noise: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    tau: float = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    wrt: Argument = "x",
    along: Argument = "x",
) -> Tensor:
    r""":math:`\tfrac{1}{\tau^2} \partial_t (J^T g)` of softmax, whichever argument moves.

    >>> x, one = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    >>> gumbel_softmax_hvp(x, torch.zeros(2), one, one)
    tensor([ 0.0909, -0.0909])
    """
    return softmax_hvp((x + noise) / tau, grad_output / tau, tangent / tau, dim)


def _one_hot(z: Tensor, dim: int) -> Tensor:
    """1 at the first of the largest numbers of a row, 0 elsewhere."""
    return torch.zeros_like(z).scatter(dim, z.argmax(dim, keepdim=True), 1.0)


# --- sparsemax -----------------------------------------------------------------------------------


def _sparsemax_truth(x: Any) -> Any:
    def of(row: Any) -> Any:
        falling = sorted(row, key=lambda z: float(z.value), reverse=True)
        inside = [z for j, z in enumerate(falling, 1) if (1 + j * z - sum(falling[:j]))[0] > 0]
        tau = (sum(inside) - 1) / len(inside)
        return [z - tau if (z - tau)[0] > 0 else 0 * z for z in row]

    return np.array([of(row) for row in x], dtype=object)


def _sparsemax(x: Tensor, dim: int) -> Tensor:
    z = x - x.amax(dim, keepdim=True)
    falling, place = z.sort(dim, descending=True)[0], torch.ones_like(x).cumsum(dim)
    inside = 1 + place * falling > falling.cumsum(dim)
    total = torch.where(inside, falling, 0.0).sum(dim, keepdim=True)
    return (z - (total - 1) / inside.sum(dim, keepdim=True)).clamp(min=0)


@rowwise(torch=_sparsemax, truth=_sparsemax_truth)
def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    r"""The point of the simplex nearest to x: a softmax that gives exact zeros.

    .. math:: p_i = \max(x_i - \tau, 0), \qquad \tau \text{ such that } \sum_i p_i = 1

    Domain ℝⁿ, codomain the simplex, piecewise linear with corners where some p becomes 0; adding a
    number to every x changes nothing. −inf gives 0; a row with an inf or a NaN gives NaN. Shape
    (..., n, ...), any ``dim``; float64, float32, float16, bfloat16.

    Raises IndexError where ``dim`` is out of range. Source: Martins and Astudillo (2016).

    >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return _sparsemax(x, dim)


@jacobian(sparsemax)
def sparsemax_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\delta_{ij} - \tfrac{1}{k}` for the rows and columns of the k positive p, else 0.

    >>> sparsemax_jacobian(torch.tensor([1.0, 0.5, -1.0]))
    tensor([[ 0.5000, -0.5000,  0.0000],
            [-0.5000,  0.5000,  0.0000],
            [ 0.0000,  0.0000,  0.0000]])
    """
    inside = _inside(x, dim)
    share = inside / inside.sum(dim, keepdim=True)
    return torch.diag_embed(inside) - inside.unsqueeze(-1) * share.unsqueeze(-2)


@jacobian_diagonal(sparsemax)
def sparsemax_jacobian_diagonal(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`1 - \tfrac{1}{k}` for the k numbers with p > 0, else 0.

    >>> sparsemax_jacobian_diagonal(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    inside = _inside(x, dim)
    return inside - inside / inside.sum(dim, keepdim=True)


@vjp(sparsemax)
def sparsemax_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J^T g`: g less its mean over the numbers with p > 0, and 0 for the others.

    At a corner, where a number reaches p = 0, it counts as one with p = 0.

    >>> sparsemax_vjp(torch.tensor([1.0, 0.5, -1.0]), torch.tensor([1.0, 0.0, 5.0]))
    tensor([ 0.5000, -0.5000,  0.0000])
    """
    inside = _inside(x, dim)
    mean = (inside * grad_output).sum(dim, keepdim=True) / inside.sum(dim, keepdim=True)
    return inside * (grad_output - mean)


@jvp(sparsemax)
def sparsemax_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J t`: the Jacobian is symmetric.

    >>> sparsemax_jvp(torch.tensor([1.0, 0.5, -1.0]), torch.tensor([1.0, 0.0, 5.0]))
    tensor([ 0.5000, -0.5000,  0.0000])
    """
    return sparsemax_vjp(x, tangent, dim)


@hvp(sparsemax)
def sparsemax_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`0`, also at the corners.

    >>> sparsemax_hvp(torch.tensor([1.0, 0.5]), torch.ones(2), torch.ones(2))
    tensor([0., 0.])
    """
    return 0 * _inside(x, dim)


def _inside(x: Tensor, dim: int) -> Tensor:
    """1 where p > 0, else 0; NaN in a row of NaN."""
    p = _sparsemax(x, dim)
    return torch.where(p.isnan(), p, (p > 0).to(p.dtype))
