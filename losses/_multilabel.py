"""Losses of several classes at a time: of probabilities for each, or of those that a list names.

The body of a loss is the unreduced loss of every row, that of a gradient its derivative, and the
classes are the last dimension; ``reduction`` and ``grad_output`` are applied to it, and the classes
put last, by the decorators (gradref.declare.calls).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import CLASS_LIST, CLASS_WEIGHT, REAL, UNIT_INTERVAL
from gradref.formula.errorfree import may_hold, shifted_difference
from gradref.formula.weighting import reduced
from gradref.truth import series
from losses._classification import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_gradient,
    binary_cross_entropy_with_logits_hessian_diagonal,
    binary_cross_entropy_with_logits_hvp,
)

__all__ = [
    "multilabel_margin_loss",
    "multilabel_margin_loss_gradient",
    "multilabel_margin_loss_hessian_diagonal",
    "multilabel_margin_loss_hvp",
    "multilabel_soft_margin_loss",
    "multilabel_soft_margin_loss_gradient",
    "multilabel_soft_margin_loss_hessian_diagonal",
    "multilabel_soft_margin_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]

# --- cross entropy of every class ----------------------------------------------------------------

Argument = Literal["input", "target"]


def _multilabel_soft_margin_truth(input: Any, target: Any, weight: Any) -> Any:
    hit = target * series.each(series.softplus, -input)
    miss = (1 - target) * series.each(series.softplus, input)
    terms = np.concatenate([hit, miss], axis=-1) / input.shape[-1]
    return terms if weight is None else terms * np.tile(weight, 2)


def _summed_over_classes(input: Tensor, **more: Any) -> Tensor:
    return input.shape[-1] * F.multilabel_soft_margin_loss(input, **more)


@loss(
    torch=F.multilabel_soft_margin_loss,
    truth=_multilabel_soft_margin_truth,
    domains={"input": REAL, "target": UNIT_INTERVAL, "weight": CLASS_WEIGHT},
    coupled="last",
    cases=({}, {"weight": CLASS_WEIGHT}),
    mistakes={"the classes are summed, not averaged": _summed_over_classes},
)
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross entropy of the logit of every class against its probability, averaged over classes.

    .. math:: \ell = \frac{1}{C} \sum_c w_c\,\bigl(t_c \operatorname{softplus}(-x_c)
              + (1 - t_c) \operatorname{softplus}(x_c)\bigr)

    ``input`` and ``target`` have shape (C) or (N, ..., C), ``weight`` (≥ 0) has shape (C). The
    mean divides by the number of rows. Domain x ∈ ℝ, t ∈ [0, 1], codomain [0, ∞), smooth, convex.
    float64, float32, float16, bfloat16.

    Raises ValueError for shapes that do not match, a target outside [0, 1], a negative weight or an
    unknown reduction. Source: ``torch.nn.functional.multilabel_soft_margin_loss``.

    >>> multilabel_soft_margin_loss(torch.tensor([0.0, -17.0]), torch.tensor([1.0, 0.0]))
    tensor(0.3466)
    """
    return binary_cross_entropy_with_logits(input, target, weight, "none").mean(-1)


@gradient(multilabel_soft_margin_loss)
def multilabel_soft_margin_loss_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_c = \tfrac{w_c}{C}\,((1 - t_c)\,\sigma(x_c)
    - t_c\,\sigma(-x_c))`, :math:`\partial \ell / \partial t_c = -\tfrac{w_c}{C}\,x_c`.

    >>> multilabel_soft_margin_loss_gradient(torch.tensor([0.0, 17.0]), torch.ones(2))
    tensor([-2.5000e-01, -2.0700e-08])
    """
    of_classes = binary_cross_entropy_with_logits_gradient(input, target, weight, "none", wrt=wrt)
    return of_classes / input.shape[-1]


@hvp(multilabel_soft_margin_loss)
def multilabel_soft_margin_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{w_c}{C}\,\sigma'(x_c)\,v_c` in x, 0 in t, :math:`-\tfrac{w_c}{C}\,v_c` mixed.

    >>> x, t, v = torch.tensor([[0.0, 0.0], [1.0, 0.5], [1.0, 0.0]])
    >>> multilabel_soft_margin_loss_hvp(x, t, v)
    tensor([0.1250, 0.0000])
    """
    of_classes = binary_cross_entropy_with_logits_hvp(
        input, target, tangent, weight, "none", wrt=wrt, along=along
    )
    return of_classes / input.shape[-1]


@hessian_diagonal(multilabel_soft_margin_loss)
def multilabel_soft_margin_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{w_c}{C}\,\sigma'(x_c)` in x, 0 in t.

    >>> multilabel_soft_margin_loss_hessian_diagonal(torch.zeros(2), torch.ones(2))
    tensor([0.1250, 0.1250])
    """
    of_classes = binary_cross_entropy_with_logits_hessian_diagonal(
        input, target, weight, "none", wrt=wrt
    )
    return of_classes / input.shape[-1]


# --- margin of every class of a list over every other class --------------------------------------


def _multilabel_margin_truth(input: Any, target: Any) -> Any:
    classes = input.shape[-1]

    def of_class(row: int, i: int) -> Any:
        x, listed = input[row], list(takewhile(lambda j: j >= 0, target[row]))
        lacks = [] if i in listed else [1 - x[j] + x[i] for j in listed]
        return sum((z for z in lacks if z[0] > 0), 0 * x[i]) / classes

    return np.frompyfunc(of_class, 2, 1)(np.arange(len(target))[:, None], np.arange(classes))


def _over_all_classes(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    of_listed = input.gather(-1, target.clamp(min=0)).unsqueeze(-1)
    lacks = F.relu(1 - of_listed + input.unsqueeze(-2)) * _counts(target).unsqueeze(-1)
    return reduced(lacks.sum((-2, -1)) / input.shape[-1], reduction)


@loss(
    torch=F.multilabel_margin_loss,
    truth=_multilabel_margin_truth,
    domains={"input": REAL, "target": CLASS_LIST},
    coupled="class",
    mistakes={"the classes of the list are counted among the others": _over_all_classes},
)
def multilabel_margin_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""What the classes of a list lack to lead every other class by a margin of 1; a mean.

    .. math:: \ell = \frac{1}{C} \sum_{j \in t} \sum_{i \notin t} \max(0, z_{ji}), \qquad
              z_{ji} = 1 - x_j + x_i

    ``input`` has shape (C), (N, C) or (N, C, d₁, ...), ``target`` the same: a row lists the indices
    of its classes, up to the first −1; what stands behind that does not count, and a class that
    stands there twice counts twice. The mean divides by the number of rows. Domain ℝ, codomain
    [0, ∞), convex, with a corner where some z is 0. float64, float32, float16, bfloat16.

    Raises IndexError for a class out of range, TypeError for a target that is not an integer,
    ValueError for shapes that do not match or an unknown reduction.
    Source: ``torch.nn.functional.multilabel_margin_loss``.

    >>> multilabel_margin_loss(torch.tensor([0.1, 0.2, 0.4, 0.8]), torch.tensor([3, 0, -1, 1]))
    tensor(0.8500)
    """
    sums = [lacks.sum((-2, -1)) for lacks, _ in _pairs(input, target)]
    return torch.stack(sums).sum(0) / input.shape[-1]


@gradient(multilabel_margin_loss)
def multilabel_margin_loss_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_i = \tfrac{1}{C} \sum_{j \in t}\,[z_{ji} > 0]` for a class
    i that is not listed, and :math:`-\tfrac{1}{C} \sum_{i \notin t}\,[z_{ji} > 0]` for each time
    that j is.

    At a corner, z = 0, it is 0 as in torch.

    >>> multilabel_margin_loss_gradient(torch.tensor([0.5, 1.0, 3.0]), torch.tensor([1, -1, -1]))
    tensor([ 0.3333, -0.6667,  0.3333])
    """
    counts = torch.zeros_like(input)
    for lacks, t in _pairs(input, target):
        slopes = torch.where(lacks.isnan(), lacks, (lacks > 0).to(lacks.dtype))
        counts = (counts + slopes.sum(-2)).scatter_add(-1, t, -slopes.sum(-1))
    return counts / input.shape[-1]


@hvp(multilabel_margin_loss)
def multilabel_margin_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    along: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`: the loss has straight pieces. torch does not differentiate it twice.

    >>> multilabel_margin_loss_hvp(torch.zeros(2), torch.tensor([0, -1]), torch.ones(2))
    tensor([0., 0.])
    """
    return torch.where(input.isnan(), input, 0.0) * tangent


@hessian_diagonal(multilabel_margin_loss)
def multilabel_margin_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    *,
    wrt: Literal["input"] = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`, also at a corner.

    >>> multilabel_margin_loss_hessian_diagonal(torch.zeros(2), torch.tensor([0, -1]))
    tensor([0., 0.])
    """
    return torch.where(input.isnan(), input, 0.0)


PLACES = 16
"""Places of a list that are compared with every class at a time: a list may name all of them."""


def _pairs(input: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """max(0, z_ji) for some places j of the lists and every class i, 0 for a listed i; and t_j."""
    counts, classes = _counts(target), target.clamp(min=0)
    times_listed = torch.zeros_like(input).scatter_add(-1, classes, counts.to(input.dtype))
    is_other = (times_listed == 0).unsqueeze(-2)
    places = zip(torch.split(classes, PLACES, -1), torch.split(counts, PLACES, -1), strict=True)
    for t, counted in places:
        of_listed = input.gather(-1, t).unsqueeze(-1)
        lacks = shifted_difference(input.unsqueeze(-2), of_listed, 1.0).clamp(min=0)
        yield torch.where(is_other & counted.unsqueeze(-1), lacks, 0.0), t
        if not may_hold(counted.select(-1, -1)):
            return  # every list has ended


def _counts(target: Tensor) -> Tensor:
    """Which places of a list stand before the first −1."""
    place = torch.arange(target.shape[-1], device=target.device)
    end = torch.where(target < 0, place, target.shape[-1]).amin(-1, keepdim=True)
    return place < end
