"""Kinds of failure: at which inputs a result is wrong, and where torch's are no better.

People do not agree on what a kernel has to do at every input: beyond the normal range of the
arithmetic, at infinities, or with the sign of a zero. What torch itself gets wrong there may be let
pass; a wrong number at an ordinary input may not.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from gradref.judge.gates import Kind, Mask
from gradref.truth.jets import Floats

NEIGHBOURS = 16
"""Inputs on each side among which torch's largest error counts: rounding errors are random."""


def kinds(exceeds: Mask, signs: Mask, special: Mask, out_of_range: Mask) -> dict[Kind, Mask]:
    """Return which results fail in which way: each in one only."""
    return {
        "wrong": exceeds & ~special & ~out_of_range,
        "range": exceeds & ~special & out_of_range,
        "special": exceeds & special,
        "zero's sign": signs & ~exceeds,
    }


def out_of_range(x: Floats, truth: Floats, dtype: torch.dtype) -> Mask:
    """Return where the truth, or a usual intermediate result, leaves the normal range.

    Those are x², exp |x| and the truth without a factor of x or x², in float64 where that is the
    dtype and in float32 elsewhere; a truth that is exactly 0 is an ordinary number.
    """
    info = torch.finfo(dtype if dtype is torch.float64 else torch.float32)
    largest = 1.2 * np.log(info.max)  # of which an exponential is no subnormal number
    with np.errstate(all="ignore"):
        size, square = np.abs(truth), np.square(x)
        factor = np.clip(square, 1.0, largest**2)
        least = np.fmax(info.smallest_normal * factor, torch.finfo(dtype).smallest_normal)
        is_small = size < least
        is_large = (square > info.max) | (np.abs(x) > np.log(info.max))
        return np.asarray((is_small & (truth != 0)) | is_large | (size > torch.finfo(dtype).max))


def no_worse(ulp: Floats, theirs: Floats, order: Floats, alone: Mask) -> Mask:
    """Return which errors are at most twice torch's: at the same input, or next to it in ``order``.

    What is ``alone`` has no neighbours: an infinity, NaN or a kink, and rows.
    """
    usual = np.where(alone, 0.0, theirs)
    rank = np.argsort(order, kind="stable")
    padded = np.pad(usual[rank], NEIGHBOURS)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    near = np.empty_like(usual)
    near[rank] = windows.max(-1)
    return np.asarray(ulp / 2 <= np.where(alone, theirs, near))


def any_of(masks: Iterable[Mask], like: Floats) -> Mask:
    """Return which results are in any of the masks."""
    found = np.zeros(like.shape, dtype=bool)
    for mask in masks:
        found |= mask
    return found
