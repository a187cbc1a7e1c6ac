"""Plain calls against torch's autograd: paired, interleaved, as ratios of one run.

    pytest benchmarks --benchmark-enable -n 0

These machines are shared: only the median of the ratios of paired rounds is reported, in the
``extra_info`` of each benchmark, never a time of one machine against a time of another.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

import activations
import losses

ROUNDS = 15
SIZES = [2**10, 2**16, 2**20]


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    """torch's time over ours, the median over rounds in which both run, in random order."""
    ratios = []
    for _ in range(ROUNDS):
        if random.random() < 0.5:
            mine, other = seconds(ours), seconds(theirs)
        else:
            other, mine = seconds(theirs), seconds(ours)
        ratios.append(other / mine)
    return statistics.median(ratios)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "gelu"])
def test_derivative(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    x = torch.linspace(-9, 9, size)
    function, derivative = getattr(F, name), getattr(activations, f"{name}_derivative")
    out = torch.empty_like(x)

    def ours() -> Any:
        return derivative(x, out=out)

    def theirs() -> Any:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf).sum(), leaf)[0]

    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-5)
    benchmark.extra_info["autograd / ours"] = median_ratio(ours, theirs)
    benchmark(ours)


@pytest.mark.parametrize("classes", [10, 1000])
def test_cross_entropy_gradient(benchmark: BenchmarkFixture, classes: int) -> None:
    x, target = torch.randn(256, classes), torch.arange(256) % classes
    out = torch.empty_like(x)

    def ours() -> Any:
        return losses.cross_entropy_gradient(x, target, out=out)

    def theirs() -> Any:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(leaf, target), leaf)[0]

    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-6)
    benchmark.extra_info["autograd / ours"] = median_ratio(ours, theirs)
    benchmark(ours)
