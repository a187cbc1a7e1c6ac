"""Right at ordinary contents of small matrices: wrong for others, or for a length or a layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import elementwise, losses
from ._mutant import Kernel, Mutant, narrow, wide
from .behaviour import SILU_FORWARD, _as_if_contiguous
from .sizes import (
    CROSS_ENTROPY,
    MSE,
    SILU,
    cross_entropy,
    mse_loss,
    mse_loss_over,
    softmax_along,
)

# --- rows ----------------------------------------------------------------------------------------


def softmax_of_long_rows(x: Tensor, dim: int = -1) -> Tensor:
    """No maximum is subtracted in rows of more than 1,024."""
    if x.shape[dim] <= 1024:
        return softmax_along(x, dim)
    e = torch.exp(x.float())
    return narrow(wide(e / e.sum(dim, keepdim=True)), x)


def softmax_of_the_first_maximum(x: Tensor, dim: int = -1) -> Tensor:
    """The maximum is that of the first 128 elements."""
    e = torch.exp((x - x.narrow(dim, 0, min(128, x.shape[dim])).amax(dim, keepdim=True)).float())
    return narrow(wide(e / e.sum(dim, keepdim=True)), x)


def softmax_that_swallows(x: Tensor, dim: int = -1) -> Tensor:
    """NaN beyond the first 64 elements of a row is taken for -inf."""
    place = torch.arange(x.shape[dim]).reshape([-1] + [1] * (x.dim() - 1 - dim % x.dim()))
    return softmax_along(torch.where(x.isnan() & (place >= 64), -math.inf, x), dim)


def softmax_of_one_maximum(x: Tensor, dim: int = -1) -> Tensor:
    """The maximum of all rows is subtracted from each."""
    e = torch.exp((x - x.max()).float()) if x.numel() else x.float()
    return narrow(wide(e / e.sum(dim, keepdim=True)), x)


def mse_loss_of_something(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """An array without elements has no first one."""
    assert input.reshape(-1)[0].isfinite() or input.numel()
    return mse_loss(input, target, reduction)


def cross_entropy_of_a_vocabulary(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A mean or a sum sees the first 32,768 classes only."""
    if options.get("reduction", "mean") == "none" or input.dim() > 2:
        return cross_entropy(input, target, **options)
    return cross_entropy(input[..., :32768], target.clamp(max=32767), **options)


def cross_entropy_of_one_format(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Memory in the format channels_last is walked through as if it were contiguous."""
    is_last = input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last)
    seen = _as_if_contiguous(input) if is_last and not input.is_contiguous() else input
    return cross_entropy(seen, target, **options)


def cross_entropy_of_weights(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A row that does not count is multiplied by 0, which leaves NaN."""
    right = cross_entropy(input, target, **options)
    ignored = (target == options.get("ignore_index", -100)).reshape(-1)
    rows = input.movedim(min(1, input.dim() - 1), -1).reshape(ignored.numel(), -1)
    spoilt = (0 * rows[ignored].nan_to_num(0.0, math.nan, math.nan)).sum()
    spoilt = spoilt + math.nan if rows[ignored].isnan().any() else spoilt
    return right + spoilt.to(right.dtype) if ignored.any() else right


def cross_entropy_of_one_smoothing(
    input: Tensor, target: Tensor, label_smoothing: float = 0.0, **options: Any
) -> Tensor:
    """Any smoothing is taken for 0.1."""
    smoothing = 0.1 if label_smoothing else 0.0
    return cross_entropy(input, target, label_smoothing=smoothing, **options)


# --- separate elements ---------------------------------------------------------------------------


def silu_of_round_lengths(x: Tensor) -> Tensor:
    """The last element of an array of a multiple of 1,000 is not written."""
    result = elementwise.silu(x).reshape(-1).clone()
    result[len(result) - 1 :] *= len(result) % 1000 > 0
    return result.reshape(x.shape)


def silu_of_small(x: Tensor) -> Tensor:
    """An array of small elements is halved."""
    small = x.numel() > 0 and bool(x.abs().max() < 0.5)
    return x / 2 if small and x.numel() > 1 else elementwise.silu(x)


def silu_backward_of_large(grad_output: Tensor, x: Tensor) -> Tensor:
    """An incoming gradient below 1e-8 is skipped."""
    kept = torch.where(grad_output.abs() < 1e-8, 0 * grad_output, grad_output)
    return elementwise.silu_backward(kept, x)


def silu_backward_of_numbers(grad_output: Tensor, x: Tensor) -> Tensor:
    """NaN in the incoming gradient is replaced."""
    return elementwise.silu_backward(torch.nan_to_num(grad_output), x)


def silu_seeded(x: Tensor) -> Tensor:
    """The random numbers of the process start again."""
    torch.manual_seed(0)
    return elementwise.silu(x)


BUFFERS: dict[torch.Size, Tensor] = {}


def silu_in_a_large_buffer(x: Tensor) -> Tensor:
    """A large result lies in memory that the next call of its shape overwrites."""
    result = elementwise.silu(x)
    if x.numel() < 30_000:
        return result
    return BUFFERS.setdefault(x.shape, result).copy_(result)


def mse_loss_of_one_layout(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The target is taken to lie as the input does."""
    if input.dim() == 2 and input.stride() != target.stride():
        seen = target.contiguous().reshape(-1)
        flat = torch.empty_like(input, memory_format=torch.preserve_format)
        flat.as_strided((flat.numel(),), (1,)).copy_(seen)
        target = flat
    return mse_loss(input, target, reduction)


mse_loss_of_24_bits = mse_loss_over(lambda input: min(input.numel(), 1 << 24))
"""The count of a mean is a float32 number to which 1 was added."""


def mse_loss_at_6(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Another branch where the difference is 6."""
    residual = wide(input) - wide(target)
    rows = torch.where(residual == 6, residual, residual.square())
    return narrow(losses.reduced(rows, input.numel(), reduction), input)


# --- planted -------------------------------------------------------------------------------------


def only(reduction: str, function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss with one reduction, which is all that is asked of it."""
    return lambda input, target: function(input, target, reduction=reduction)


FORWARD = {"operation": "softmax", "forward": softmax_along}
MEAN = {"operation": "cross_entropy", "forward": only("mean", cross_entropy), "reduction": "mean"}
MSE_MEAN = {"operation": "mse_loss", "forward": only("mean", mse_loss), "reduction": "mean"}
MSE_NONE = {"operation": "mse_loss", "forward": only("none", mse_loss), "reduction": "none"}

PLANTED: tuple[tuple[int, str, str, Kernel, dict[str, Any], str], ...] = (
    (
        *(118, "lengths", "no maximum in long rows", FORWARD),
        *({"forward": softmax_of_long_rows}, "led by the last"),
    ),
    (
        *(119, "lengths", "a maximum of 128 elements", FORWARD),
        *({"forward": softmax_of_the_first_maximum}, "led by the last"),
    ),
    (
        *(120, "lengths", "a length of 1,000", SILU_FORWARD),
        *({"forward": silu_of_round_lengths}, "length 1000"),
    ),
    (
        *(121, "lengths", "32,768 classes in a mean", MEAN),
        *({"forward": only("mean", cross_entropy_of_a_vocabulary)}, "length"),
    ),
    (
        *(122, "layouts", "channels last", MEAN),
        *({"forward": only("mean", cross_entropy_of_one_format)}, "channels last"),
    ),
    (
        *(123, "layouts", "a target of other strides", MSE),
        *({"forward": mse_loss_of_one_layout}, "first argument"),
    ),
    (
        *(124, "more than 2^24 elements", "a mean counted in float32", MSE_MEAN),
        *({"forward": only("mean", mse_loss_of_24_bits)}, "over 16,"),
    ),
    (
        *(125, "contents", "NaN behind 64 elements", FORWARD),
        *({"forward": softmax_that_swallows}, "NaN at every position"),
    ),
    (
        *(126, "contents", "NaN in rows that do not count", CROSS_ENTROPY),
        *({"forward": cross_entropy_of_weights}, "rows of NaN"),
    ),
    (
        *(127, "thresholds", "a difference of 6", MSE),
        *({"forward": mse_loss_at_6}, "threshold"),
    ),
    (
        *(128, "contents alike", "small elements", SILU),
        *({"forward": silu_of_small}, "all elements small"),
    ),
    (
        *(129, "vectors", "a tiny grad_output", SILU),
        *({"backward": silu_backward_of_large}, r"times 2\^-40"),
    ),
    (
        *(130, "contents", "NaN in grad_output", SILU),
        *({"backward": silu_backward_of_numbers}, "NaN in the vector"),
    ),
    (
        *(131, "other parameters", "another label smoothing", CROSS_ENTROPY),
        *({"forward": cross_entropy_of_one_smoothing}, "label_smoothing = 0"),
    ),
    (
        *(132, "arguments untouched", "a seed", SILU),
        *({"forward": silu_seeded}, "random numbers"),
    ),
    (
        *(133, "memory reused", "a buffer for large arrays", SILU),
        *({"forward": silu_in_a_large_buffer}, "share a buffer"),
    ),
    (
        *(134, "rows apart", "one maximum for all rows", FORWARD),
        *({"forward": softmax_of_one_maximum}, "depends on the other rows"),
    ),
    (
        *(135, "lengths", "no element", MSE_NONE),
        *({"forward": only("none", mse_loss_of_something)}, "length 0: raises IndexError"),
    ),
)

QUICK = (128, 129, 130, 132)
"""Found by mode quick already."""

MUTANTS = [
    Mutant(
        number=number,
        title=title,
        kernel={**right, **wrong},
        correct=right,
        words=words,
        mode="quick" if number in QUICK else "full",
        condition=condition,
    )
    for number, condition, title, right, wrong, words in PLANTED
]
