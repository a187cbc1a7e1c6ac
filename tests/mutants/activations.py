"""Mistakes in the activations with pieces, gates and differences, as trackers have them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide

# --- right kernels -------------------------------------------------------------------------------


def hardswish_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: g (2x + 3)/6 inside of ±3, and 0 and g at and beyond them."""
    t = wide(x)
    slope = torch.where(t.abs() >= 3, (t > 0).double(), (2 * t + 3) / 6)
    return narrow(wide(grad_output) * torch.where(t.isnan(), t, slope), x)


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Right: 0 up to λ, and at it."""
    return torch.where(wide(x).abs() <= lambd, 0.0, x)


def hardsigmoid(x: Tensor) -> Tensor:
    """Right: (x + 3)/6 within 0 and 1."""
    return narrow((wide(x).clamp(-3, 3) + 3) / 6, x)


def selu(x: Tensor) -> Tensor:
    """Right: with the α of Klambauer et al."""
    return narrow(F.selu(wide(x)), x)


def mish_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: in float64, with sech² of softplus from exponentials that do not overflow."""
    t = wide(x).clamp(-700, 300)
    e = torch.exp(t)
    n = e * (e + 2)
    slope = n / (n + 2) + t * 4 * e * (1 + e) / (n + 2).square()
    return narrow(wide(grad_output) * torch.where(t >= 40, 1.0, slope), x)


def glu(x: Tensor) -> Tensor:
    """Right: the first half times the logistic function of the second."""
    a, b = wide(x).chunk(2, -1)
    e = torch.exp(-b.abs())
    return narrow(a * torch.where(b < 0, e, 1.0) / (1 + e), x)


# --- wrong ones ----------------------------------------------------------------------------------


def hardswish_backward_open_at_3(grad_output: Tensor, x: Tensor) -> Tensor:
    """Wrong: the parabola's slope at ±3 too."""
    t = wide(x)
    slope = torch.where(t.abs() > 3, (t > 0).double(), (2 * t + 3) / 6)
    return narrow(wide(grad_output) * torch.where(t.isnan(), t, slope), x)


def hardshrink_closed(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Wrong: ±λ is kept."""
    return torch.where(wide(x).abs() < lambd, 0.0, x)


def hardsigmoid_of_keras(x: Tensor) -> Tensor:
    """Wrong: 0.2 x + 0.5, which is another function of this name."""
    return narrow((0.2 * wide(x) + 0.5).clamp(0, 1), x)


def selu_with_elus_alpha(x: Tensor) -> Tensor:
    """Wrong: α = 1."""
    return narrow(1.0507009873554805 * F.elu(wide(x)), x)


def mish_backward_by_tanh(grad_output: Tensor, x: Tensor) -> Tensor:
    """Wrong: 1 − tanh for 1 − tanh²."""
    gate = torch.tanh(F.softplus(x))
    return grad_output * (gate + x * (1 - gate) * torch.sigmoid(x))


def glu_halves_swapped(x: Tensor) -> Tensor:
    """Wrong: the second half times the logistic function of the first."""
    return glu(torch.cat(x.chunk(2, -1)[::-1], -1))


# --- the list ------------------------------------------------------------------------------------


def _values(operation: str, kernel: object) -> Kernel:
    return {"operation": operation, "forward": kernel}


def _backward(operation: str, kernel: object) -> Kernel:
    return {"operation": operation, "backward": kernel}


MUTANTS = [
    Mutant(
        number=137,
        title="hardswish open at ±3",
        kernel=_backward("hardswish", hardswish_backward_open_at_3),
        correct=_backward("hardswish", hardswish_backward),
        words=r"kink 3|kink -3",
    ),
    Mutant(
        number=138,
        title="hardshrink keeps ±λ",
        kernel=_values("hardshrink", hardshrink_closed),
        correct=_values("hardshrink", hardshrink),
        words=r"kink",
    ),
    Mutant(
        number=139,
        title="the hard sigmoid of Keras",
        kernel=_values("hardsigmoid", hardsigmoid_of_keras),
        correct=_values("hardsigmoid", hardsigmoid),
        words=r"formula|constant",
    ),
    Mutant(
        number=140,
        title="selu with the α of elu",
        kernel=_values("selu", selu_with_elus_alpha),
        correct=_values("selu", selu),
        words=r"factor|formula|for x <=|for x in",
    ),
    Mutant(
        number=141,
        title="mish′ with 1 − tanh for 1 − tanh²",
        kernel=_backward("mish", mish_backward_by_tanh),
        correct=_backward("mish", mish_backward),
        words=r"formula|constant",
    ),
    Mutant(
        number=142,
        title="glu with its halves swapped",
        kernel=_values("glu", glu_halves_swapped),
        correct=_values("glu", glu),
        words=r"halves|wrong|off by|formula|every",
    ),
]
