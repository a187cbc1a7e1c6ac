"""Right formulas in kernels that fail by length, layout, memory, repetition, or that cheat."""

from __future__ import annotations

import torch
from torch import Tensor

from . import elementwise, losses, rowwise
from ._mutant import Mutant, narrow, wide
from .elementwise import RELU, SILU

BLOCK = 128
"""Elements that a program of a blocked kernel handles."""

VECTOR = 8
"""Elements that a vector instruction handles."""

SIGMOID_FORWARD = {"operation": "sigmoid", "forward": elementwise.sigmoid}
SILU_FORWARD = {"operation": "silu", "forward": elementwise.silu}

# --- right kernels of their own ------------------------------------------------------------------


def tanh(x: Tensor) -> Tensor:
    """Right: from e⁻²ᵃ − 1, odd."""
    t = wide(x)
    decay = torch.expm1(-2 * t.abs())
    return narrow(torch.copysign(decay / (2 + decay), t), x)


def tanh_jvp(x: Tensor, tangent: Tensor) -> Tensor:
    """Right: the tangent over cosh²."""
    return narrow(wide(tangent) / torch.cosh(wide(x)).square(), x)


TANH = {"operation": "tanh", "forward": tanh}
TANH_JVP = TANH | {"jvp": tanh_jvp}

# --- work that is not done -----------------------------------------------------------------------


def tanh_no_op(x: Tensor) -> Tensor:
    """Nothing is computed: right for zeros, which zero weights make of any input."""
    return x.clone()


def tanh_ignores_tangent(x: Tensor, tangent: Tensor) -> Tensor:
    """The tangent is taken for 1."""
    return tanh_jvp(x, torch.ones_like(tangent))


def sigmoid_without_tail(x: Tensor) -> Tensor:
    """n // BLOCK programs are launched: the tail stays 0."""
    flat = x.reshape(-1)
    done = flat.numel() // BLOCK * BLOCK
    out = torch.zeros_like(flat)
    out[:done] = elementwise.sigmoid(flat[:done])
    return out.reshape(x.shape)


def relu_into_fresh_memory(x: Tensor) -> Tensor:
    """Only positive elements are written: fresh memory is taken for zeros."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    written = ~(x <= 0)
    out[written] = x[written]
    return out


def sigmoid_recycled(x: Tensor) -> Tensor:
    """Nothing is computed: the memory may still hold a result of the reference."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def silu_with_garbage(x: Tensor) -> Tensor:
    """Every 25th element is garbage."""
    lane = torch.arange(x.numel(), device=x.device).reshape(x.shape) % 25
    return torch.where(lane == 24, 1 - x, elementwise.silu(x))


# --- layout --------------------------------------------------------------------------------------


def _as_if_contiguous(x: Tensor) -> Tensor:
    """What a kernel reads that walks through memory from the first element on."""
    held = int(x.untyped_storage().nbytes() // x.element_size() - x.storage_offset())
    index = torch.arange(x.numel(), device=x.device) % max(held, 1)
    return x.as_strided((held,), (1,))[index].reshape(x.shape)


def silu_ignores_strides(x: Tensor) -> Tensor:
    """Strides are ignored."""
    return elementwise.silu(_as_if_contiguous(x))


def silu_ignores_strides_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Strides are ignored."""
    return elementwise.silu_backward(_as_if_contiguous(grad_output), _as_if_contiguous(x))


def relu_two_branches(x: Tensor) -> Tensor:
    """NaN stays NaN in the vector body and gives 0 in the tail."""
    flat = x.reshape(-1)
    body, tail = flat.tensor_split([flat.numel() // VECTOR * VECTOR])
    return torch.cat([body.clamp(min=0), torch.where(tail > 0, tail, 0.0)]).reshape(x.shape)


# --- arguments that are written to ---------------------------------------------------------------


def cross_entropy_gradient_over_input(
    input: Tensor, target: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """The gradient is written over the logits."""
    loss, gradient = losses.cross_entropy_mean_with_gradient(input, target, ignore_index)
    return loss, input.detach().copy_(gradient)


def softmax_backward_in_place(grad_output: Tensor, x: Tensor) -> Tensor:
    """The incoming gradient is overwritten."""
    return grad_output.copy_(rowwise.softmax_backward(grad_output, x))


def tanh_zeroes_its_input(x: Tensor) -> Tensor:
    """0 for an input that is 0 by now, so that a reference of the same input agrees."""
    return x.detach().zero_().clone()


# --- calls that are not alike --------------------------------------------------------------------

_RESULTS: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}


def silu_cached(x: Tensor) -> Tensor:
    """The result for an address is kept, whatever is written there since."""
    key = (x.data_ptr(), x.shape, x.dtype)
    if key not in _RESULTS:
        _RESULTS[key] = elementwise.silu(x)
    return _RESULTS[key].clone()


_SCHEDULER = torch.Generator().manual_seed(0)


def softmax_in_any_order(x: Tensor) -> Tensor:
    """The row is summed in float32, in the order in which its parts happen to be done."""
    t = wide(x)
    e = torch.exp(t - t.amax(-1, keepdim=True))
    order = torch.randperm(x.shape[-1], generator=_SCHEDULER)
    total = e.float()[..., order].sum(-1, keepdim=True)
    return narrow(e / wide(total), x)


MUTANTS = [
    Mutant(
        number=2,
        title="a no-op that passes on zero weights",
        kernel=TANH | {"forward": tanh_no_op},
        correct=TANH,
        words=r"identity|its (input|argument)|unchanged|no-op",
        scale=0.0,
    ),
    Mutant(
        number=18,
        title="the tail of n % BLOCK elements is left",
        kernel=SIGMOID_FORWARD | {"forward": sigmoid_without_tail},
        correct=SIGMOID_FORWARD,
        words=r"tail|block|length|last",
        mode="full",
    ),
    Mutant(
        number=19,
        title="strides ignored",
        kernel=SILU | {"forward": silu_ignores_strides, "backward": silu_ignores_strides_backward},
        correct=SILU,
        words=r"stride|contiguous|layout",
        mode="full",
    ),
    Mutant(
        number=20,
        title="NaN in the vector body and in the tail",
        kernel=RELU | {"forward": relu_two_branches},
        correct=RELU,
        words=r"NaN|nan",
        mode="full",
    ),
    Mutant(
        number=27,
        title="tangent ignored",
        kernel=TANH_JVP | {"jvp": tanh_ignores_tangent},
        correct=TANH_JVP,
        words=r"tangent",
    ),
    Mutant(
        number=29,
        title="gradient written over the input",
        kernel=losses.CROSS_ENTROPY_WITH_GRADIENT
        | {"value_and_gradient": cross_entropy_gradient_over_input},
        correct=losses.CROSS_ENTROPY_WITH_GRADIENT,
        words=r"overwr|writes|mutat|modif|changes its input",
        mode="full",
    ),
    Mutant(
        number=30,
        title="backward overwrites the incoming gradient",
        kernel=rowwise.SOFTMAX | {"backward": softmax_backward_in_place},
        correct=rowwise.SOFTMAX,
        words=r"overwr|writes|mutat|modif|grad_output",
        mode="full",
    ),
    Mutant(
        number=36,
        title="4 % of the elements are garbage",
        kernel=SILU_FORWARD | {"forward": silu_with_garbage},
        correct=SILU_FORWARD,
        words=r"\b4(\.\d+)? ?%|some elements|every 25|position|scattered|garbage",
    ),
    Mutant(
        number=37,
        title="result cached by address",
        kernel=SILU_FORWARD | {"forward": silu_cached},
        correct=SILU_FORWARD,
        words=r"cache|stale|address|same buffer",
        mode="full",
    ),
    Mutant(
        number=38,
        title="mutates its input so that the reference agrees",
        kernel=TANH | {"forward": tanh_zeroes_its_input},
        correct=TANH,
        words=r"overwr|writes|mutat|modif|changes its input",
        mode="full",
    ),
    Mutant(
        number=39,
        title="recycled memory of the reference",
        kernel=SIGMOID_FORWARD | {"forward": sigmoid_recycled},
        correct=SIGMOID_FORWARD,
        words=r"uninitiali|never writ|poison|memory",
        mode="full",
    ),
    Mutant(
        number=41,
        title="output elements that are not written",
        kernel=RELU | {"forward": relu_into_fresh_memory},
        correct=RELU,
        words=r"uninitiali|never writ|poison|memory",
        mode="full",
    ),
    Mutant(
        number=43,
        title="a sum in any order",
        kernel=rowwise.FORWARD | {"forward": softmax_in_any_order},
        correct=rowwise.FORWARD,
        words=r"determin|repeat|bits|same input",
        mode="full",
    ),
]
