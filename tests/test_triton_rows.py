"""The Triton kernels of the benchmarks: right in the interpreter, and compiled without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

INTERPRETED = """
import torch
import losses, activations
from benchmarks import triton_rows

torch.manual_seed(0)
for columns in (5, 300, 1024):
    for beyond in (False, True):
        triton_rows.ON_CHIP = 16 if beyond else 1 << 16
        triton_rows.BLOCK_BEYOND = 64
        x = torch.randn(4, columns) * 5
        t = torch.randint(0, columns, (4,))
        x[0, t[0]] = 80.0  # a certain one: its loss and slope are tiny
        loss, slope = triton_rows.cross_entropy_rows(x, t, 0.25)
        wide = x.double()
        exact = losses.cross_entropy(wide, t, reduction="none")
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-40)
        exact = losses.cross_entropy_gradient(wide, t)
        torch.testing.assert_close(slope.double(), exact, rtol=1e-5, atol=1e-40)
    g = torch.randn(4, columns)
    p, back = triton_rows.softmax_rows(x, g)
    torch.testing.assert_close(p.double(), activations.softmax(wide), rtol=1e-5, atol=1e-40)
    exact = activations.softmax_vjp(wide, g.double())
    torch.testing.assert_close(back.double(), exact, rtol=1e-4, atol=1e-7)
print("agree")
"""

TRACED = """
import torch
from torch._dynamo.backends.common import aot_autograd
from benchmarks import triton_rows


def show(graph, inputs):
    print([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
    return graph


compiled = torch.compile(triton_rows.cross_entropy_rows, backend=aot_autograd(fw_compiler=show))
x, t = torch.empty(4, 100, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
try:
    compiled(x, t, 0.25)
except Exception as problem:  # a meta tensor cannot run, but it can be traced
    print(type(problem).__name__)
"""


def run(script: str, interpreted: bool) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpreted else "0"}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_agree_with_ours_in_the_interpreter() -> None:
    assert run(INTERPRETED, interpreted=True) == "agree\n"


def test_can_be_traced_through() -> None:
    """An operator that torch knows, whose kernel stands in the graph, not behind a curtain."""
    assert "triton_kernel_wrapper" in run(TRACED, interpreted=False)
