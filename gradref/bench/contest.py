"""Contenders timed against each other: interleaved, in random order, as ratios of rounds.

A time on a shared machine says little. Two contenders of one round have met the same neighbours, so
that the ratio of their times says more; its median over the rounds comes with an interval.
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
"""A contender that is faster is called many times over in a round."""


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of all rounds, with a bootstrap interval of 95 %."""

    median: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """The larger half of the interval."""
        return max(self.high - self.median, self.median - self.low)

    @classmethod
    def of(cls, ratios: np.ndarray, seed: int = 0) -> Ratio:
        """Resampled from the ratios of the rounds."""
        drawn = np.random.default_rng(seed).choice(ratios, (RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        return cls(float(np.median(ratios)), float(low), float(high))


def contest(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: str, seed: int = 0
) -> dict[str, list[float]]:
    """The seconds of a call of every contender in every round."""
    order, rng = list(contenders), random.Random(seed)
    repeats = {name: _repeats(run, device) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            times[name].append(_seconds(contenders[name], repeats[name], device))
    return times


def ratios(times: Mapping[str, list[float]], of: str) -> dict[str, Ratio]:
    """How many times the time of ``of`` every contender takes."""
    base = np.array(times[of])
    return {name: Ratio.of(np.array(t) / base) for name, t in times.items()}


def peak_bytes(run: Callable[[], object], device: str) -> int | None:
    """The memory that a call takes at its peak, results included; None where nobody counts it."""
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
