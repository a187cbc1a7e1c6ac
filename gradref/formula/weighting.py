"""Weights of the terms of a sum, and the sum."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return weight times value; a weight of 0 gives 0, also where the value is infinite."""
    if weight is None:
        return values
    return torch.where((weight == 0) & values.isinf(), 0.0, weight * values)


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Return values, their mean or their sum: of a composition in torch, which has no reduction."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
