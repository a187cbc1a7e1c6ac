"""Similarity of directions: the cosine between two vectors, and a loss of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations import normalize, normalize_hvp, normalize_jvp, normalize_vjp
from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import FINITE, POSITIVE, REAL, SIGN
from gradref.formula.norms import Unit
from gradref.formula.weighting import reduced
from gradref.truth import series

__all__ = [
    "cosine_embedding_loss",
    "cosine_embedding_loss_gradient",
    "cosine_embedding_loss_hessian_diagonal",
    "cosine_embedding_loss_hvp",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "cosine_similarity_hessian_diagonal",
    "cosine_similarity_hvp",
]

Reduction = Literal["none", "mean", "sum"]
Point = Literal["x1", "x2"]
Input = Literal["input1", "input2"]

# --- cosine --------------------------------------------------------------------------------------


def _cosine_truth(x1: Any, x2: Any, eps: Any) -> Any:
    longer = np.frompyfunc(lambda norm: eps if norm[0] < eps else norm, 1, 1)
    return (x1 * x2).sum(-1) / longer(series.norm(x1, 2)) / longer(series.norm(x2, 2))


@loss(
    torch=F.cosine_similarity,
    truth=_cosine_truth,
    domains={"x1": REAL, "x2": REAL, "eps": POSITIVE},
    coupled="dim",
    precision="normwise",
    cases=({}, {"eps": 0.5}),
    differs={"dim": "torch's 1 is a dimension that one pair of vectors alone has not"},
)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = -1, eps: float = 1e-8) -> Tensor:
    r"""Cosine of the angle between two vectors along ``dim``.

    .. math:: c = \frac{x_1^T x_2}{\max(\lVert x_1 \rVert, \epsilon)
              \max(\lVert x_2 \rVert, \epsilon)}

    It is the product of both vectors from ``normalize``. Domain ℝⁿ, codomain [−1, 1]; a corner
    where a norm is ε. One shape (..., n, ...), the result is without ``dim``; nothing is broadcast.
    float64, float32, float16, bfloat16.

    Raises ValueError for two shapes or ``eps`` that is not positive, IndexError for ``dim`` out of
    range. Source: ``torch.nn.functional.cosine_similarity``.

    >>> cosine_similarity(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    tensor(0.6000)
    """
    return (normalize(x1, eps=eps) * normalize(x2, eps=eps)).sum(-1)


@gradient(cosine_similarity)
def cosine_similarity_gradient(
    x1: Tensor,
    x2: Tensor,
    dim: int = -1,
    eps: float = 1e-8,
    *,
    wrt: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial c / \partial x_1 = (u_2 - c\,u_1) / \lVert x_1 \rVert`, u of length 1.

    >>> cosine_similarity_gradient(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    tensor([ 0.1280, -0.0960])
    """
    x, other = (x1, x2) if wrt == "x1" else (x2, x1)
    return normalize_vjp(x, normalize(other, eps=eps), eps=eps)


@hvp(cosine_similarity)
def cosine_similarity_hvp(
    x1: Tensor,
    x2: Tensor,
    tangent: Tensor,
    dim: int = -1,
    eps: float = 1e-8,
    *,
    wrt: Point = "x1",
    along: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-\tfrac{1}{r} (g\,u^T v + u\,g^T v + \tfrac{c}{r} (v - u\,u^T v))` in one vector.

    r is its length, u is x/r and g the gradient. Mixed, it is the gradient for the derivative of
    the other u along v.

    >>> v = torch.tensor([1.0, 0.0])
    >>> cosine_similarity_hvp(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), v)
    tensor([-0.0461,  0.0026])
    """
    x, other = (x1, x2) if wrt == "x1" else (x2, x1)
    if wrt == along:
        return normalize_hvp(x, normalize(other, eps=eps), tangent, eps=eps)
    return normalize_vjp(x, normalize_jvp(other, tangent, eps=eps), eps=eps)


@hessian_diagonal(cosine_similarity)
def cosine_similarity_hessian_diagonal(
    x1: Tensor,
    x2: Tensor,
    dim: int = -1,
    eps: float = 1e-8,
    *,
    wrt: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-\tfrac{1}{r^2} (2 u_i o_i + c\,(1 - 3 u_i^2))` for the other u, o; 0 where r < ε.

    >>> cosine_similarity_hessian_diagonal(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    tensor([-0.0461,  0.0221])
    """
    x, other = (x1, x2) if wrt == "x1" else (x2, x1)
    unit = Unit.of(x, 0.0)
    return torch.where(unit.length >= eps, unit.bent_diagonal(normalize(other, eps=eps)), 0.0)


# --- angle of a similar pair, and of one that is not ----------------------------------------------


def _cosine_embedding_truth(input1: Any, input2: Any, target: Any, margin: Any, eps: Any) -> Any:
    squares = [(x * x).sum(-1) + eps for x in (input1, input2)]
    cosine = (input1 * input2).sum(-1) / np.sqrt(squares[0] * squares[1])

    def of(c: Any, y: Any) -> Any:
        if y[0] > 0:
            return 1 - c
        return c - margin if c[0] >= margin else 0 * c

    return np.frompyfunc(of, 2, 1)(cosine, target)


def _cosine_embedding(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: str, eps: float
) -> Tensor:
    """What torch computes, for another ε than its own."""
    squares = [x.square().sum(-1) + eps for x in (input1, input2)]
    cosine = (input1 * input2).sum(-1) / (squares[0] * squares[1]).sqrt()
    return reduced(torch.where(target > 0, 1 - cosine, (cosine - margin).clamp(min=0)), reduction)


@loss(
    torch=lambda input1, input2, target, margin, reduction, eps: (
        F.cosine_embedding_loss(input1, input2, target, margin, reduction=reduction)
        if eps == 1e-12
        else _cosine_embedding(input1, input2, target, margin, reduction, eps)
    ),
    truth=_cosine_embedding_truth,
    domains={
        "input1": REAL,
        "input2": REAL,
        "target": replace(SIGN, extent="row"),
        "margin": FINITE,
    },
    coupled="last",
    precision="normwise",
    cases=({}, {"margin": 0.25, "eps": 0.5}),
    differs={"eps": "torch adds 1e-12 and does not name it; with 0 it is the cosine itself"},
)
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    eps: float = 1e-12,
) -> Tensor:
    r"""What a similar pair lacks to a cosine of 1, a dissimilar one has above a margin Δ; a mean.

    .. math:: \ell = 1 - c \text{ for } y = 1, \qquad \ell = \max(0, c - \Delta)
              \text{ for } y = -1, \qquad
              c = \frac{x_1^T x_2}{\sqrt{(\lVert x_1 \rVert^2 + \epsilon)
              (\lVert x_2 \rVert^2 + \epsilon)}}

    ε, which torch adds to both squares without naming it, makes it smooth at 0, and something else
    than ``cosine_similarity`` for short vectors; for ε = 0 it is NaN there. Domain ℝⁿ, codomain
    [0, 2]; for y = −1 it has a corner at c = Δ. Shape (..., n) and labels y of shape (...) give
    (...). float64, float32, float16, bfloat16.

    Raises ValueError for shapes that do not match, a target that is neither −1 nor 1, a ``margin``
    that is not finite, ``eps`` below 0, or an unknown reduction.
    Source: ``torch.nn.functional.cosine_embedding_loss``.

    >>> x1, x2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    >>> cosine_embedding_loss(x1, x2, torch.tensor([1.0]))
    tensor(0.4000)
    """
    u1, u2 = Unit.of(input1, eps), Unit.of(input2, eps)
    lacks = ((u1.x - u2.x).square().sum(-1, keepdim=True) + u1.missing + u2.missing) / 2
    above = (_cosine(u1, u2) - margin).clamp(min=0)
    return torch.where(target.unsqueeze(-1) > 0, lacks, above).squeeze(-1)


@gradient(cosine_embedding_loss)
def cosine_embedding_loss_gradient(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    eps: float = 1e-12,
    *,
    wrt: Input = "input1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_1 = \mp (u_2 - c\,u_1) / r_1`, − for y = 1.

    For y = −1 it is 0 where c < Δ; at the corner it is not, as in torch. u and r are a vector over
    its length, and this length with ε.

    >>> x1, x2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    >>> cosine_embedding_loss_gradient(x1, x2, torch.tensor([1.0]))
    tensor([[-0.1280,  0.0960]])
    """
    x, other = _units(input1, input2, eps, wrt)
    return _times_sign(x.moved(other.x), _cosine(x, other), target, margin)


@hvp(cosine_embedding_loss)
def cosine_embedding_loss_hvp(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    tangent: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    eps: float = 1e-12,
    *,
    wrt: Input = "input1",
    along: Input = "input1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\mp` that of the cosine, as for ``cosine_similarity``; − for y = 1.

    >>> x1, x2, v = torch.tensor([[3.0, 4.0], [2.0, 0.0], [1.0, 0.0]]).split(1)
    >>> cosine_embedding_loss_hvp(x1, x2, torch.tensor([1.0]), v)
    tensor([[ 0.0461, -0.0026]])
    """
    x, other = _units(input1, input2, eps, wrt)
    bend = x.bent(other.x, tangent) if wrt == along else x.moved(other.moved(tangent))
    return _times_sign(bend, _cosine(x, other), target, margin)


@hessian_diagonal(cosine_embedding_loss)
def cosine_embedding_loss_hessian_diagonal(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    eps: float = 1e-12,
    *,
    wrt: Input = "input1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\mp` that of the cosine, as for ``cosine_similarity``; − for y = 1.

    >>> x1, x2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    >>> cosine_embedding_loss_hessian_diagonal(x1, x2, torch.tensor([1.0]))
    tensor([[ 0.0461, -0.0221]])
    """
    x, other = _units(input1, input2, eps, wrt)
    return _times_sign(x.bent_diagonal(other.x), _cosine(x, other), target, margin)


def _units(input1: Tensor, input2: Tensor, eps: float, wrt: str) -> tuple[Unit, Unit]:
    """Both vectors over their lengths, the one that the derivative is by first."""
    first, second = (input1, input2) if wrt == "input1" else (input2, input1)
    return Unit.of(first, eps), Unit.of(second, eps)


def _cosine(u1: Unit, u2: Unit) -> Tensor:
    return (u1.x * u2.x).sum(-1, keepdim=True)


def _times_sign(of_cosine: Tensor, cosine: Tensor, target: Tensor, margin: float) -> Tensor:
    """A derivative of the loss from that of the cosine."""
    above = torch.where(cosine < margin, 0 * of_cosine, of_cosine)
    return torch.where(target.unsqueeze(-1) > 0, -of_cosine, above)
