"""Distances between vectors, and losses of them.

The body of a loss is the unreduced loss of every row, that of a gradient its derivative;
``reduction`` and ``grad_output`` are applied to it by the decorators (gradref.declare.calls).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import NON_NEGATIVE, NORM_DEGREE, POSITIVE, REAL
from gradref.formula.errorfree import shifted_difference
from gradref.formula.norms import Norm
from gradref.truth import series

__all__ = [
    "euclidean_norm",
    "euclidean_norm_gradient",
    "euclidean_norm_hessian_diagonal",
    "euclidean_norm_hvp",
    "pairwise_distance",
    "pairwise_distance_gradient",
    "pairwise_distance_hessian_diagonal",
    "pairwise_distance_hvp",
    "triplet_margin_loss",
    "triplet_margin_loss_gradient",
    "triplet_margin_loss_hessian_diagonal",
    "triplet_margin_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]
Side = Literal["input", "target"]
Argument = Literal["anchor", "positive", "negative"]

# --- Euclidean norm ------------------------------------------------------------------------------


def _euclidean_truth(input: Any, target: Any) -> Any:
    return np.sqrt(((input - target) * (input - target)).sum(-1))


@loss(
    torch=lambda input, target, dim: torch.linalg.vector_norm(input - target, dim=dim),
    truth=_euclidean_truth,
    domains={"input": REAL, "target": REAL},
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
    return Norm.of(input - target, 2).value.squeeze(-1)


@gradient(euclidean_norm)
def euclidean_norm_gradient(
    input: Tensor,
    target: Tensor,
    dim: int = -1,
    *,
    wrt: Side = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial r / \partial x = (x - t) / r = -\partial r / \partial t`.

    At the corner x = t, where the subdifferential is the unit ball, it is 0 as in torch.

    >>> euclidean_norm_gradient(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor([0.6000, 0.8000])
    """
    slope = Norm.of(input - target, 2).slope
    return slope if wrt == "input" else -slope


@hvp(euclidean_norm)
def euclidean_norm_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    dim: int = -1,
    *,
    wrt: Side = "input",
    along: Side = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm (v - u\,u^T v) / r`, u = (x − t)/r; NaN at the corner.

    >>> euclidean_norm_hvp(torch.tensor([3.0, 4.0]), torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor([ 0.1280, -0.0960])
    """
    bend = Norm.of(input - target, 2).bend(tangent)
    return bend if wrt == along else -bend


@hessian_diagonal(euclidean_norm)
def euclidean_norm_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    dim: int = -1,
    *,
    wrt: Side = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`(1 - u_i^2) / r`, u = (x − t)/r; NaN at the corner.

    >>> euclidean_norm_hessian_diagonal(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor([0.1280, 0.0720])
    """
    return Norm.of(input - target, 2).bend_diagonal


# --- p-norm of a difference -----------------------------------------------------------------------

Point = Literal["x1", "x2"]


@loss(
    torch=F.pairwise_distance,
    truth=lambda x1, x2, p, eps: series.norm(x1 - x2 + eps, p),
    domains={"x1": REAL, "x2": REAL, "p": NORM_DEGREE, "eps": NON_NEGATIVE},
    coupled="last",
    cases=({}, {"p": 1.0, "eps": 0.25}, {"p": 3.0}),
    differs={"keepdim": "ours is torch's False"},
)
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6) -> Tensor:
    r"""Distance of two vectors: the p-norm of their difference, to which ε is added.

    .. math:: d = \lVert x_1 - x_2 + \epsilon \rVert_p

    ε is added to the difference and not to the norm, so equal vectors have the distance
    :math:`n^{1/p} \epsilon`, and d is not symmetric. Domain ℝⁿ, codomain [0, ∞); a corner where the
    norm is 0, and for p = 1 where an element is. One shape (..., n) gives (...): nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, ``p`` below 1 or infinite, or ``eps`` below 0.
    Source: ``torch.nn.functional.pairwise_distance``.

    >>> pairwise_distance(torch.tensor([3.0, 4.0]), torch.zeros(2), eps=0.0)
    tensor(5.)
    """
    return _apart(x1, x2, p, eps).value.squeeze(-1)


@gradient(pairwise_distance)
def pairwise_distance_gradient(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    eps: float = 1e-6,
    *,
    wrt: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`s = \operatorname{sign}(u)\,(|u| / d)^{p-1}` in x₁ for u = x₁ − x₂ + ε, −s in x₂.

    At a corner it is 0 as in torch.

    >>> pairwise_distance_gradient(torch.tensor([3.0, 4.0]), torch.zeros(2), eps=0.0)
    tensor([0.6000, 0.8000])
    """
    slope = _apart(x1, x2, p, eps).slope
    return slope if wrt == "x1" else -slope


@hvp(pairwise_distance)
def pairwise_distance_hvp(
    x1: Tensor,
    x2: Tensor,
    tangent: Tensor,
    p: float = 2.0,
    eps: float = 1e-6,
    *,
    wrt: Point = "x1",
    along: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm \tfrac{p-1}{d} \bigl((|u| / d)^{p-2}\,v - s\,s^T v\bigr)`, s the gradient.

    It is + where ``wrt`` is ``along``, else −, and NaN where the norm is 0.

    >>> v = torch.tensor([1.0, 0.0])
    >>> pairwise_distance_hvp(torch.tensor([3.0, 4.0]), torch.zeros(2), v, eps=0.0)
    tensor([ 0.1280, -0.0960])
    """
    bend = _apart(x1, x2, p, eps).bend(tangent)
    return bend if wrt == along else -bend


@hessian_diagonal(pairwise_distance)
def pairwise_distance_hessian_diagonal(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    eps: float = 1e-6,
    *,
    wrt: Point = "x1",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{p-1}{d} \bigl((|u_i| / d)^{p-2} - s_i^2\bigr)`; NaN where the norm is 0.

    >>> pairwise_distance_hessian_diagonal(torch.tensor([3.0, 4.0]), torch.zeros(2), eps=0.0)
    tensor([0.1280, 0.0720])
    """
    return _apart(x1, x2, p, eps).bend_diagonal


def _apart(x: Tensor, y: Tensor, p: float, eps: float) -> Norm:
    """The norm of x − y + ε, whose difference has all its bits."""
    return Norm.of(shifted_difference(x, y, eps), p)


# --- distance to a similar vector, and to one that is not ----------------------------------------


def _closer(a: Any, b: Any) -> Any:
    """The smaller distance, and the mean of two that are equal."""
    if a[0].overlaps(b[0]):
        return (a + b) / 2
    return b if b[0] < a[0] else a


def _counts(lacks: Any, size: Any) -> Any:
    """1 where the margin is not reached, 0 where it is, NaN where float64 cannot tell."""
    if abs(lacks[0]) < 2.0**-50 * size[0]:
        return math.nan
    return int(lacks[0] > 0)


def triplet_margin_truth(
    anchor: Any, positive: Any, negative: Any, margin: Any, p: Any, eps: Any, swap: bool
) -> Any:
    near = series.norm(anchor - positive + eps, p)
    far = series.norm(anchor - negative + eps, p)
    if swap:
        other = series.norm(positive - negative + eps, p)
        far = np.frompyfunc(_closer, 2, 1)(far, other)
    counts = np.frompyfunc(_counts, 2, 1)(near - far + margin, near + far + margin)
    return np.stack([near * counts, (margin - far) * counts], axis=-1)


@loss(
    torch=F.triplet_margin_loss,
    truth=triplet_margin_truth,
    domains={
        "anchor": REAL,
        "positive": REAL,
        "negative": REAL,
        "margin": POSITIVE,
        "p": NORM_DEGREE,
        "eps": NON_NEGATIVE,
    },
    coupled="last",
    precision="absolute",
    cases=({}, {"swap": True, "margin": 20.0}, {"p": 3.0}),
)
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""What a dissimilar vector lacks to be further off than a similar one by a margin Δ; a mean.

    .. math:: \ell = \max\bigl(0, d(a, p) - d(a, n) + \Delta\bigr), \qquad
              d(x, y) = \lVert x - y + \epsilon \rVert_p

    With ``swap`` the distance to n is the smaller one of those from a and from p (Balntas, Riba,
    Ponsa and Mikolajczyk 2016); where they are equal each counts half, as in torch. Domain ℝⁿ,
    codomain [0, ∞); a corner where the maximum is 0, and where a difference is 0 for p = 1, or all
    of them for other p. Shape (..., n) gives (...): one shape, nothing is broadcast. float64,
    float32, float16, bfloat16.

    Raises ValueError for two shapes, a ``margin`` that is not positive, ``p`` below 1 or
    infinite, ``eps`` below 0, or an unknown reduction.
    Source: ``torch.nn.functional.triplet_margin_loss``.

    >>> a, n = torch.zeros(2), torch.tensor([0.0, 0.5])
    >>> triplet_margin_loss(a, a, n, eps=0.0)
    tensor(0.5000)
    """
    return _Triplet.of(anchor, positive, negative, margin, p, eps, swap).lacks.clamp(min=0)


@gradient(triplet_margin_loss)
def triplet_margin_loss_gradient(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\nabla d(a, p) - \nabla d(a, n)` where the loss is positive and, as in torch, at its
    corner; else 0.

    With u = x − y + ε, :math:`\partial d / \partial x_i = \pm (|u_i| / d)^{p-1}` has the sign of
    uᵢ, and the opposite by y; it is 0 where d is 0.

    >>> a, n = torch.zeros(2), torch.tensor([0.0, 0.5])
    >>> triplet_margin_loss_gradient(a, a, n, eps=0.0, wrt="negative")
    tensor([ 0., -1.])
    """
    triplet = _Triplet.of(anchor, positive, negative, margin, p, eps, swap)
    return triplet.combined(wrt, lambda norm, _: norm.slope)


@hvp(triplet_margin_loss)
def triplet_margin_loss_hvp(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    tangent: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "anchor",
    along: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial^2 d\,v` of both distances, with the signs of their arguments.

    :math:`\partial^2 d\,v = \tfrac{p-1}{d} \bigl((|u| / d)^{p-2}\,v - s\,s^T v\bigr)` for s = ∇d.

    >>> a, n, v = torch.zeros(2), torch.tensor([0.0, 0.5]), torch.ones(2)
    >>> triplet_margin_loss_hvp(a, a, n, v, eps=0.0, wrt="negative", along="negative")
    tensor([-2.,  0.])
    """
    triplet = _Triplet.of(anchor, positive, negative, margin, p, eps, swap)
    return triplet.combined(wrt, lambda norm, sign: norm.bend(sign * tangent), along)


@hessian_diagonal(triplet_margin_loss)
def triplet_margin_loss_hessian_diagonal(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{p-1}{d} \bigl((|u_i| / d)^{p-2} - s_i^2\bigr)` for both distances, s = ∇d.

    >>> a, n = torch.zeros(2), torch.tensor([0.0, 0.5])
    >>> triplet_margin_loss_hessian_diagonal(a, a, n, eps=0.0, wrt="negative")
    tensor([-2.,  0.])
    """
    triplet = _Triplet.of(anchor, positive, negative, margin, p, eps, swap)
    return triplet.combined(wrt, lambda norm, sign: sign * norm.bend_diagonal, wrt)


SIGNS = {"anchor": (1, 1, 0), "positive": (-1, 0, 1), "negative": (0, -1, -1)}
"""The derivatives of a − p, a − n and p − n by each argument."""


@dataclass(frozen=True)
class _Triplet:
    """The norms of a − p, a − n and, with ``swap``, p − n, what each counts for, and the loss
    before the maximum.
    """

    norms: tuple[Norm, ...]
    weights: tuple[Tensor, ...]
    lacks: Tensor

    @classmethod
    def of(
        cls,
        anchor: Tensor,
        positive: Tensor,
        negative: Tensor,
        margin: float,
        p: float,
        eps: float,
        swap: bool,
    ) -> _Triplet:
        near = _apart(anchor, positive, p, eps)
        far = _apart(anchor, negative, p, eps)
        one = torch.ones_like(far.value)
        if not swap:
            lacks = near.value - far.value + margin
            return cls((near, far), (one, -one), lacks.squeeze(-1))
        other = _apart(positive, negative, p, eps)
        share = (torch.sign(far.value - other.value) + 1) / 2  # 1 for p, ½ where both are
        lacks = (near.value - torch.minimum(far.value, other.value) + margin).squeeze(-1)
        return cls((near, far, other), (one, share - 1, -share), lacks)

    def combined(
        self, wrt: str, derivative: Callable[[Norm, int], Tensor], along: str | None = None
    ) -> Tensor:
        """Return a derivative of the weighted distances: 0 below the corner, NaN where it is NaN.

        ``derivative`` takes the norm of a difference, and the derivative of that difference by
        ``along``, which is not 0.
        """
        result = torch.zeros_like(self.norms[0].u)
        moving = (1, 1, 1) if along is None else SIGNS[along]
        terms = zip(self.norms, self.weights, SIGNS[wrt], moving, strict=False)
        for norm, weight, sign, by in terms:  # without swap there is no third
            if sign and by:
                result = result + torch.where(
                    weight == 0, 0.0, sign * weight * derivative(norm, by)
                )
        lacks = self.lacks.unsqueeze(-1)
        return torch.where(lacks.isnan(), lacks, result.masked_fill(lacks < 0, 0))
