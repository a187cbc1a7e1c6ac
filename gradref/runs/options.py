"""How a check is made: how much is tried, and what a kernel may be off by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from gradref.judge import gates
from gradref.judge.gates import Gate
from gradref.runs.choices import GateName, Kinks, Mode

POINTS: Mapping[Mode, Mapping[torch.dtype, int]] = {
    "link": {torch.float32: 2_000, torch.float64: 2_000},
    "quick": {torch.float32: 40_000, torch.float64: 20_000},
    "full": {torch.float32: 400_000, torch.float64: 100_000},
    "exhaustive": {torch.float32: 400_000, torch.float64: 100_000},
}
"""Elementwise inputs; a 16-bit format is tried in whole, but by "link"."""

LINK_POINTS = 2_000

ROW_SAMPLES: Mapping[Mode, tuple[tuple[int, ...], int]] = {
    "link": ((1, 3), 14),
    "quick": ((1, 3, 5), 63),
    "full": ((1, 2, 3, 5, 8), 350),
    "exhaustive": ((1, 2, 3, 5, 8), 350),
}
"""Lengths of the rows that Arb judges, and how many of each."""

CALLS: Mapping[Mode, int] = {"link": 2, "quick": 8, "full": 24, "exhaustive": 24}
"""Calls of a loss of a batch."""


@dataclass(frozen=True)
class Options:
    """What a check is asked for.

    ``claim`` is in ulp, None for the default of each dtype; ``conditions`` names the hostile ones
    that are tried, at the sizes of the mode; None for those of the mode. ``range`` is that of the
    arguments, None for what each kernel declares.
    """

    mode: Mode = "quick"
    seed: int = 0
    claim: float | None = None
    kinks: Kinks = "torch"
    gate: GateName = "standard"
    device: str = "cpu"
    conditions: Collection[str] | None = None
    range: tuple[float, float] | None = None

    def held_to(self) -> Gate:
        """Return the gate of the kernels."""
        return gates.of_kernel(self.claim, self.gate, self.kinks)
