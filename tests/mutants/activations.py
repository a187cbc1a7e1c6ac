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


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Right: towards 0 from both sides."""
    t = wide(x)
    return narrow(t.sign() * (t.abs() - lambd).clamp(min=0), x)


def tanhshrink(x: Tensor) -> Tensor:
    """Right: x³/3 − 2x⁵/15 + ... near 0, the difference elsewhere."""
    t = wide(x)
    u = t.square()
    near = t * u * (1 / 3 - u * (2 / 15 - u * (17 / 315 - u * 62 / 2835)))
    return narrow(torch.where(t.abs() < 0.02, near, t - torch.tanh(t)), x)


def swiglu(x: Tensor) -> Tensor:
    """Right: silu of the first half times the second."""
    a, b = wide(x).chunk(2, -1)
    return narrow(F.silu(a) * b, x)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Right: rows over their root mean square."""
    t = wide(x)
    return narrow(t / (t.square().mean(-1, keepdim=True) + eps).sqrt() * wide(weight), x)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Right: of all rows one weight."""
    t = wide(x)
    return narrow(torch.where(t > 0, t, wide(weight) * t), x)


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


def softshrink_one_way(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Wrong: λ is subtracted below 0 as well."""
    t = wide(x)
    return narrow(torch.where(t.abs() > lambd, t - lambd, 0 * t), x)


def tanhshrink_in_float32(x: Tensor) -> Tensor:
    """Wrong: the difference, of which nothing is left near 0."""
    return x - torch.tanh(x)


def swiglu_with_slope_of_sigmoid(x: Tensor) -> Tensor:
    """Wrong: the derivative of the logistic function for that of silu."""
    a, b = wide(x).chunk(2, -1)
    gate = torch.sigmoid(a)
    return narrow((gate + (F.silu(a) - gate).detach()) * b, x)


def rms_norm_uncoupled(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Wrong: the derivative takes the root mean square for a constant."""
    t = wide(x)
    root = (t.square().mean(-1, keepdim=True) + eps).sqrt()
    return narrow(t / root.detach() * wide(weight), x)


def prelu_of_the_first_row(x: Tensor, weight: Tensor) -> Tensor:
    """Wrong: the weight's gradient is that of one row, not the sum over all."""
    t, w = wide(x), wide(weight).expand_as(x)
    alone = torch.cat([w[:1], w[1:].detach()])
    return narrow(torch.where(t > 0, t, alone * t), x)


# --- the list ------------------------------------------------------------------------------------


def _values(operation: str, kernel: object) -> Kernel:
    return {"operation": operation, "forward": kernel}


def _backward(operation: str, kernel: object) -> Kernel:
    return {"operation": operation, "backward": kernel}


def _function(operation: str, kernel: object) -> Kernel:
    return {"operation": operation, "function": kernel}


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
    Mutant(
        number=143,
        title="softshrink subtracts λ below 0",
        kernel=_values("softshrink", softshrink_one_way),
        correct=_values("softshrink", softshrink),
        words=r"for x in|x <=",
    ),
    Mutant(
        number=144,
        title="tanhshrink as a difference in float32",
        kernel=_values("tanhshrink", tanhshrink_in_float32),
        correct=_values("tanhshrink", tanhshrink),
        words=r"cancels|absolute error|exactly 0",
    ),
    Mutant(
        number=145,
        title="swiglu with σ′ for silu′",
        kernel=_function("swiglu", swiglu_with_slope_of_sigmoid),
        correct=_function("swiglu", swiglu),
        words=r"formula|constant|wrong|every",
    ),
    Mutant(
        number=146,
        title="rms_norm without the row's coupling",
        kernel=_function("rms_norm", rms_norm_uncoupled),
        correct=_function("rms_norm", rms_norm),
        words=r"root mean square is taken for a constant",
    ),
    Mutant(
        number=147,
        title="prelu's weight gradient not summed over rows",
        kernel=_function("prelu", prelu_of_the_first_row),
        correct=_function("prelu", prelu),
        words=r"row|sum|formula",
    ),
]
