"""Time contenders against each other: in rounds, each in random order, as paired ratios.

A time on a shared machine says little. The contenders of one round share the load of the machine,
so that the ratio of two of their times says more: its median over the rounds, with an interval.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

RESAMPLES = 2000
LEAST_SECONDS = 2e-4
"""A contender whose call is shorter is called several times in a round, for at least so long."""


@dataclass(frozen=True)
class Ratio:
    """The median of the paired ratios of all rounds, with a bootstrap interval of 95 %."""

    median: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """The larger distance of the median from an end of the interval."""
        return max(self.high - self.median, self.median - self.low)

    @classmethod
    def of(cls, ratios: np.ndarray, seed: int = 0) -> Ratio:
        """Return median and interval of the ratios of the rounds, by resampling them."""
        drawn = np.random.default_rng(seed).choice(ratios, (RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        return cls(float(np.median(ratios)), float(low), float(high))


def contest(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: str, seed: int = 0
) -> dict[str, list[float]]:
    """Return the seconds that a call of each contender takes, in each round."""
    order, rng = list(contenders), random.Random(seed)
    repeats = {name: _repeats(run, device) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            times[name].append(_seconds(contenders[name], repeats[name], device))
    return times


def ratios(times: Mapping[str, list[float]], of: str) -> dict[str, Ratio]:
    """Return the time of every contender as a multiple of that of ``of``."""
    base = np.array(times[of])
    return {name: Ratio.of(np.array(t) / base) for name, t in times.items()}


def peak_bytes(run: Callable[[], object], device: str) -> int | None:
    """Return the memory that a call takes at its peak, with its results; None if not counted."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    if not CLEAR_REFS.exists():
        return None
    return min(_peak_of_the_process(run) for _ in range(3))  # other threads take memory as well


def _peak_of_the_process(run: Callable[[], object]) -> int:
    CLEAR_REFS.write_text("5")  # the peak is what there is now
    before = _kilobytes("VmRSS")
    run()
    return 1024 * max(0, _kilobytes("VmHWM") - before)


CLEAR_REFS = Path("/proc/self/clear_refs")


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _repeats(run: Callable[[], object], device: str) -> int:
    run()  # compiled, and its memory touched
    once = min(_seconds(run, 1, device) for _ in range(3))
    return max(1, int(np.ceil(LEAST_SECONDS / once)))


def _seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait_for(device)
    return (time.perf_counter() - start) / repeats


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()
