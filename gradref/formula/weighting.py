"""Weights of the terms of a sum, and the sum."""

from __future__ import annotations

import torch
from torch import Tensor

from gradref.arrays import reject


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return weight times value; a weight of 0 gives 0, also where the value is infinite."""
    if weight is None:
        return values
    return torch.where((weight == 0) & values.isinf(), 0.0, weight * values)


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Return values, their mean or their sum: of a composition in torch, which has no reduction.

    Raises ValueError for another reduction.
    """
    check_reduction(reduction)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def check_reduction(reduction: str) -> None:
    """Raise ValueError for what is none of torch's reductions."""
    if reduction not in ("none", "mean", "sum"):
        reject("reduction", repr(reduction), "one of 'none', 'mean', 'sum'")
