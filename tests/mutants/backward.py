"""Right derivatives that fail by memory, length or repetition, for every kind of entry.

The forward of each is right, and so is the derivative at a few numbers in fresh memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import elementwise, losses, rowwise
from ._mutant import Kernel, Mutant
from .behaviour import _as_if_contiguous

Backward = Callable[[Tensor, Tensor], Tensor]
Mistake = Callable[[Backward], Backward]

LONG = 1024
"""Elements of a row that one program handles."""

BLOCK = 32
"""Elements of the blocks behind which a tail is left."""

# --- mistakes ------------------------------------------------------------------------------------


def zeroes_grad_output(right: Backward) -> Backward:
    """The incoming gradient is used as scratch memory."""

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        grad_output.zero_()
        return result

    return backward


def writes_over_the_input(right: Backward) -> Backward:
    """The gradient is also written where the input was."""

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        x.detach().copy_(result)
        return result

    return backward


def nothing_for_long_rows(right: Backward) -> Backward:
    """Rows that do not fit one program get no gradient."""

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        return torch.zeros_like(result) if x.shape[-1:] > (LONG,) else result

    return backward


def with_noise(right: Backward) -> Backward:
    """Atomic additions in any order: the last bits differ from call to call."""
    generator = torch.Generator().manual_seed(0)

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        sign = torch.randint(0, 2, result.shape, generator=generator) * 2 - 1
        return result * (1 + sign * torch.finfo(result.dtype).eps).to(result.dtype)

    return backward


def in_one_buffer(right: Backward) -> Backward:
    """Every result is written into the same buffer."""
    buffers: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        return buffers.setdefault((result.shape, result.dtype), result).copy_(result)

    return backward


def cached_by_address(right: Backward) -> Backward:
    """The gradient for an address is kept, whatever is written there since."""
    known: dict[Any, Tensor] = {}

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        key = (x.data_ptr(), grad_output.data_ptr(), x.shape, x.dtype)
        if key not in known:
            known[key] = right(grad_output, x)
        return known[key].clone()

    return backward


def strides_ignored(right: Backward) -> Backward:
    """Memory is walked through from the first element on."""
    return lambda grad_output, x: right(_as_if_contiguous(grad_output), _as_if_contiguous(x))


def strides_of_grad_output_ignored(right: Backward) -> Backward:
    """The incoming gradient is taken for contiguous: that of a sum is one number for all."""
    return lambda grad_output, x: right(_as_if_contiguous(grad_output), x)


def tail_left(right: Backward) -> Backward:
    """n // BLOCK blocks are written, if there is more than one: the rest stays 0."""

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        flat = result.reshape(-1)
        done = flat.numel() // BLOCK * BLOCK
        if done:
            flat = torch.cat([flat[:done], torch.zeros_like(flat[done:])])
        return flat.reshape(result.shape)

    return backward


def unwritten(right: Backward) -> Backward:
    """What is not positive is left as the memory was."""

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        out = torch.empty_like(result)
        written = ~(result <= 0)
        out[written] = result[written]
        return out

    return backward


def of_the_shape_before(right: Backward) -> Backward:
    """The number of rows is that of the call before."""
    rows = [1]

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        result = right(grad_output, x)
        if x.dim() == 2:
            result = torch.cat([result[: rows[-1]], torch.zeros_like(result[rows[-1] :])])
            rows.append(len(x))
        return result

    return backward


def spoilt_by_an_exception(right: Backward) -> Backward:
    """A state that an exception leaves behind is never put right."""
    broken: list[bool] = []

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        broken.append(True)
        if x.is_complex():
            raise TypeError("complex numbers have no order")
        broken.pop()
        result = right(grad_output, x)
        return torch.zeros_like(result) if broken else result

    return backward


def in_shared_scratch(right: Backward) -> Backward:
    """All threads use one scratch buffer for the product with the incoming gradient."""
    scratch: dict[str, Tensor] = {}

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        scratch["x"] = x
        time.sleep(5e-3)  # other threads have their turn here
        return right(grad_output, scratch["x"])

    return backward


def third_call_wrong(right: Backward) -> Backward:
    """The third call overtakes the second one's buffer."""
    count = [0]

    def backward(grad_output: Tensor, x: Tensor) -> Tensor:
        count[0] += 1
        result = right(grad_output, x)
        return result * (2 if count[0] % 4 == 3 else 1)

    return backward


MISTAKES: dict[int, tuple[str, Mistake, str, str]] = {
    46: (
        "grad_output zeroed",
        zeroes_grad_output,
        "arguments untouched",
        r"writes into (grad_output|tangent)",
    ),
    47: (
        "input overwritten",
        writes_over_the_input,
        "arguments untouched",
        r"writes into (x|input)|modified by an inplace",
    ),
    48: (
        "no gradient for long rows",
        nothing_for_long_rows,
        "lengths",
        r"length 10\d\d|length 20|length 409",
    ),
    49: ("noise in the last bits", with_noise, "repeated", r"not deterministic"),
    50: (
        "one buffer for all results",
        in_one_buffer,
        "memory reused",
        r"share a buffer|not deterministic",
    ),
    51: (
        "gradient cached by address",
        cached_by_address,
        "memory reused",
        r"cached by address|calls of two shapes",
    ),
    52: ("strides ignored", strides_ignored, "layouts", r"strides are ignored"),
    53: (
        "strides of grad_output ignored",
        strides_of_grad_output_ignored,
        "layouts",
        r"strides are ignored",
    ),
    54: ("tail left", tail_left, "lengths", r"tail|length 33|results are wrong"),
    55: (
        "not positive, not written",
        unwritten,
        "memory poisoned",
        r"uninitialised|memory|not deterministic",
    ),
    56: (
        "number of rows of the call before",
        of_the_shape_before,
        "calls in turn",
        r"rows|length|results are wrong",
    ),
    57: (
        "spoilt by an exception",
        spoilt_by_an_exception,
        "calls in turn",
        r"call after one|calls of two shapes",
    ),
    58: ("scratch shared by threads", in_shared_scratch, "two threads", r"two threads"),
    59: (
        "every third call wrong",
        third_call_wrong,
        "repeated",
        r"not deterministic|too large by a factor of 2",
    ),
}
"""By number: what happens in a backward, the condition that shows it, and what is said of it."""

# --- kinds of entries ----------------------------------------------------------------------------


def as_function(forward: Callable[[Tensor], Tensor], backward: Backward) -> Callable[..., Tensor]:
    """An autograd.Function, called as a function that torch differentiates."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]  # one argument
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]  # one
            (x,) = ctx.saved_tensors
            return backward(grad_output, x)

    def function(x: Tensor) -> Tensor:
        result: Tensor = Function.apply(x)
        return result

    return function


def silu_function(mistake: Mistake) -> Kernel:
    backward = mistake(elementwise.silu_backward)
    return {"operation": "silu", "function": as_function(elementwise.silu, backward)}


def silu_pair(mistake: Mistake) -> Kernel:
    backward = mistake(elementwise.silu_backward)
    return {"operation": "silu", "forward": elementwise.silu, "backward": backward}


def silu_jvp(mistake: Mistake) -> Kernel:
    product = mistake(elementwise.silu_backward)
    return {
        "operation": "silu",
        "forward": elementwise.silu,
        "jvp": lambda x, tangent: product(tangent, x),
    }


def silu_fused(mistake: Mistake) -> Kernel:
    slope = mistake(elementwise.silu_backward)
    return {
        "operation": "silu",
        "value_and_gradient": lambda x: (elementwise.silu(x), slope(torch.ones_like(x), x)),
    }


def softmax_function(mistake: Mistake) -> Kernel:
    backward = mistake(rowwise.softmax_backward)
    return {"operation": "softmax", "function": as_function(rowwise.softmax, backward)}


def cross_entropy_pair(mistake: Mistake) -> Kernel:
    def backward(grad_output: Tensor, input: Tensor, target: Tensor) -> Tensor:
        rows = mistake_of_rows(grad_output, input)
        return rows(target)

    def mistake_of_rows(grad_output: Tensor, input: Tensor) -> Callable[[Tensor], Tensor]:
        def of(target: Tensor) -> Tensor:
            held.append(target)
            try:
                return wrong(grad_output, input)
            finally:
                held.pop()

        return of

    held: list[Tensor] = []
    wrong = mistake(lambda g, x: losses.cross_entropy_none_backward(g, x, held[-1]))
    return {
        "operation": "cross_entropy",
        "ranks": [2],
        "forward": losses.cross_entropy_none,
        "backward": backward,
        "reduction": "none",
    }


def nothing_wrong(right: Backward) -> Backward:
    return right


KINDS: dict[str, tuple[Callable[[Mistake], Kernel], tuple[int, ...]]] = {
    "autograd.Function": (silu_function, tuple(number for number in MISTAKES if number != 57)),
    "backward": (silu_pair, tuple(MISTAKES)),
    "jvp": (silu_jvp, (46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 59)),
    "value and gradient": (silu_fused, (47, 48, 49, 50, 54, 55, 57, 59)),
    "softmax, autograd.Function": (softmax_function, (46, 47, 48, 50, 53, 55, 56, 58)),
    "cross entropy": (cross_entropy_pair, (46, 47, 48, 49, 50, 54, 55, 56, 57)),
}
"""The kinds of entries, and the mistakes that each is planted with."""

MUTANTS = [
    Mutant(
        number=number,
        title=f"{MISTAKES[number][0]} ({kind})",
        kernel=kernel(MISTAKES[number][1]),
        correct=right,
        words=MISTAKES[number][3],
        condition=MISTAKES[number][2],
    )
    for kind, (kernel, numbers) in KINDS.items()
    for right in [kernel(nothing_wrong)]
    for number in numbers
]
