"""How a check is made: how much is tried, and what a kernel may be off by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gradref.check.choices import Gate, Kinks, Mode

CLAIM = {torch.float16: 1.0, torch.bfloat16: 1.0, torch.float32: 4.0, torch.float64: 4.0}
"""The error in ulp that a kernel may have where it claims nothing itself.

What careful code reaches that computes a 16-bit format in float32 and rounds once, and float32
or float64 in itself.
"""

ACCUMULATOR = {
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-24,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}
"""The unit roundoff that a kernel is expected to compute with."""

POINTS: Mapping[Mode, Mapping[torch.dtype, int]] = {
    "link": {torch.float32: 2_000, torch.float64: 2_000},
    "quick": {torch.float32: 40_000, torch.float64: 20_000},
    "full": {torch.float32: 400_000, torch.float64: 100_000},
    "exhaustive": {torch.float32: 400_000, torch.float64: 100_000},
}
"""Elementwise inputs; a 16-bit format is tried in whole, but by "link"."""

LINK_POINTS = 2_000

ROWS: Mapping[Mode, tuple[tuple[int, ...], int]] = {
    "link": ((1, 3), 14),
    "quick": ((1, 3, 5), 63),
    "full": ((1, 2, 3, 5, 8), 350),
    "exhaustive": ((1, 2, 3, 5, 8), 350),
}
"""Lengths of the rows that Arb judges, and how many of each."""


@dataclass(frozen=True)
class Options:
    """What a check is asked for.

    ``claim`` is in ulp, None for the default of each dtype; ``conditions`` are the hostile ones,
    None for those modes that have them.
    """

    mode: Mode = "quick"
    seed: int = 0
    claim: float | None = None
    kinks: Kinks = "torch"
    gate: Gate = "standard"
    device: str = "cpu"
    conditions: bool | None = None

    @property
    def is_hostile(self) -> bool:
        """Whether hostile conditions are tried."""
        if self.conditions is None:
            return self.mode in ("full", "exhaustive")
        return self.conditions

    def bound(self, dtype: torch.dtype) -> float:
        """The error in ulp that is allowed where a result is well conditioned."""
        return CLAIM[dtype] if self.claim is None else self.claim
