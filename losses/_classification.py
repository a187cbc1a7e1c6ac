"""Losses of a classifier: class indices or probabilities against logits or log-probabilities.

The body of a loss is the unreduced loss of every row or element, that of a gradient its derivative,
and the classes are the last dimension; ``reduction`` and ``grad_output`` are applied to it, and
the classes put last, by the decorators (gradref.declare.calls).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations import (
    log_softmax,
    log_softmax_hvp,
    log_softmax_jacobian_diagonal,
    log_softmax_jvp,
    log_softmax_vjp,
    sigmoid,
    sigmoid_derivative,
    softmax,
    softmax_jacobian_diagonal,
    softplus,
)
from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import (
    CLASS_WEIGHT,
    DISTRIBUTION,
    FROM_0_TO_1,
    INT64,
    REAL,
    UNIT_INTERVAL,
    WEIGHT,
    class_indices,
)
from gradref.formula.weighting import weighted
from gradref.truth import series

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_gradient",
    "binary_cross_entropy_hessian_diagonal",
    "binary_cross_entropy_hvp",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_gradient",
    "binary_cross_entropy_with_logits_hessian_diagonal",
    "binary_cross_entropy_with_logits_hvp",
    "cross_entropy",
    "cross_entropy_gradient",
    "cross_entropy_hessian_diagonal",
    "cross_entropy_hvp",
    "nll_loss",
    "nll_loss_gradient",
    "nll_loss_hessian_diagonal",
    "nll_loss_hvp",
]

Reduction = Literal["none", "mean", "sum"]
Argument = Literal["input", "target"]
CLASS_INDEX = class_indices(ignored="ignore_index")

# --- negative log-likelihood ---------------------------------------------------------------------


def at_target(input: Tensor, target: Tensor) -> Tensor:
    """Which class is the target of its row."""
    classes = torch.arange(input.shape[-1], device=input.device, dtype=torch.int32)
    return target.to(torch.int32).unsqueeze(-1) == classes


def row_mass(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """The weight of the target of every row; zero where it is ignored."""
    counted = (target != ignore_index).to(input.dtype)
    if weight is None:
        return counted
    return torch.where(target == ignore_index, 0.0, weight[_class_of(input, target)])


def picked(values: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """The weighted value at the target of every row; zero where it is ignored."""
    picked = values.gather(-1, _class_of(values, target).unsqueeze(-1)).squeeze(-1)
    mass = row_mass(values, target, weight, ignore_index)
    return torch.where(target == ignore_index, 0.0, weighted(picked, mass))


def _class_of(input: Tensor, target: Tensor) -> Tensor:
    """The target, and some class for one that is ignored and may be none."""
    return target.clamp(0, input.shape[-1] - 1)


def _picked_truth(values: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """w_t·values_t for every row, 0 for an ignored one."""
    weights = [1] * values.shape[-1] if weight is None else weight

    def pick(row: int) -> Any:
        t = target[row]
        return 0 * values[row, 0] if t == ignore_index else weights[t] * values[row, t]

    return np.frompyfunc(pick, 1, 1)(np.arange(len(target)))


def index_mass_truth(input: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    ones = input * 0 + 1
    return _picked_truth(ones, target, weight, ignore_index)


@loss(
    torch=F.nll_loss,
    truth=lambda input, target, weight, ignore_index: _picked_truth(
        -input, target, weight, ignore_index
    ),
    domains={
        "input": REAL,
        "target": CLASS_INDEX,
        "weight": CLASS_WEIGHT,
        "ignore_index": INT64,
    },
    coupled="class",
    mass=lambda input, target, ignore_index, weight=None: row_mass(
        input, target, weight, ignore_index
    ),
    truth_mass=index_mass_truth,
    cases=({}, {"weight": CLASS_WEIGHT}, {"ignore_index": 1}),
)
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Negative log-likelihood of class indices under log-probabilities.

    .. math:: \ell_i = -w_{t_i}\,x_{i,t_i}, \qquad
              L = \frac{\sum_i \ell_i}{\sum_{t_i \ne \mathrm{ignored}} w_{t_i}}

    ``input`` has shape (C), (N, C) or (N, C, d₁, ...), ``target`` the same without C; a row whose
    target is ``ignore_index`` counts for nothing, and a mean over no row is NaN with gradient 0.
    Domain ℝ, linear. float64, float32, float16, bfloat16.

    Raises IndexError for a class out of range, TypeError for a target that is not an integer,
    ValueError for shapes that do not match, a negative weight or an unknown reduction.
    Source: ``torch.nn.functional.nll_loss``.

    >>> nll_loss(torch.tensor([[-0.5, -1.0], [-2.0, -0.1]]), torch.tensor([0, 1]))
    tensor(0.3000)
    """
    return picked(-input, target, weight, ignore_index)


@gradient(nll_loss)
def nll_loss_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_j = -w_t\,[j = t]`.

    >>> nll_loss_gradient(torch.tensor([[-0.5, -1.0], [-2.0, -0.1]]), torch.tensor([0, 1]))
    tensor([[-0.5000,  0.0000],
            [ 0.0000, -0.5000]])
    """
    mass = row_mass(input, target, weight, ignore_index).unsqueeze(-1)
    return torch.where(at_target(input, target), -mass, 0.0)


@hvp(nll_loss)
def nll_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`: the loss is linear in the log-probabilities.

    >>> nll_loss_hvp(torch.zeros(2), torch.tensor(0), torch.ones(2))
    tensor([0., 0.])
    """
    return torch.zeros_like(tangent)


@hessian_diagonal(nll_loss)
def nll_loss_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`: the loss is linear in the log-probabilities.

    >>> nll_loss_hessian_diagonal(torch.zeros(2), torch.tensor(0))
    tensor([0., 0.])
    """
    return torch.zeros_like(input)


# --- cross entropy -------------------------------------------------------------------------------


def _mass(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """The numbers a_c of ℓ = −Σ a_c log p_c: smoothed, weighted, zero where ignored."""
    if target.is_floating_point():
        hard, counted = target, torch.ones_like(target[..., :1])
    else:
        counted = row_mass(input, target, None, ignore_index).unsqueeze(-1)
        hard = at_target(input, target) * counted
    smooth = (1 - label_smoothing) * hard + counted * (label_smoothing / input.shape[-1])
    return smooth if weight is None else smooth * weight


def ignored(target: Tensor, ignore_index: int) -> Tensor:
    """The rows that count for nothing, whatever their logits."""
    if target.is_floating_point():
        return torch.zeros_like(target[..., :1], dtype=torch.bool)
    return (target == ignore_index).unsqueeze(-1)


def cross_entropy_truth(
    input: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: Any
) -> Any:
    shifted = input - input[:, :1]
    minus_log_p = np.log(np.exp(shifted).sum(-1, keepdims=True)) - shifted
    weighted = minus_log_p if weight is None else minus_log_p * weight
    classes = input.shape[-1]
    if target.dtype == object:
        return (target * (1 - label_smoothing) + label_smoothing / classes) * weighted
    counted = (target != ignore_index).astype(int)[:, None]
    hard = (target[:, None] == np.arange(classes)) * counted
    return (hard * (1 - label_smoothing) + counted * label_smoothing / classes) * weighted


def _smoothed_everywhere(input: Tensor, target: Tensor, reduction: str, **more: Any) -> Tensor:
    """Cross entropy with the smoothed part of the loss also for rows that are ignored."""
    if target.is_floating_point():
        raise ValueError("no row is ignored where the target is probabilities")
    eps = more.pop("label_smoothing")
    hard = F.cross_entropy(input, target, reduction="none", **more)
    uniform = torch.full_like(input, eps / input.shape[1])
    smooth = F.cross_entropy(input, uniform, weight=more["weight"], reduction="none")
    losses: Tensor = (1 - eps) * hard + smooth
    counted = (target != more["ignore_index"]).sum() if reduction == "mean" else 1
    return losses if reduction == "none" else losses.sum() / counted


@loss(
    torch=F.cross_entropy,
    truth=cross_entropy_truth,
    domains={
        "input": REAL,
        "target": (CLASS_INDEX, DISTRIBUTION),
        "weight": CLASS_WEIGHT,
        "ignore_index": INT64,
        "label_smoothing": FROM_0_TO_1,
    },
    coupled="class",
    precision="absolute",
    mass=lambda input, target, ignore_index, weight=None: (
        torch.ones_like(input.select(-1, 0))
        if target.is_floating_point()
        else row_mass(input, target, weight, ignore_index)
    ),
    truth_mass=lambda input, target, weight, ignore_index, **_: (
        input[:, 0] * 0 + 1
        if target.dtype == object
        else index_mass_truth(input, target, weight, ignore_index)
    ),
    cases=(
        {},
        {"weight": CLASS_WEIGHT, "ignore_index": 1, "label_smoothing": 0.1},
        {"target": DISTRIBUTION},
        {"target": DISTRIBUTION, "weight": CLASS_WEIGHT, "label_smoothing": 0.1},
    ),
    mistakes={"label smoothing counts the ignored rows": _smoothed_everywhere},
)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Cross entropy of logits against class indices or class probabilities.

    .. math:: \ell = -\sum_c a_c \log p_c, \qquad p = \operatorname{softmax}(x), \qquad
              a_c = w_c \left((1 - \varepsilon)\,t_c + \tfrac{\varepsilon}{C}\right)

    where t is the one-hot row of a class index, or the row of probabilities, and ε is
    ``label_smoothing``. The mean divides by Σ w of the targets that are not ``ignore_index``, and
    for probabilities by the number of rows; over no row it is NaN with gradient 0.

    ``input`` has shape (C), (N, C) or (N, C, d₁, ...); ``target`` the same without C for indices
    (integers), or the same for probabilities (floats). Domain ℝ, codomain [0, ∞), smooth, convex.
    A row with an inf or a NaN is NaN; −inf is probability 0. float64, float32, float16, bfloat16.

    Raises IndexError for a class out of range; ValueError for shapes that do not match,
    probabilities outside [0, 1], a negative weight, an unknown reduction, or ``label_smoothing``
    outside [0, 1].
    Source: ``torch.nn.functional.cross_entropy``.

    >>> logits = torch.tensor([[2.0, 3.0, 1.0], [3.0, 7.0, 9.0]])
    >>> cross_entropy(logits, torch.tensor([1, 2]))
    tensor(0.2684)
    """
    if not target.is_floating_point() and label_smoothing == 0:
        return picked(-log_softmax(input), target, weight, ignore_index)
    a = _mass(input, target, weight, ignore_index, label_smoothing)
    terms = weighted(log_softmax(input), a)
    return -terms.masked_fill(ignored(target, ignore_index), 0).sum(-1)


@gradient(cross_entropy)
def cross_entropy_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_j = p_j \sum_c a_c - a_j`; for probabilities as targets
    :math:`\partial \ell / \partial t_j = -(1 - \varepsilon)\,w_j \log p_j`.

    For a class index without weights it is p_j − [j = t], with p_t − 1 as a sum of the others.

    >>> cross_entropy_gradient(torch.tensor([[2.0, 3.0, 1.0]]), torch.tensor([1]))
    tensor([[ 0.2447, -0.3348,  0.0900]])
    """
    if wrt == "target":
        share = torch.full_like(input, 1 - label_smoothing)
        return -weighted(log_softmax(input), weighted(share, weight))
    if not target.is_floating_point() and label_smoothing == 0:
        rise, fall = softmax(input), -log_softmax_jacobian_diagonal(input)
        gradient = torch.where(at_target(input, target), fall, rise)
        if weight is not None:
            mass = row_mass(input, target, weight, ignore_index)
            gradient = gradient * mass.unsqueeze(-1)
    else:
        gradient = log_softmax_vjp(
            input, -_mass(input, target, weight, ignore_index, label_smoothing)
        )
    return gradient.masked_fill(ignored(target, ignore_index), 0)


@hvp(cross_entropy)
def cross_entropy_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`H v = \bigl(\sum_c a_c\bigr)\,p\,(v - \sum_j p_j v_j)` for logits.

    The loss is linear in probabilities t; the mixed derivative is that of their coefficients.

    >>> cross_entropy_hvp(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    tensor([[ 0.2500, -0.2500]])
    """
    if wrt == along == "target":
        return torch.zeros_like(tangent)
    if wrt == along:
        a = _mass(input, target, weight, ignore_index, label_smoothing)
        curved = log_softmax_hvp(input, -a, tangent)
        return curved.masked_fill(ignored(target, ignore_index), 0)
    scale = torch.ones_like(input) if weight is None else weight.expand_as(input)
    if wrt == "target":
        return (label_smoothing - 1) * scale * log_softmax_jvp(input, tangent)
    return log_softmax_vjp(input, (label_smoothing - 1) * scale * tangent)


@hessian_diagonal(cross_entropy)
def cross_entropy_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_j\,(1 - p_j) \sum_c a_c` for logits, 0 for probabilities.

    >>> cross_entropy_hessian_diagonal(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[0.2500, 0.2500]])
    """
    if wrt == "target":
        return torch.zeros_like(input)
    a = _mass(input, target, weight, ignore_index, label_smoothing)
    diagonal = a.sum(-1, keepdim=True) * softmax_jacobian_diagonal(input)
    return diagonal.masked_fill(ignored(target, ignore_index), 0)


# --- binary cross entropy ------------------------------------------------------------------------


def _binary_truth(input: Any, target: Any, weight: Any) -> Any:
    hit, miss = -series.xlogy(target, input), -series.xlogy(1 - target, 1 - input)
    return np.stack([hit, miss], axis=-1) * (1 if weight is None else weight[:, None])


@loss(
    torch=F.binary_cross_entropy,
    truth=_binary_truth,
    domains={"input": UNIT_INTERVAL, "target": UNIT_INTERVAL, "weight": WEIGHT},
    cases=({}, {"weight": WEIGHT}),
)
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross entropy of probabilities against probabilities of one event.

    .. math:: \ell = -w\,\bigl(t \log p + (1 - t) \log(1 - p)\bigr), \qquad 0 \log 0 = 0

    Domain p, t ∈ [0, 1], codomain [0, ∞], smooth inside. At p = 0 with t > 0, and at p = 1 with
    t < 1, it is inf: torch's clamp of the logarithm at −100 is not applied. One shape: nothing is
    broadcast but ``weight`` (≥ 0). float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, numbers outside [0, 1], a negative weight or an unknown
    reduction. Source: ``torch.nn.functional.binary_cross_entropy``.

    >>> binary_cross_entropy(torch.tensor([0.5, 0.9]), torch.tensor([1.0, 1.0]))
    tensor(0.3993)
    """
    return weighted(
        -(torch.xlogy(target, input) + torch.special.xlog1py(1 - target, -input)), weight
    )


@gradient(binary_cross_entropy)
def binary_cross_entropy_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial p = w\,\frac{p - t}{p\,(1 - p)}`,
    :math:`\partial \ell / \partial t = w \log\frac{1 - p}{p}`.

    At t = 0 the first is w/(1 − p) and at t = 1 it is −w/p, also at p = t.

    >>> binary_cross_entropy_gradient(torch.tensor([0.5]), torch.tensor([1.0]))
    tensor([-2.])
    """
    p = input
    if wrt == "target":
        near_half = 2 * torch.atanh(1 - 2 * p)
        apart = torch.log1p(-p) - torch.log(p)
        return weighted(torch.where((p - 0.5).abs() < 0.25, near_half, apart), weight)
    slope = (p - target) / (p * (1 - p))
    slope = torch.where(target == 0, 1 / (1 - p), slope)
    return weighted(torch.where(target == 1, -1 / p, slope), weight)


@hvp(binary_cross_entropy)
def binary_cross_entropy_hvp(
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
    r""":math:`w\,\bigl(\tfrac{t}{p^2} + \tfrac{1 - t}{(1 - p)^2}\bigr)\,v` in p, 0 in t, and
    :math:`-w\,v / (p\,(1 - p))` for the mixed derivative.

    >>> binary_cross_entropy_hvp(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([1.0]))
    tensor([4.])
    """
    if wrt == along == "target":
        return torch.zeros_like(tangent)
    curvature = _binary_curvature(input, target) if wrt == along else -1 / (input * (1 - input))
    return weighted(curvature * tangent, weight)


@hessian_diagonal(binary_cross_entropy)
def binary_cross_entropy_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`w\,\bigl(\tfrac{t}{p^2} + \tfrac{1 - t}{(1 - p)^2}\bigr)` in p, 0 in t.

    >>> binary_cross_entropy_hessian_diagonal(torch.tensor([0.5]), torch.tensor([1.0]))
    tensor([4.])
    """
    if wrt == "target":
        return torch.zeros_like(input)
    return weighted(_binary_curvature(input, target), weight)


def _binary_curvature(p: Tensor, t: Tensor) -> Tensor:
    hit = torch.where(t == 0, 0.0, t / p / p)
    miss = torch.where(t == 1, 0.0, (1 - t) / (1 - p).square())
    return hit + miss


# --- binary cross entropy with logits ------------------------------------------------------------


def _logits_truth(input: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
    hit = target * series.each(series.softplus, -input)
    hit = hit if pos_weight is None else hit * pos_weight
    miss = (1 - target) * series.each(series.softplus, input)
    return np.stack([hit, miss], axis=-1) * (1 if weight is None else weight[:, None])


@loss(
    torch=F.binary_cross_entropy_with_logits,
    truth=_logits_truth,
    domains={"input": REAL, "target": UNIT_INTERVAL, "weight": WEIGHT, "pos_weight": WEIGHT},
    cases=({}, {"weight": WEIGHT, "pos_weight": WEIGHT}),
)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of the logits of probabilities against probabilities of one event.

    .. math:: \ell = w\,\bigl(q\,t \operatorname{softplus}(-x)
              + (1 - t) \operatorname{softplus}(x)\bigr)

    with q = ``pos_weight``. Domain x ∈ ℝ, t ∈ [0, 1], codomain [0, ∞), smooth, convex. One shape:
    nothing is broadcast but ``weight`` and ``pos_weight`` (≥ 0). float64, float32, float16,
    bfloat16.

    Raises ValueError for two shapes, a target outside [0, 1], a negative weight or an unknown
    reduction. Source: ``torch.nn.functional.binary_cross_entropy_with_logits``.

    >>> binary_cross_entropy_with_logits(torch.tensor([0.0, -17.0]), torch.tensor([1.0, 0.0]))
    tensor(0.3466)
    """
    hit = weighted(weighted(softplus(-input), target), pos_weight)
    return weighted(hit + weighted(softplus(input), 1 - target), weight)


@gradient(binary_cross_entropy_with_logits)
def binary_cross_entropy_with_logits_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x = w\,((1 - t)\,\sigma(x) - q\,t\,\sigma(-x))`,
    :math:`\partial \ell / \partial t = w\,(q \operatorname{softplus}(-x)
    - \operatorname{softplus}(x))`, which is −wx for q = 1.

    σ(−x) rather than 1 − σ(x), which would lose the gradient of a confident and right prediction.

    >>> binary_cross_entropy_with_logits_gradient(torch.tensor([17.0]), torch.tensor([1.0]))
    tensor([-4.1399e-08])
    """
    if wrt == "target":
        if pos_weight is None:
            return weighted(-input, weight)
        linear = torch.where(input < 0, weighted(input, pos_weight), input)
        return weighted((pos_weight - 1) * softplus(-input.abs()) - linear, weight)
    hit = weighted(target * sigmoid(-input), pos_weight)
    return weighted((1 - target) * sigmoid(input) - hit, weight)


@hvp(binary_cross_entropy_with_logits)
def binary_cross_entropy_with_logits_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`w\,(1 - t + q\,t)\,\sigma'(x)\,v` in x, 0 in t, and
    :math:`-w\,(\sigma(x) + q\,\sigma(-x))\,v` for the mixed derivative.

    >>> binary_cross_entropy_with_logits_hvp(*torch.tensor([[0.0], [1.0], [1.0]]))
    tensor([0.2500])
    """
    if wrt == along == "target":
        return torch.zeros_like(tangent)
    if wrt == along:
        return tangent * _logits_curvature(input, target, weight, pos_weight)
    mixed = sigmoid(input) + weighted(sigmoid(-input), pos_weight)
    return weighted(-mixed * tangent, weight)


@hessian_diagonal(binary_cross_entropy_with_logits)
def binary_cross_entropy_with_logits_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`w\,(1 - t + q\,t)\,\sigma'(x)` in x, 0 in t.

    >>> binary_cross_entropy_with_logits_hessian_diagonal(torch.zeros(1), torch.ones(1))
    tensor([0.2500])
    """
    if wrt == "target":
        return torch.zeros_like(input)
    return _logits_curvature(input, target, weight, pos_weight)


def _logits_curvature(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Tensor:
    share = (1 - target) + weighted(target, pos_weight)
    return weighted(share * sigmoid_derivative(input), weight)
