"""Whether this process computes as IEEE 754 and the judge's formulas expect.

A library that is loaded into it, or code that runs in it, may have changed that: one that is built
with ``-ffast-math`` has subnormal numbers treated as 0, in every library of the process.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from flint import ctx

SMALLEST, SMALLEST_NORMAL = 2.0**-1074, 2.0**-1022
HALF_ULP = 2.0**-53
PRECISION = 53
"""Of Arb, in bits, where no code of ours has raised it."""

ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What NumPy does of itself where a result is no number."""


def changes() -> Iterator[str]:
    """Yield, in words, what is not as it should be for truths and errors to be right."""
    one, half = np.float64(1.0), np.float64(HALF_ULP)
    if SMALLEST * one == 0 or SMALLEST_NORMAL * (one / 2) == 0:
        yield "subnormal numbers are treated as 0"
    if one + half != 1 or -one - half != -1 or one + 3 * half != 1 + 4 * HALF_ULP:
        yield "results are not rounded to the nearest number"
    if torch.get_default_dtype() is not torch.float32:
        yield f"torch's default dtype is {torch.get_default_dtype()}"
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        yield "torch records no gradients"
    if ctx.prec != PRECISION:
        yield f"Arb computes with {ctx.prec} bits"
    if np.geterr() != ERRORS:
        yield f"NumPy's errors are {np.geterr()}"
