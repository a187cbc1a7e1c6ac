"""How many float32 inputs a sweep compares in a second: one compiled pass over 2^24 of them."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from gradref.declare.registry import operations
from gradref.sweep.chunks import SIZE
from gradref.sweep.sweep import Sweep

HALF = 0x3F
"""The chunk from 0.5 to 2: ordinary numbers."""


@pytest.mark.parametrize("quantity", ["value", "derivative", "second_derivative"])
@pytest.mark.parametrize("name", ["sigmoid", "silu", "gelu"])
def test_inputs_per_second(benchmark: BenchmarkFixture, name: str, quantity: str) -> None:
    torch.set_num_threads(2)
    comparison = Sweep(operations(name)[0], {}, quantity, "float32", "cpu").comparison(1e-8)
    comparison.run(HALF, None)  # compiled
    _, tally = benchmark(comparison.run, HALF, None)
    assert tally.worst <= 0.5
    if benchmark.stats is not None:
        benchmark.extra_info["inputs per second"] = SIZE / benchmark.stats["median"]
