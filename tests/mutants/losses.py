"""Losses with a wrong denominator, an ignored argument, 0·log 0 or a gradient that cancels."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide

SMALLEST = 5e-324
"""Of float64: what a scale of 0 is replaced by in a quotient."""

# --- right kernels: cross entropy ----------------------------------------------------------------


def reduced(rows: Tensor, total: Tensor | float, reduction: str) -> Tensor:
    """The rows themselves, their sum, or their sum over ``total``."""
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / total


def spread(grad_output: Tensor, total: Tensor | float, reduction: str) -> Tensor:
    """What a reduction passes back to every row; nothing where no row counts."""
    g = wide(grad_output)
    return g / (total if total != 0 else inf) if reduction == "mean" else g


class Mass(NamedTuple):
    """The numbers a of a loss −Σ a log p, of which targets, and of how many rows."""

    a: Tensor
    t: Tensor
    weight: Tensor
    counted: Tensor
    total: Tensor


def masses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Mass:
    """Targets as distributions, smoothed and weighted; 0 where they are ignored."""
    w = input.new_ones(input.shape[-1], dtype=torch.float64) if weight is None else wide(weight)
    if target.is_floating_point():
        t, counted = wide(target), torch.ones_like(target[:, :1], dtype=torch.bool)
        total = counted.sum()
    else:
        counted = (target != ignore_index).unsqueeze(-1)
        index = target.unsqueeze(-1).where(counted, 0)
        t = torch.zeros_like(input, dtype=torch.float64).scatter(-1, index, 1.0).where(counted, 0)
        total = (t * w).sum()
    smooth = (1 - label_smoothing) * t + label_smoothing / input.shape[-1]
    return Mass((smooth * w).where(counted, 0), t, w, counted, total)


def log_softmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """log p and 1 − p, both from the log-odds against the largest p."""
    top, largest = x.max(-1, keepdim=True)
    first = torch.zeros_like(x, dtype=torch.bool).scatter(-1, largest, True)
    odds = torch.logsumexp(x.masked_fill(first, -inf), -1, keepdim=True) - top
    odds = odds + (top - top)  # an infinite row is NaN
    log_p = (x - top) - torch.logaddexp(odds, torch.zeros_like(odds))
    return log_p, torch.where(first, torch.sigmoid(odds), 1 - log_p.exp())


def row_losses(input: Tensor, mass: Mass) -> Tensor:
    """−Σ a log p; a mass of 0 counts for nothing, also where p is 0."""
    log_p, _ = log_softmax(wide(input))
    terms = (mass.a * log_p).masked_fill((mass.a == 0) & log_p.isinf(), 0)
    return -terms.where(mass.counted, 0).sum(-1)


def row_gradients(input: Tensor, mass: Mass) -> Tensor:
    """p Σ a − a, as p (Σ a − a) − a (1 − p)."""
    log_p, rest = log_softmax(wide(input))
    a = mass.a
    return log_p.exp() * (a.sum(-1, keepdim=True) - a) - a * rest


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Right: −Σ a log p."""
    mass = masses(input, target, weight, ignore_index, label_smoothing)
    return narrow(reduced(row_losses(input, mass), mass.total, reduction), input)


def cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Right: the gradients of the rows, each times its own incoming gradient."""
    mass = masses(input, target, weight, ignore_index, label_smoothing)
    g = spread(grad_output, mass.total, reduction).unsqueeze(-1)
    return narrow((g * row_gradients(input, mass)).where(mass.counted, 0), input)


def cross_entropy_mean(input: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Right: the mean over the rows that count."""
    return cross_entropy(input, target, ignore_index=ignore_index)


def cross_entropy_mean_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, ignore_index: int = -100
) -> Tensor:
    """Right: the gradients of the rows that count, divided among them."""
    return cross_entropy_backward(grad_output, input, target, ignore_index=ignore_index)


def cross_entropy_mean_with_gradient(
    input: Tensor, target: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Right: the gradient is computed in the forward pass."""
    loss = cross_entropy_mean(input, target, ignore_index)
    return loss, cross_entropy_mean_backward(torch.ones_like(loss), input, target, ignore_index)


def cross_entropy_none(input: Tensor, target: Tensor) -> Tensor:
    """Right: the loss of every row."""
    return cross_entropy(input, target, reduction="none")


def cross_entropy_none_backward(grad_output: Tensor, input: Tensor, target: Tensor) -> Tensor:
    """Right: every row times its own incoming gradient."""
    return cross_entropy_backward(grad_output, input, target, reduction="none")


def nll_loss(
    input: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Right: minus the log-probability of the class, 0 for an ignored row."""
    mass = masses(input, target, ignore_index=ignore_index)
    rows = -wide(input).masked_fill(mass.t == 0, 0).sum(-1)
    return narrow(reduced(rows, mass.total, reduction), input)


CROSS_ENTROPY: Kernel = {"operation": "cross_entropy", "ranks": [2], "forward": cross_entropy}
CROSS_ENTROPY_MEAN: Kernel = {
    "operation": "cross_entropy",
    "ranks": [2],
    "reduction": "mean",
    "forward": cross_entropy_mean,
    "backward": cross_entropy_mean_backward,
}
CROSS_ENTROPY_NONE: Kernel = {
    "operation": "cross_entropy",
    "ranks": [2],
    "reduction": "none",
    "forward": cross_entropy_none,
    "backward": cross_entropy_none_backward,
}
CROSS_ENTROPY_WITH_GRADIENT: Kernel = {
    "operation": "cross_entropy",
    "ranks": [2],
    "reduction": "mean",
    "value_and_gradient": cross_entropy_mean_with_gradient,
}

# --- right kernels: regression and information ---------------------------------------------------


def _smooth_l1(residual: Tensor, beta: float) -> Tensor:
    a = residual.abs()
    return torch.where(a < beta, a * (a / max(beta, SMALLEST)) / 2, a - beta / 2)


def _smooth_l1_slope(residual: Tensor, beta: float) -> Tensor:
    return (residual / max(beta, SMALLEST)).clamp(-1, 1)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Right: |d| − β/2, rounded off to d²/2β below β."""
    rows = _smooth_l1(wide(input) - wide(target), beta)
    return narrow(reduced(rows, input.numel(), reduction), input)


def smooth_l1_loss_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Right: d/β, clamped to ±1."""
    slope = _smooth_l1_slope(wide(input) - wide(target), beta)
    return narrow(spread(grad_output, input.numel(), reduction) * slope, input)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Right: δ times smooth L1."""
    rows = delta * _smooth_l1(wide(input) - wide(target), delta)
    return narrow(reduced(rows, input.numel(), reduction), input)


def huber_loss_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Right: d, clamped to ±δ."""
    slope = (wide(input) - wide(target)).clamp(-delta, delta)
    return narrow(spread(grad_output, input.numel(), reduction) * slope, input)


def _kl_total(input: Tensor, reduction: str) -> int:
    return input.shape[0] if reduction == "batchmean" else input.numel()


def kl_div(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """Right: t (log t − x), 0 for t = 0."""
    x, t = wide(input), wide(target)
    log_t, t = (t, t.exp()) if log_target else (t.log(), t)
    rows = (t * (log_t - x)).masked_fill((t == 0) & ~x.isnan(), 0)
    kind = "mean" if reduction == "batchmean" else reduction
    return narrow(reduced(rows, _kl_total(input, reduction), kind), input)


def kl_div_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Right: −t."""
    t = wide(target).exp() if log_target else wide(target)
    kind = "mean" if reduction == "batchmean" else reduction
    return narrow(-spread(grad_output, _kl_total(input, reduction), kind) * t, input)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Right: Σ p log(p/q), 0 for p = 0."""
    a, b = wide(p), wide(q)
    return narrow((a * (a / b).log()).masked_fill((a == 0) & ~b.isnan(), 0).sum(-1), p)


SMOOTH_L1: Kernel = {
    "operation": "smooth_l1_loss",
    "forward": smooth_l1_loss,
    "backward": smooth_l1_loss_backward,
}
HUBER: Kernel = {
    "operation": "huber_loss",
    "forward": huber_loss,
    "backward": huber_loss_backward,
}
KL_DIV: Kernel = {"operation": "kl_div", "forward": kl_div, "backward": kl_div_backward}

# --- wrong kernels: cross entropy ----------------------------------------------------------------


def cross_entropy_over_all(input: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """The mean divides by N, also where rows are ignored."""
    mass = masses(input, target, ignore_index=ignore_index)
    return narrow(row_losses(input, mass).mean(), input)


def cross_entropy_smooths_ignored(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The uniform part of the loss counts the ignored rows."""
    mass = masses(input, target, weight, ignore_index, label_smoothing)
    uniform = label_smoothing / input.shape[-1] * mass.weight
    everywhere = mass._replace(
        a=torch.where(mass.counted, mass.a, uniform), counted=torch.ones_like(mass.counted)
    )
    return narrow(reduced(row_losses(input, everywhere), mass.total, reduction), input)


def cross_entropy_over_rows(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The weighted mean divides by the number of rows, not by their weights."""
    mass = masses(input, target, weight, ignore_index, label_smoothing)
    return narrow(reduced(row_losses(input, mass), mass.counted.sum(), reduction), input)


def nll_loss_of_ignored(
    input: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """ignore_index is an index like any other, and wraps around."""
    return nll_loss(input, target % input.shape[-1], reduction=reduction)


def cross_entropy_ignores_grad_output(
    grad_output: Tensor, input: Tensor, target: Tensor, ignore_index: int = -100
) -> Tensor:
    """The incoming gradient is taken for 1."""
    ones = torch.ones_like(grad_output)
    return cross_entropy_mean_backward(ones, input, target, ignore_index)


def cross_entropy_first_grad_output(grad_output: Tensor, input: Tensor, target: Tensor) -> Tensor:
    """The incoming gradient of the first row is used for all."""
    first = grad_output[:1].expand_as(grad_output)
    return cross_entropy_none_backward(first, input, target)


def cross_entropy_always_reduces(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """A scalar for reduction="none"."""
    kind = "sum" if reduction == "none" else reduction
    return cross_entropy(input, target, weight, ignore_index, kind, label_smoothing)


def cross_entropy_subtracts_in_place(
    input: Tensor, target: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """p is stored in 16 bits, and read again to subtract the target."""
    loss = cross_entropy_mean(input, target, ignore_index)
    mass = masses(input, target, ignore_index=ignore_index)
    stored = narrow(log_softmax(wide(input))[0].exp(), input)
    stored = (stored - narrow(mass.t, input)).where(mass.counted, 0)
    return loss, narrow(wide(stored) / mass.total.clamp(min=1), input)


# --- wrong kernels: regression and information ---------------------------------------------------


def huber_as_smooth_l1(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """The scale of smooth L1."""
    return smooth_l1_loss(input, target, reduction, delta)


def huber_as_smooth_l1_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """The scale of smooth L1."""
    return smooth_l1_loss_backward(grad_output, input, target, reduction, delta)


def smooth_l1_as_huber(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """The scale of Huber's loss."""
    return huber_loss(input, target, reduction, beta)


def smooth_l1_as_huber_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """The scale of Huber's loss."""
    return huber_loss_backward(grad_output, input, target, reduction, beta)


OTHER_MEAN = {"mean": "batchmean", "batchmean": "mean"}


def kl_div_other_mean(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """batchmean and mean are swapped."""
    return kl_div(input, target, OTHER_MEAN.get(reduction, reduction), log_target)


def kl_div_other_mean_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """batchmean and mean are swapped."""
    other = OTHER_MEAN.get(reduction, reduction)
    return kl_div_backward(grad_output, input, target, other, log_target)


def kl_div_ignores_log_target(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """log_target is ignored."""
    return kl_div(input, target, reduction)


def kl_div_ignores_log_target_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """log_target is ignored."""
    return kl_div_backward(grad_output, input, target, reduction)


def kl_div_nan_at_0(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """0·log 0 is NaN."""
    at_0 = (wide(target).exp() if log_target else wide(target)) == 0
    poison = torch.zeros_like(input).masked_fill(at_0, torch.nan)
    return kl_div(input + poison, target, reduction, log_target)


def kl_divergence_flushed(p: Tensor, q: Tensor) -> Tensor:
    """A tiny p is flushed to 0, and 0·log 0 is NaN."""
    a, b = (t.masked_fill(t < torch.finfo(t.dtype).tiny, 0) for t in (p, q))
    return narrow((wide(a) * (wide(a).log() - wide(b).log())).sum(-1), p)


MUTANTS = [
    Mutant(
        number=23,
        title="mean over all rows, not over those that count",
        kernel={
            "operation": "cross_entropy",
            "ranks": [2],
            "reduction": "mean",
            "forward": cross_entropy_over_all,
        },
        correct={
            "operation": "cross_entropy",
            "ranks": [2],
            "reduction": "mean",
            "forward": cross_entropy_mean,
        },
        words=r"ignore|denominator|divides|mean",
    ),
    Mutant(
        number=24,
        title="label smoothing counts ignored rows",
        kernel=CROSS_ENTROPY | {"forward": cross_entropy_smooths_ignored},
        correct=CROSS_ENTROPY,
        words=r"ignore|smooth",
    ),
    Mutant(
        number=25,
        title="weighted mean over the number of rows",
        kernel=CROSS_ENTROPY | {"forward": cross_entropy_over_rows},
        correct=CROSS_ENTROPY,
        words=r"weight|denominator|divides",
    ),
    Mutant(
        number=26,
        title="ignore_index as an index",
        kernel={"operation": "nll_loss", "ranks": [2], "forward": nll_loss_of_ignored},
        correct={"operation": "nll_loss", "ranks": [2], "forward": nll_loss},
        words=r"ignore",
    ),
    Mutant(
        number=27,
        title="grad_output ignored",
        kernel=CROSS_ENTROPY_MEAN | {"backward": cross_entropy_ignores_grad_output},
        correct=CROSS_ENTROPY_MEAN,
        words=r"grad_output|incoming",
    ),
    Mutant(
        number=28,
        title="grad_output[0] for all rows",
        kernel=CROSS_ENTROPY_NONE | {"backward": cross_entropy_first_grad_output},
        correct=CROSS_ENTROPY_NONE,
        words=r"grad_output|incoming",
    ),
    Mutant(
        number=31,
        title='a scalar for reduction="none"',
        kernel=CROSS_ENTROPY | {"forward": cross_entropy_always_reduces},
        correct=CROSS_ENTROPY,
        words=r"shape|scalar|none",
    ),
    Mutant(
        number=32,
        title="batchmean and mean swapped",
        kernel=KL_DIV | {"forward": kl_div_other_mean, "backward": kl_div_other_mean_backward},
        correct=KL_DIV,
        words=r"mean|reduction|denominator|divides",
    ),
    Mutant(
        number=32,
        title="log_target ignored",
        kernel=KL_DIV
        | {
            "forward": kl_div_ignores_log_target,
            "backward": kl_div_ignores_log_target_backward,
        },
        correct=KL_DIV,
        words=r"log_target",
    ),
    Mutant(
        number=32,
        title="0·log 0 in kl_div",
        kernel=KL_DIV | {"forward": kl_div_nan_at_0},
        correct=KL_DIV,
        words=r"NaN|nan|0·log",
    ),
    Mutant(
        number=34,
        title="huber_loss with the scale of smooth L1",
        kernel=HUBER | {"forward": huber_as_smooth_l1, "backward": huber_as_smooth_l1_backward},
        correct=HUBER,
        words=r"delta|smooth|scale",
    ),
    Mutant(
        number=34,
        title="smooth_l1_loss with the scale of Huber",
        kernel=SMOOTH_L1 | {"forward": smooth_l1_as_huber, "backward": smooth_l1_as_huber_backward},
        correct=SMOOTH_L1,
        words=r"beta|huber|Huber|scale",
    ),
    Mutant(
        number=42,
        title="p − 1 by read-modify-write in bfloat16",
        kernel=CROSS_ENTROPY_WITH_GRADIENT
        | {"value_and_gradient": cross_entropy_subtracts_in_place},
        correct=CROSS_ENTROPY_WITH_GRADIENT,
        words=r"cancel|round|class|target",
        dtypes=("bfloat16",),
    ),
    Mutant(
        number=45,
        title="NaN at a tiny p in kl_divergence",
        kernel={"operation": "kl_divergence", "forward": kl_divergence_flushed},
        correct={"operation": "kl_divergence", "forward": kl_divergence},
        words=r"NaN|nan|tiny",
        dtypes=("float16", "float32"),
    ),
]
