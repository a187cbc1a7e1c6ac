"""Softmax and cross entropy of rows in Triton, to compare the compiled kernels with on a GPU.

Up to ``ON_CHIP`` classes a row is read once, exponentiated once and written once; beyond, its
maximum and its sum are found together (online softmax), and it is read again.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

ON_CHIP = 1 << 16
BLOCK_BEYOND = 1 << 13
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def softmax_on_chip(
    x_ptr: tl.tensor,
    g_ptr: tl.tensor,
    p_ptr: tl.tensor,
    out_ptr: tl.tensor,
    columns: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Store p = exp(x - max x) / Σ exp, and p (g - Σ p g)"""
    lane = tl.arange(0, block)
    at, inside = tl.program_id(0).to(tl.int64) * columns + lane, lane < columns
    x = tl.load(x_ptr + at, inside, float("-inf")).to(tl.float32)
    g = tl.load(g_ptr + at, inside, 0.0).to(tl.float32)
    e = tl.exp(x - tl.max(x, 0))
    p = e / tl.sum(e, 0)
    tl.store(p_ptr + at, p, inside)
    tl.store(out_ptr + at, p * (g - tl.sum(p * g, 0)), inside)


@triton.jit
def loss_of(others: tl.tensor, total: tl.tensor, of_target: tl.tensor) -> tl.tensor:
    """Return log total - x[target]; as an accurate log(1 + others) if the target is the maximum"""
    log1p = tl.where(total == 1.0, others, tl.log(total) * (others / (total - 1.0)))
    return tl.where(of_target == 0.0, log1p, tl.log(total) - of_target)


@triton.jit
def cross_entropy_on_chip(
    x_ptr: tl.tensor,
    target_ptr: tl.tensor,
    loss_ptr: tl.tensor,
    out_ptr: tl.tensor,
    columns: tl.tensor,
    scale: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Store log Σ exp(x) - x[target], and scale (p - [target]), at the target minus the other p"""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, block)
    at, inside = row * columns + lane, lane < columns
    is_target = lane == tl.load(target_ptr + row)
    x = tl.load(x_ptr + at, inside, float("-inf")).to(tl.float32)
    shifted = x - tl.max(x, 0)
    e = tl.exp(shifted)
    others = tl.sum(tl.where(is_target, 0.0, e), 0)
    of_target = tl.sum(tl.where(is_target, shifted, 0.0), 0)
    total = others + tl.exp(of_target)
    tl.store(loss_ptr + row, loss_of(others, total, of_target))
    tl.store(out_ptr + at, tl.where(is_target, -others, e) * (scale / total), inside)


@triton.jit
def cross_entropy_online(
    x_ptr: tl.tensor,
    target_ptr: tl.tensor,
    loss_ptr: tl.tensor,
    out_ptr: tl.tensor,
    columns: tl.tensor,
    scale: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Store the same for a row that is read twice: the sum is rescaled when the maximum grows"""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, block)
    target = tl.load(target_ptr + row)
    x_ptr += row * columns
    out_ptr += row * columns
    of_target = tl.load(x_ptr + target).to(tl.float32)
    top = of_target
    others = tl.zeros((), tl.float32)
    for start in range(0, columns, block):
        x = tl.load(x_ptr + start + lane, start + lane < columns, float("-inf")).to(tl.float32)
        new_top = tl.maximum(top, tl.max(x, 0))
        e = tl.where(start + lane == target, 0.0, tl.exp(x - new_top))
        others = others * tl.exp(top - new_top) + tl.sum(e, 0)
        top = new_top
    total = others + tl.exp(of_target - top)
    tl.store(loss_ptr + row, loss_of(others, total, of_target - top))
    for start in range(0, columns, block):
        inside = start + lane < columns
        x = tl.load(x_ptr + start + lane, inside, float("-inf")).to(tl.float32)
        slope = tl.where(start + lane == target, -others, tl.exp(x - top))
        tl.store(out_ptr + start + lane, slope * (scale / total), inside)


def _launched(kernel: Any, rows: int) -> Any:
    return (kernel if INTERPRETED else wrap_triton(kernel))[(rows,)]


def _warps(block: int) -> int:
    """Return the number of warps: a thread for every 16 numbers, as far as a program may have."""
    return max(4, min(32, block // 512))


@triton_op("gradref::softmax_rows", mutates_args={})
def softmax_rows(x: Tensor, grad_output: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax of rows of at most ``ON_CHIP`` numbers, and its vector-Jacobian product."""
    p, out = torch.empty_like(x), torch.empty_like(x)
    block = int(triton.next_power_of_2(x.shape[1]))
    launch = _launched(softmax_on_chip, x.shape[0])
    launch(x, grad_output, p, out, x.shape[1], block=block, num_warps=_warps(block))
    return p, out


@triton_op("gradref::cross_entropy_rows", mutates_args={})
def cross_entropy_rows(x: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the loss of every row, and ``scale`` times its gradient."""
    rows, columns = x.shape
    loss, out = x.new_empty(rows, dtype=torch.float32), torch.empty_like(x)
    fits = columns <= ON_CHIP
    block = int(triton.next_power_of_2(columns)) if fits else BLOCK_BEYOND
    launch = _launched(cross_entropy_on_chip if fits else cross_entropy_online, rows)
    launch(x, target, loss, out, columns, scale, block=block, num_warps=_warps(block))
    return loss, out
