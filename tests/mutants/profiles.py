"""Wrong kernels of losses of two numbers: a scale, a clamp and an inner derivative forgotten."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide
from .losses_multilabel import reduced, spread

# --- right ones ----------------------------------------------------------------------------------


def pseudo_huber_loss(
    input: Tensor, target: Tensor, delta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Right: δ² (√(1 + (d/δ)²) − 1), as d² / (1 + √…)."""
    d = wide(input) - wide(target)
    rows = d.square() / (1 + (1 + (d / delta).square()).sqrt())
    return narrow(reduced(rows, reduction), input)


def pseudo_huber_loss_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    delta: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Right: d / √(1 + (d/δ)²)."""
    d = wide(input) - wide(target)
    slope = d / torch.hypot(torch.ones_like(d), d / delta)
    return narrow(spread(grad_output, input.numel(), reduction) * slope, input)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Right: of the variance from eps on."""
    v = wide(var).clamp(min=eps)
    rows = (v.log() + (wide(input) - wide(target)).square() / v) / 2
    rows = rows + log(2 * pi) / 2 if full else rows
    return narrow(reduced(rows, reduction), input)


def gaussian_nll_loss_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Right: (x − t) / v of the variance from eps on."""
    slope = (wide(input) - wide(target)) / wide(var).clamp(min=eps)
    return narrow(spread(grad_output, input.numel(), reduction) * slope, input)


def softcap_cross_entropy(
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Right: cross entropy of c tanh(x/c)."""
    capped = cap * torch.tanh(wide(input) / cap)
    loss = torch.nn.functional.cross_entropy(
        capped, target, ignore_index=ignore_index, reduction=reduction
    )
    return narrow(loss, input)


def softcap_cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Right: the derivative by c tanh(x/c), times 1/cosh²(x/c)."""
    inner = torch.cosh((wide(input) / cap).clamp(-350, 350)).square().reciprocal()
    slope = by_capped_logits(grad_output, input, target, cap, ignore_index, reduction)
    return narrow(slope * inner, input)


def by_capped_logits(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    cap: float,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """Right: the derivative of cross entropy by its logits, c tanh(x/c)."""
    p = torch.softmax(cap * torch.tanh(wide(input) / cap), 1)
    counted = target != ignore_index
    chosen = target.masked_fill(~counted, 0).unsqueeze(1)
    slope = p.scatter_add(1, chosen, -torch.ones_like(p[:, :1]))
    g = wide(grad_output) / (counted.sum() if reduction == "mean" else 1)
    g = (g * counted).unsqueeze(1)
    return slope * g


PSEUDO_HUBER: Kernel = {
    "operation": "pseudo_huber_loss",
    "forward": pseudo_huber_loss,
    "backward": pseudo_huber_loss_backward,
}
GAUSSIAN: Kernel = {
    "operation": "gaussian_nll_loss",
    "forward": gaussian_nll_loss,
    "backward": gaussian_nll_loss_backward,
}
SOFTCAP: Kernel = {
    "operation": "softcap_cross_entropy",
    "ranks": [2],
    "forward": softcap_cross_entropy,
    "backward": softcap_cross_entropy_backward,
}

# --- wrong ones ----------------------------------------------------------------------------------


def pseudo_huber_as_smooth_l1(
    input: Tensor, target: Tensor, delta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Wrong: in the scale of smooth L1, over δ."""
    return pseudo_huber_loss(input, target, delta, reduction) / delta


def gaussian_nll_loss_backward_without_clamp(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Wrong: of the variance as it is, where forward takes eps."""
    return gaussian_nll_loss_backward(grad_output, input, target, var, full, 0.0, reduction)


def softcap_cross_entropy_backward_without_cap(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    cap: float = 30.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Wrong: the derivative by the capped logits."""
    slope = by_capped_logits(grad_output, input, target, cap, ignore_index, reduction)
    return narrow(slope, input)


MUTANTS = [
    Mutant(
        number=153,
        title="pseudo_huber_loss with the scale of smooth L1",
        kernel=PSEUDO_HUBER | {"forward": pseudo_huber_as_smooth_l1},
        correct=PSEUDO_HUBER,
        words=r"delta is ignored|factor of",
    ),
    Mutant(
        number=154,
        title="gaussian_nll_loss clamps the variance in forward only",
        kernel=GAUSSIAN | {"backward": gaussian_nll_loss_backward_without_clamp},
        correct=GAUSSIAN,
        words=r"eps is ignored",
    ),
    Mutant(
        number=155,
        title="softcap_cross_entropy without the derivative of the cap",
        kernel=SOFTCAP | {"backward": softcap_cross_entropy_backward_without_cap},
        correct=SOFTCAP,
        words=r"derivative of the cap is left out",
    ),
]
