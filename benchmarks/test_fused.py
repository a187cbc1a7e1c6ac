"""Fused kernels against autograd and the bound: paired rounds, as ratios of one run.

    pytest benchmarks --benchmark-enable -n 0

These machines are shared: what counts are the ratios in the ``extra_info`` of each benchmark,
medians of paired rounds with a bootstrap interval, never a time of one machine against another's.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from gradref.bench.results import SIZES, run
from gradref.bench.subjects import OURS, Subject
from gradref.declare.registry import operations

HOT = ("sigmoid", "silu", "gelu", "softmax", "cross_entropy", "mse_loss")


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOT)
def test_value_and_derivative(benchmark: BenchmarkFixture, name: str, size: str, kind: str) -> None:
    torch.set_num_threads(2)
    elements = SIZES[size] if benchmark.enabled else 1 << 10
    subject = Subject(operations(name)[0], kind, "cpu", elements)
    if benchmark.enabled:
        benchmark.extra_info |= {n: asdict(r) for n, r in run(subject).ratios.items()}
    else:
        subject.check()
    benchmark(subject.contenders[OURS])


@pytest.mark.parametrize("exponent", [10, 13, 16, 20, 24, 27])
@pytest.mark.parametrize("name", ["sigmoid", "mse_loss"])
def test_growth(benchmark: BenchmarkFixture, name: str, exponent: int) -> None:
    """The time for an element: flat once no cache holds the arrays."""
    torch.set_num_threads(2)
    size = 1 << (exponent if benchmark.enabled else 10)
    subject = Subject(operations(name)[0], "float32", "cpu", size)
    benchmark(subject.contenders[OURS])
    if benchmark.stats is not None:
        benchmark.extra_info["ns per element"] = benchmark.stats["median"] / size * 1e9
