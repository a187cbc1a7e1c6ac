"""Weights of the terms of a sum, and the sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradref.arrays import enter, reject, widen


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
    check_choice("reduction", reduction, "none", "mean", "sum")


def check_choice(name: str, given: Any, *wanted: str) -> None:
    """Raise ValueError for an argument that is none of some words."""
    if given not in wanted:
        reject(name, repr(given), "one of " + ", ".join(map(repr, wanted)))


def times_grad_output(scale: Tensor, grad_output: Any, shape: tuple[int, ...]) -> Tensor:
    """Return ``scale`` times a ``grad_output``, or as it is for None.

    Raises ValueError for a ``grad_output`` of another shape than the reduced loss.
    """
    if grad_output is None:
        return scale
    backward, _ = enter("grad_output", grad_output)
    if backward.shape != shape:
        reject("grad_output", f"shape {tuple(backward.shape)}", f"shape {tuple(shape)}")
    return scale * widen(backward)
