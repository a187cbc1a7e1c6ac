"""The triplet loss with a distance of the caller's choice.

It is a loss of a batch: what it computes of a row is up to the distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref import arrays
from gradref.arrays import describe, narrowed, reject, widen
from gradref.declare import batch_loss, gradient, hessian_diagonal, hvp
from gradref.declare.operation import Operation, operation
from gradref.formula.weighting import check_choice, check_reduction, reduced, times_grad_output
from losses._distance import Argument, Reduction, pairwise_distance, triplet_margin_truth

__all__ = [
    "triplet_margin_with_distance_loss",
    "triplet_margin_with_distance_loss_gradient",
    "triplet_margin_with_distance_loss_hessian_diagonal",
    "triplet_margin_with_distance_loss_hvp",
]

Distance = Callable[..., Any]


def _truth(
    anchor: Any, positive: Any, negative: Any, distance_function: Distance, margin: Any, swap: bool
) -> Any:
    p, eps = (operation(distance_function).parameters[name] for name in ("p", "eps"))
    return triplet_margin_truth(anchor, positive, negative, margin, p, eps, swap)


def _draw(rng: np.random.Generator, case: Mapping[str, Any], is_large: bool) -> dict[str, Any]:
    shape = (301, 65) if is_large else (4, 3)
    return {name: rng.normal(size=shape) for name in ("anchor", "positive", "negative")}


@batch_loss(
    torch=F.triplet_margin_with_distance_loss,
    truth=_truth,
    shares=lambda anchor, **_: anchor[:, 0] * 0 + 1 / len(anchor),
    draw=_draw,
    precision="absolute",
    cases=({}, {"swap": True, "margin": 3.0}),
    differs={
        "distance_function": "a declared one, as its derivatives are asked of it; torch's None is"
        " pairwise_distance"
    },
)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance = pairwise_distance,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""What a dissimilar vector lacks to be further off than a similar one by a margin; a mean.

    .. math:: \ell = \max\bigl(0, d(a, p) - d(a, n) + \Delta\bigr)

    d is any declared function of two vectors, as ``pairwise_distance``, ``euclidean_norm`` or one
    of yours, since its derivatives are asked of it; torch's autograd derives any function. With
    ``swap`` the distance to n is the smaller one of those from a and from p; of equal ones each
    counts half. Domain ℝⁿ, codomain [0, ∞). Shape (..., n) gives (...): one shape, nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises TypeError for a ``distance_function`` that is not declared, ValueError for two shapes, a
    ``margin`` that is not finite, or an unknown reduction.
    Source: ``torch.nn.functional.triplet_margin_with_distance_loss``.

    >>> from losses import cosine_similarity
    >>> a, n = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> triplet_margin_with_distance_loss(a, n, a, distance_function=cosine_similarity)
    tensor(0.)
    """
    triplet = _Triplet.of(anchor, positive, negative, distance_function, margin, swap)
    return triplet.given(reduced(triplet.lacks.clamp(min=0), reduction))


@gradient(triplet_margin_with_distance_loss)
def triplet_margin_with_distance_loss_gradient(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance = pairwise_distance,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
    wrt: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\nabla d(a, p) - \nabla d(a, n)` where the loss is positive or at its corner, else 0.

    >>> a, n = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    >>> triplet_margin_with_distance_loss_gradient(a, n, a, wrt="positive")
    tensor([-0.4472,  0.8944])
    """
    triplet = _Triplet.of(anchor, positive, negative, distance_function, margin, swap)
    return triplet.combined("gradient", reduction, grad_output, wrt)


@hvp(triplet_margin_with_distance_loss)
def triplet_margin_with_distance_loss_hvp(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    tangent: Tensor,
    *,
    distance_function: Distance = pairwise_distance,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
    wrt: Argument = "anchor",
    along: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm \partial^2 d\,v` of the distances that depend on both arguments.

    >>> a, n = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    >>> triplet_margin_with_distance_loss_hvp(a, n, a, a, wrt="positive", along="positive")
    tensor([0.3578, 0.1789])
    """
    triplet = _Triplet.of(anchor, positive, negative, distance_function, margin, swap)
    vector = widen(arrays.enter("tangent", tangent)[0])
    if vector.shape != triplet.points["anchor"].shape:
        wants = f"shape {tuple(triplet.points['anchor'].shape)}"
        reject("tangent", f"shape {tuple(vector.shape)}", wants)
    return triplet.combined("hvp", reduction, grad_output, wrt, along, tangent=vector)


@hessian_diagonal(triplet_margin_with_distance_loss)
def triplet_margin_with_distance_loss_hessian_diagonal(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance = pairwise_distance,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
    wrt: Argument = "anchor",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\pm \partial^2 d / \partial x_i^2` of the distances that depend on an argument x.

    >>> a, n = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    >>> triplet_margin_with_distance_loss_hessian_diagonal(a, n, a, wrt="positive")
    tensor([0.3578, 0.0894])
    """
    triplet = _Triplet.of(anchor, positive, negative, distance_function, margin, swap)
    return triplet.combined("hessian_diagonal", reduction, grad_output, wrt)


PAIRS = (("anchor", "positive"), ("anchor", "negative"), ("positive", "negative"))


@dataclass(frozen=True)
class _Triplet:
    """Three points in float64, the weight of the distance of each pair, and what the loss cuts."""

    points: dict[str, Tensor]
    distance: Operation
    weights: tuple[Tensor, ...]
    lacks: Tensor
    given: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        anchor: Tensor,
        positive: Tensor,
        negative: Tensor,
        distance_function: Distance,
        margin: float,
        swap: bool,
    ) -> _Triplet:
        if getattr(distance_function, "operation", None) is None:
            wants = "a declared function of two vectors, as pairwise_distance"
            reject("distance_function", describe(distance_function), wants, TypeError)
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not isfinite(margin):
            reject("margin", repr(margin), "a finite number")
        if not isinstance(swap, bool):
            reject("swap", repr(swap), "True or False")
        given = {"anchor": anchor, "positive": positive, "negative": negative}
        entered = {name: arrays.enter(name, value) for name, value in given.items()}
        shape = entered["anchor"][0].shape
        for name, (tensor, _) in entered.items():
            if tensor.shape != shape:
                reject(name, f"shape {tuple(tensor.shape)}", f"shape {tuple(shape)}, as anchor")
        points = {name: widen(tensor) for name, (tensor, _) in entered.items()}
        distance = operation(distance_function)
        near, far, other = (distance.function(points[x], points[y]) for x, y in PAIRS)
        one = torch.ones_like(far)
        share = (torch.sign(far - other) + 1) / 2 if swap else 0 * one  # ½ of equal ones
        smaller = torch.minimum(far, other) if swap else far
        first, restore = entered["anchor"]
        return cls(
            points,
            distance,
            (one, share - 1, -share),
            near - smaller + margin,
            lambda result: restore(narrowed(result, first.dtype)),
        )

    def combined(
        self,
        role: str,
        reduction: str,
        grad_output: Any,
        wrt: str,
        along: str | None = None,
        **more: Tensor,
    ) -> Tensor:
        """Return a derivative of the loss: those of the distances, with their weights."""
        check_choice("wrt", wrt, *self.points)
        if along is not None:
            check_choice("along", along, *self.points)
        check_reduction(reduction)
        scale = torch.ones_like(self.lacks)
        if reduction == "mean":
            scale = scale / max(1, self.lacks.numel())
        shape = self.lacks.shape if reduction == "none" else ()
        scale = times_grad_output(scale, grad_output, shape)
        result = torch.zeros_like(self.points["anchor"])
        for pair, weight in zip(PAIRS, self.weights, strict=True):
            if wrt in pair and (along is None or along in pair):
                place = dict(zip(pair, self.distance.arguments, strict=False))
                by = {"wrt": place[wrt]} | ({} if along is None else {"along": place[along]})
                x, y = (self.points[name] for name in pair)
                term = self.distance.derivatives[role](x, y, **more, **by)
                counts = weight.unsqueeze(-1)
                result = result + torch.where(counts == 0, 0.0, counts * term)
        lacks = self.lacks.unsqueeze(-1)
        result = torch.where(lacks.isnan(), lacks, result.masked_fill(lacks < 0, 0))
        return self.given(result * scale.unsqueeze(-1))
