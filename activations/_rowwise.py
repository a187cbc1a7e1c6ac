"""Functions of a whole row: softmax, of −x as well, and its logarithm, with all derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import (
    hvp,
    jacobian,
    jacobian_diagonal,
    jacobian_from_output,
    jvp,
    rowwise,
    vjp,
)
from gradref.formula.errorfree import exp, log1p

__all__ = [
    "log_softmax",
    "log_softmax_hvp",
    "log_softmax_jacobian",
    "log_softmax_jacobian_diagonal",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "softmax",
    "softmax_hvp",
    "softmax_jacobian",
    "softmax_jacobian_diagonal",
    "softmax_jacobian_from_output",
    "softmax_jvp",
    "softmax_vjp",
    "softmin",
    "softmin_hvp",
    "softmin_jacobian",
    "softmin_jacobian_diagonal",
    "softmin_jvp",
    "softmin_vjp",
]

_DIM = {"dim": "torch's None picks a dimension by the number of dimensions, and warns"}


def _row(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """x − max x, exp of it, and Σ exp(x − max x) without one of the largest elements."""
    shifted = x - x.amax(dim, keepdim=True)
    e = exp(shifted)
    largest = e.floor()  # 1 for those, 0 for the others
    below, ties = (e - largest).sum(dim, keepdim=True), largest.sum(dim, keepdim=True)
    return shifted, e, below + (ties - 1)


def _centred(v: Tensor, x: Tensor, dim: int) -> Tensor:
    """v − Σ p v for p = softmax(x), from v's values relative to the mean one at the largest p.

    In float32, where that is one more pass over the row, from v itself.
    """
    _, e, others = _row(x, dim)
    relative = v
    if x.dtype is torch.float64:
        largest = x == x.amax(dim, keepdim=True)
        ties = largest.to(x.dtype).sum(dim, keepdim=True)
        relative = v - torch.where(largest, v, 0.0).sum(dim, keepdim=True) / ties
    return relative - (e * relative).sum(dim, keepdim=True) * (1 / (1 + others))


# --- softmax -------------------------------------------------------------------------------------


def _softmax_truth(x: Any) -> Any:
    e = np.exp(x - x[..., :1])
    return e / e.sum(-1, keepdims=True)


@rowwise(torch=F.softmax, truth=_softmax_truth, differs=_DIM)
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    r"""Softmax along ``dim``: positive numbers that sum to 1.

    .. math:: p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Domain ℝⁿ, codomain (0, 1)ⁿ, smooth; adding a number to every x changes nothing. −inf gives 0;
    a row of −inf alone, or with an inf or a NaN, gives NaN. Shape (..., n, ...), any ``dim``;
    float64, float32, float16, bfloat16.

    Raises IndexError where ``dim`` is out of range.
    Source: ``torch.nn.functional.softmax``.

    >>> softmax(torch.tensor([1.0, 2.0, 3.0]))
    tensor([0.0900, 0.2447, 0.6652])
    """
    _, e, others = _row(x, dim)
    return e * (1 / (1 + others))


@jacobian(softmax)
def softmax_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial p_i / \partial x_j = p_i\,(\delta_{ij} - p_j)`, as the last two dimensions.

    Symmetric, rows that sum to 0, positive on the diagonal and negative off it.

    >>> softmax_jacobian(torch.tensor([0.0, 0.0]))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    p = softmax(x, dim)
    return torch.diag_embed(softmax_jacobian_diagonal(x, dim)) - _off_diagonal(p, p)


@jacobian_diagonal(softmax)
def softmax_jacobian_diagonal(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`p_i\,(1 - p_i)`, of the shape of x.

    >>> softmax_jacobian_diagonal(torch.tensor([0.0, 0.0]))
    tensor([0.2500, 0.2500])
    """
    return softmax(x, dim) * log_softmax_jacobian_diagonal(x, dim)


@vjp(softmax)
def softmax_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J^T g = p\,(g - \sum_j p_j g_j)`: the backward pass, without the Jacobian.

    >>> softmax_vjp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.2500, -0.2500])
    """
    return softmax(x, dim) * _centred(grad_output, x, dim)


@jvp(softmax)
def softmax_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J t = p\,(t - \sum_j p_j t_j)`: the Jacobian is symmetric.

    >>> softmax_jvp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.2500, -0.2500])
    """
    return softmax_vjp(x, tangent, dim)


@hvp(softmax)
def softmax_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial_t (J^T g) = \dot p\,(g - \sum p g) - p \sum \dot p g`, where ṗ = Jt.

    >>> softmax_hvp(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.0909, -0.0909])
    """
    p, g = softmax(x, dim), _centred(grad_output, x, dim)
    rate = p * _centred(tangent, x, dim)
    return rate * g - p * (rate * g).sum(dim, keepdim=True)


@jacobian_from_output(softmax)
def softmax_jacobian_from_output(y: Tensor, dim: int = -1) -> Tensor:
    r""":math:`y_i\,(\delta_{ij} - y_j)` from the output y = softmax(x), the textbook form.

    1 − y has lost what was rounded away from y: a diagonal of 0 where y rounds to 1.

    >>> softmax_jacobian_from_output(torch.tensor([0.5, 0.5]))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    return torch.diag_embed(y) - y.unsqueeze(-1) * y.unsqueeze(-2)


# --- softmin -------------------------------------------------------------------------------------


@rowwise(torch=F.softmin, truth=lambda x: _softmax_truth(-x), differs=_DIM)
def softmin(x: Tensor, dim: int = -1) -> Tensor:
    r"""Softmax of −x along ``dim``: the smallest number has the largest share.

    .. math:: p_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Domain ℝⁿ, codomain (0, 1)ⁿ, smooth. inf gives 0; a row of inf alone, or with a −inf or a NaN,
    gives NaN. Shape (..., n, ...), any ``dim``; float64, float32, float16, bfloat16.

    Raises IndexError where ``dim`` is out of range.
    Source: ``torch.nn.functional.softmin``.

    >>> softmin(torch.tensor([1.0, 2.0, 3.0]))
    tensor([0.6652, 0.2447, 0.0900])
    """
    return softmax(-x, dim)


@jacobian(softmin)
def softmin_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial p_i / \partial x_j = -p_i\,(\delta_{ij} - p_j)`, the last two dimensions.

    >>> softmin_jacobian(torch.tensor([0.0, 0.0]))
    tensor([[-0.2500,  0.2500],
            [ 0.2500, -0.2500]])
    """
    return -softmax_jacobian(-x, dim)


@jacobian_diagonal(softmin)
def softmin_jacobian_diagonal(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`-p_i\,(1 - p_i)`, of the shape of x.

    >>> softmin_jacobian_diagonal(torch.tensor([0.0, 0.0]))
    tensor([-0.2500, -0.2500])
    """
    return -softmax_jacobian_diagonal(-x, dim)


@vjp(softmin)
def softmin_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J^T g = -p\,(g - \sum_j p_j g_j)`.

    >>> softmin_vjp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([-0.2500,  0.2500])
    """
    return -softmax_vjp(-x, grad_output, dim)


@jvp(softmin)
def softmin_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J t = -p\,(t - \sum_j p_j t_j)`: the Jacobian is symmetric.

    >>> softmin_jvp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([-0.2500,  0.2500])
    """
    return softmin_vjp(x, tangent, dim)


@hvp(softmin)
def softmin_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial_t (J^T g)`, as of softmax at −x: both signs meet.

    >>> softmin_hvp(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([-0.0909,  0.0909])
    """
    return softmax_hvp(-x, grad_output, tangent, dim)


# --- log_softmax ---------------------------------------------------------------------------------


def _log_softmax_truth(x: Any) -> Any:
    shifted = x - x[..., :1]
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@rowwise(torch=F.log_softmax, truth=_log_softmax_truth, precision="absolute", differs=_DIM)
def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    r"""Logarithm of softmax along ``dim``.

    .. math:: \log p_i = x_i - m - \log\Bigl(1 + \sum_{j \ne \mathrm{argmax}} e^{x_j - m}\Bigr),
              \qquad m = \max_j x_j

    Domain ℝⁿ, codomain (−∞, 0)ⁿ, smooth; adding a number to every x changes nothing. −inf gives
    −inf; a row of −inf alone, or with an inf or a NaN, gives NaN. Shape (..., n, ...), any
    ``dim``; float64, float32, float16, bfloat16.

    Raises IndexError where ``dim`` is out of range.
    Source: ``torch.nn.functional.log_softmax``.

    >>> log_softmax(torch.tensor([0.0, -40.0], dtype=torch.float64))
    tensor([-4.2484e-18, -4.0000e+01], dtype=torch.float64)
    """
    shifted, _, others = _row(x, dim)
    return shifted - log1p(others)


@jacobian(log_softmax)
def log_softmax_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial \log p_i / \partial x_j = \delta_{ij} - p_j`, as the last two dimensions.

    >>> log_softmax_jacobian(torch.tensor([0.0, 0.0]))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])
    """
    p = softmax(x, dim)
    return torch.diag_embed(log_softmax_jacobian_diagonal(x, dim)) - _off_diagonal(
        torch.ones_like(p), p
    )


@jacobian_diagonal(log_softmax)
def log_softmax_jacobian_diagonal(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`1 - p_i`, of the shape of x: a quotient of sums where the difference would cancel.

    >>> log_softmax_jacobian_diagonal(torch.tensor([0.0, 40.0], dtype=torch.float64))
    tensor([1.0000e+00, 4.2484e-18], dtype=torch.float64)
    """
    _, e, others = _row(x, dim)
    return (others + (1 - e)) * (1 / (1 + others))


@vjp(log_softmax)
def log_softmax_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J^T g = g - p \sum_j g_j = g_i\,(1 - p_i) - p_i \sum_{j \ne i} g_j`.

    >>> log_softmax_vjp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.5000, -0.5000])
    """
    largest = x == x.amax(dim, keepdim=True)
    below = torch.where(largest, 0.0, grad_output).sum(dim, keepdim=True)
    top = torch.where(largest, grad_output, 0.0).sum(dim, keepdim=True)
    rest = torch.where(largest, below + (top - grad_output), below - grad_output + top)
    own = grad_output * log_softmax_jacobian_diagonal(x, dim)
    return own - softmax(x, dim) * rest  # of all other outputs


@jvp(log_softmax)
def log_softmax_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`J t = t - \sum_j p_j t_j`.

    >>> log_softmax_jvp(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.5000, -0.5000])
    """
    return _centred(tangent, x, dim)


@hvp(log_softmax)
def log_softmax_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`\partial_t (J^T g) = -\dot p \sum_j g_j`, where ṗ = p (t − Σ p t).

    >>> x, g = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])
    >>> log_softmax_hvp(x, g, g)
    tensor([-0.2500,  0.2500])
    """
    return -softmax_vjp(x, tangent, dim) * grad_output.sum(dim, keepdim=True)


def _off_diagonal(a: Tensor, b: Tensor) -> Tensor:
    """The outer product a bᵀ of every row, with a zero diagonal."""
    outer = a.unsqueeze(-1) * b.unsqueeze(-2)
    eye = torch.eye(outer.shape[-1], dtype=torch.bool, device=outer.device)
    return outer.masked_fill(eye, 0)
