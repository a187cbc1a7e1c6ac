"""Softmax and cross entropy in Triton, forward and backward: one program for each row.

What makes them right: they compute in float32 (float64 for float64) and round once, at the end;
the maximum of a row is subtracted; blocks are padded with -inf, which is no part of a sum; and a
row may be longer than a block.

Run it: ``gradref check examples/kernels/triton_kernels.py --dtype f32,bf16 --mode full``

It passes. On a GPU add ``--device cuda``; without one Triton's interpreter runs the same kernels on
the CPU, for minutes, or for half a minute without ``--mode full``. Needs ``pip install triton``.

The interpreter (of Triton 3.7) truncates to bfloat16 where a GPU rounds, and gets the subnormals
wrong: an ulp in one case, 124 in the other, says ``gradref check``. There the results leave the
kernels in float32, and torch rounds them.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise ImportError("triton is not installed: pip install triton") from error

LONGEST_BLOCK = 4096


@triton.jit
def largest(row_ptr: tl.tensor, columns: tl.tensor, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """max x of a row"""
    lane = tl.arange(0, BLOCK)
    top = tl.full((), float("-inf"), WIDE)
    for start in range(0, columns, BLOCK):
        x = tl.load(row_ptr + start + lane, start + lane < columns, float("-inf"))
        top = tl.maximum(top, tl.max(x.to(WIDE), 0))
    return top


@triton.jit
def softmax_kernel(
    x_ptr: tl.tensor, y_ptr: tl.tensor, columns: tl.tensor, WIDE: tl.constexpr, BLOCK: tl.constexpr
):
    """exp(x - max x) / Σ exp(x - max x)"""
    row = tl.program_id(0).to(tl.int64) * columns
    lane = tl.arange(0, BLOCK)
    top = largest(x_ptr + row, columns, WIDE, BLOCK)
    total = tl.zeros((), WIDE)
    for start in range(0, columns, BLOCK):
        x = tl.load(x_ptr + row + start + lane, start + lane < columns, float("-inf"))
        total += tl.sum(tl.exp(x.to(WIDE) - top), 0)
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        x = tl.load(x_ptr + row + start + lane, inside, float("-inf"))
        y = tl.exp(x.to(WIDE) - top) / total
        tl.store(y_ptr + row + start + lane, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def softmax_backward_kernel(
    g_ptr: tl.tensor,
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    columns: tl.tensor,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """p (g - Σ p g), with p from x again: one that forward has rounded has too few digits."""
    row = tl.program_id(0).to(tl.int64) * columns
    lane = tl.arange(0, BLOCK)
    top = largest(x_ptr + row, columns, WIDE, BLOCK)
    total = tl.zeros((), WIDE)
    dot = tl.zeros((), WIDE)
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        x = tl.load(x_ptr + row + start + lane, inside, float("-inf"))
        g = tl.load(g_ptr + row + start + lane, inside, 0.0)
        e = tl.exp(x.to(WIDE) - top)
        total += tl.sum(e, 0)
        dot += tl.sum(e * g.to(WIDE), 0)
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        x = tl.load(x_ptr + row + start + lane, inside, float("-inf"))
        g = tl.load(g_ptr + row + start + lane, inside, 0.0)
        out = tl.exp(x.to(WIDE) - top) / total * (g.to(WIDE) - dot / total)
        tl.store(out_ptr + row + start + lane, out.to(out_ptr.dtype.element_ty), inside)


@triton.jit
def cross_entropy_kernel(
    x_ptr: tl.tensor,
    target_ptr: tl.tensor,
    loss_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    columns: tl.tensor,
    ignore_index: tl.tensor,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The loss log Σ exp(x) - x[target], not rounded, and its gradient scale (p - [target]).

    At the target p - 1 would cancel: it is minus the sum of the other p.
    """
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row)
    counted = target != ignore_index
    scale = tl.load(scale_ptr + row)
    at_target = tl.load(x_ptr + row * columns + target, counted, 0.0).to(WIDE)
    x_ptr += row * columns
    out_ptr += row * columns
    lane = tl.arange(0, BLOCK)
    top = largest(x_ptr, columns, WIDE, BLOCK)
    others = tl.zeros((), WIDE)
    for start in range(0, columns, BLOCK):
        x = tl.load(x_ptr + start + lane, start + lane < columns, float("-inf"))
        others += tl.sum(tl.where(start + lane == target, 0.0, tl.exp(x.to(WIDE) - top)), 0)
    total = others + tl.exp(at_target - top)
    loss = tl.log(total) + (top - at_target)
    tl.store(loss_ptr + row, tl.where(counted, loss, 0.0))
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        x = tl.load(x_ptr + start + lane, inside, float("-inf"))
        slope = tl.where(start + lane == target, -others, tl.exp(x.to(WIDE) - top)) / total
        out = tl.where(counted, scale * slope, 0.0)
        tl.store(out_ptr + start + lane, out.to(out_ptr.dtype.element_ty), inside)


def wide(x: Tensor) -> torch.dtype:
    """What is computed in."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def result_like(x: Tensor) -> Tensor:
    """Memory for results of the kernels."""
    return torch.empty_like(x, dtype=wide(x) if INTERPRETED else x.dtype)


def constants(x: Tensor) -> dict[str, Any]:
    """What the kernels are compiled for."""
    block = min(triton.next_power_of_2(x.shape[-1]), LONGEST_BLOCK)
    return {"WIDE": tl.float64 if wide(x) is torch.float64 else tl.float32, "BLOCK": block}


def softmax(x: Tensor) -> Tensor:
    """Of the last dimension."""
    x = x.contiguous()
    y = result_like(x)
    softmax_kernel[x.numel() // x.shape[-1],](x, y, x.shape[-1], **constants(x))
    return y.to(x.dtype)


def softmax_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    g, x = grad_output.contiguous(), x.contiguous()
    out = result_like(x)
    softmax_backward_kernel[x.numel() // x.shape[-1],](g, x, out, x.shape[-1], **constants(x))
    return out.to(x.dtype)


def cross_entropy_with_gradient(
    input: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    reduction: Literal["none", "sum", "mean"] = "mean",
) -> tuple[Tensor, Tensor]:
    """The loss of logits (rows, classes) against class indices, and its gradient."""
    input, target = input.contiguous(), target.contiguous()
    rows, columns = input.shape
    scale = torch.ones(rows, dtype=wide(input), device=input.device)
    if reduction == "mean":
        scale /= (target != ignore_index).sum()
    loss, gradient = torch.empty_like(scale), result_like(input)
    cross_entropy_kernel[rows,](
        input, target, loss, scale, gradient, columns, ignore_index, **constants(input)
    )
    if reduction == "mean":
        loss = loss.sum() / (target != ignore_index).sum()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.to(input.dtype), gradient.to(input.dtype)


KERNELS = {
    "softmax": {"forward": softmax, "backward": softmax_backward},
    "cross_entropy": {"value_and_gradient": cross_entropy_with_gradient},
}
