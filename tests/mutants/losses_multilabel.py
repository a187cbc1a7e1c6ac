"""Mistakes in losses of several classes at a time, in the focal loss and in the z-loss."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide


def reduced(rows: Tensor, reduction: str) -> Tensor:
    """The losses of rows, their mean or their sum."""
    return {"none": lambda: rows, "mean": rows.mean, "sum": rows.sum}[reduction]()


def spread(grad_output: Tensor, count: int, reduction: str) -> Tensor:
    """What a reduction passes back to every one of ``count`` losses."""
    g = wide(grad_output)
    return g / count if reduction == "mean" else g


# --- right kernels -------------------------------------------------------------------------------


def soft_margin_rows(input: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The terms of every class: its cross entropy, times its weight."""
    x, t = wide(input), wide(target)
    terms = t * F.softplus(-x) + (1 - t) * F.softplus(x)
    return terms if weight is None else terms * wide(weight)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Right: the mean over classes."""
    rows = soft_margin_rows(input, target, weight).mean(-1)
    return narrow(reduced(rows, reduction), input)


def counts(target: Tensor) -> Tensor:
    """Which places stand before the end of a list."""
    return (target < 0).cumsum(-1) == 0


def places(input: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """1 − x_j + x_i for every class i, and j, for one place of the lists after the other.

    Minus infinity behind the end of a list.
    """
    x, classes = wide(input), target.clamp(min=0)
    for j, counted in zip(classes.split(1, -1), counts(target).split(1, -1), strict=True):
        if not counted.any():
            return
        yield ((x - x.gather(-1, j)) + 1).where(counted, -inf), j


def is_other(input: Tensor, target: Tensor) -> Tensor:
    """Which classes are not listed."""
    listed = counts(target).to(torch.float64)
    return (
        torch.zeros_like(input, dtype=torch.float64).scatter_add(-1, target.clamp(min=0), listed)
        == 0
    )


def multilabel_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Right: over pairs of a class that is listed and one that is not."""
    others = is_other(input, target)
    rows = wide(input).new_zeros(input.shape[:-1])
    for z, _ in places(input, target):
        rows = rows + z.clamp(min=0).where(others, 0).sum(-1)
    return narrow(reduced(rows / input.shape[-1], reduction), input)


def multilabel_margin_loss_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Right: how often x_i is too large, less how often x_j is too small."""
    others = is_other(input, target)
    slope = torch.zeros_like(input, dtype=torch.float64)
    for z, j in places(input, target):
        active = torch.where(z.isnan(), z, (z > 0).double()).where(others, 0)
        slope = slope + active
        slope = slope.scatter_add(-1, j, -active.sum(-1, keepdim=True))
    g = spread(grad_output, input.numel() // input.shape[-1], reduction)
    return narrow(g.unsqueeze(-1) * slope / input.shape[-1], input)


def focal(input: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """The margin, its sign, and the weight of the class."""
    t = wide(target)
    return (2 * t - 1) * wide(input), 2 * t - 1, alpha * t + (1 - alpha) * (1 - t)


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Right: −α (1 − p)^γ log p."""
    m, _, share = focal(input, target, alpha)
    return narrow(reduced(share * torch.sigmoid(-m) ** gamma * -F.logsigmoid(m), reduction), input)


def sigmoid_focal_loss_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Right: the derivative of both factors."""
    m, sign, share = focal(input, target, alpha)
    p, missing = torch.sigmoid(m), torch.sigmoid(-m)
    surprise = (-F.logsigmoid(m)).clamp(max=1e300)
    slope = -(missing**gamma) * (missing + gamma * p * surprise)
    return narrow(spread(grad_output, input.numel(), reduction) * sign * share * slope, input)


def log_z(input: Tensor) -> Tensor:
    """Log Z of every row; NaN for one with an infinity, as that of softmax."""
    x = wide(input)
    top = x.amax(1, keepdim=True)
    return (top - torch.log_softmax(x, 1).amax(1, keepdim=True)).squeeze(1)


def z_loss(input: Tensor, scale: float = 1e-4, reduction: str = "mean") -> Tensor:
    """Right: s (log Z)²."""
    return narrow(reduced(scale * log_z(input).square(), reduction), input)


def z_loss_backward(
    grad_output: Tensor, input: Tensor, scale: float = 1e-4, reduction: str = "mean"
) -> Tensor:
    """Right: 2 s log Z times p."""
    slope = 2 * scale * log_z(input).unsqueeze(1) * torch.softmax(wide(input), 1)
    g = spread(grad_output, input.numel() // input.shape[1], reduction)
    return narrow((g.unsqueeze(1) if g.dim() else g) * slope, input)


SOFT_MARGIN: Kernel = {
    "operation": "multilabel_soft_margin_loss",
    "forward": multilabel_soft_margin_loss,
}
MARGIN: Kernel = {
    "operation": "multilabel_margin_loss",
    "ranks": [1, 2],
    "forward": multilabel_margin_loss,
    "backward": multilabel_margin_loss_backward,
}
FOCAL: Kernel = {
    "operation": "sigmoid_focal_loss",
    "forward": sigmoid_focal_loss,
    "backward": sigmoid_focal_loss_backward,
}
Z_LOSS: Kernel = {
    "operation": "z_loss",
    "ranks": [2],
    "forward": z_loss,
    "backward": z_loss_backward,
}

# --- wrong ones ----------------------------------------------------------------------------------


def multilabel_soft_margin_loss_summed(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Wrong: the sum over classes."""
    rows = soft_margin_rows(input, target, weight).sum(-1)
    return narrow(reduced(rows, reduction), input)


def multilabel_margin_loss_over_all(
    input: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Wrong: the classes of the list are among the others, each with a margin of 1 to itself."""
    rows = wide(input).new_zeros(input.shape[:-1])
    for z, _ in places(input, target):
        rows = rows + z.clamp(min=0).sum(-1)
    return narrow(reduced(rows / input.shape[-1], reduction), input)


def sigmoid_focal_loss_of_p(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Wrong: p^γ for (1 − p)^γ, which counts what is predicted well."""
    m, _, share = focal(input, target, alpha)
    return narrow(reduced(share * torch.sigmoid(m) ** gamma * -F.logsigmoid(m), reduction), input)


def sigmoid_focal_loss_backward_of_entropy(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Wrong: the factor (1 − p)^γ is taken for a constant."""
    m, sign, share = focal(input, target, alpha)
    slope = -(torch.sigmoid(-m) ** (gamma + 1))
    return narrow(spread(grad_output, input.numel(), reduction) * sign * share * slope, input)


def z_loss_backward_without_2(
    grad_output: Tensor, input: Tensor, scale: float = 1e-4, reduction: str = "mean"
) -> Tensor:
    """Wrong: s log Z times p."""
    return z_loss_backward(grad_output, input, scale / 2, reduction)


MUTANTS = [
    Mutant(
        number=148,
        title="multilabel_soft_margin_loss summed over classes",
        kernel=SOFT_MARGIN | {"forward": multilabel_soft_margin_loss_summed},
        correct=SOFT_MARGIN,
        words=r"summed, not averaged",
    ),
    Mutant(
        number=149,
        title="multilabel_margin_loss over all classes",
        kernel=MARGIN | {"forward": multilabel_margin_loss_over_all},
        correct=MARGIN,
        words=r"among the others",
    ),
    Mutant(
        number=150,
        title="focal loss with p^γ",
        kernel=FOCAL | {"forward": sigmoid_focal_loss_of_p},
        correct=FOCAL,
        words=r"p is raised to gamma",
    ),
    Mutant(
        number=151,
        title="focal loss with a constant factor",
        kernel=FOCAL | {"backward": sigmoid_focal_loss_backward_of_entropy},
        correct=FOCAL,
        words=r"taken for a constant",
    ),
    Mutant(
        number=152,
        title="z-loss gradient without the factor 2",
        kernel=Z_LOSS | {"backward": z_loss_backward_without_2},
        correct=Z_LOSS,
        words=r"taken for a constant|factor 0\.5|half",
    ),
]
