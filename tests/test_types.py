"""What a type checker says to a user: the kind of a result, and a wrong parameter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SNIPPET = """
from typing import Any, reveal_type

import numpy as np
from torch import Tensor

from activations import gelu, gelu_derivative, silu, softplus_derivative
from gradref.declare import derivative, elementwise
from gradref.declare.operation import Facts
from losses import (
    cross_entropy,
    huber_loss_gradient,
    huber_loss_hessian_diagonal,
    huber_loss_hvp,
    mse_loss_gradient,
)


def use(t: Tensor, a: np.ndarray[Any, Any]) -> None:
    reveal_type(silu(t))  # Tensor
    reveal_type(silu(a))  # ndarray
    reveal_type(silu(1.0))  # float
    reveal_type(gelu(t, approximate="tanh", out=t))  # Tensor
    reveal_type(cross_entropy(t, t, label_smoothing=0.1))  # Tensor
    reveal_type(cross_entropy(input=t, target=t))  # Tensor
    reveal_type(mse_loss_gradient(a, a, wrt="target"))  # ndarray
    reveal_type(huber_loss_gradient(t, t, "sum", 0.5))  # Tensor
    reveal_type(huber_loss_gradient(t, t, delta=0.5, wrt="target"))  # Tensor
    reveal_type(huber_loss_gradient(t, t, grad_output=t))  # Tensor
    reveal_type(huber_loss_gradient(1.0, 2.0, wrt="target"))  # float
    reveal_type(huber_loss_hvp(t, t, t, wrt="target", along="input"))  # Tensor
    reveal_type(huber_loss_hvp(a, a, a))  # ndarray
    huber_loss_gradient(t, t, wrt="inputs")  # error
    huber_loss_gradient(a, a, wrt="weight")  # error
    huber_loss_gradient(t, t, delta="1")  # error
    huber_loss_gradient(t, wrt="input")  # error
    huber_loss_hessian_diagonal(t, t, wrt=1)  # error
    huber_loss_hvp(t, t, t, along="weight")  # error
    huber_loss_hvp(t, t)  # error
    gelu(t, approximate="erf")  # error
    gelu_derivative(t, aproximate="tanh")  # error
    softplus_derivative(t, beta="1")  # error
    silu("text")  # error
    cross_entropy(t)  # error
    cross_entropy(t, t, reduction="avg")  # error


@elementwise(torch=None, truth=lambda x, beta: x, facts=Facts({}))
def mine(x: Tensor, /, beta: float = 1.0) -> Tensor:
    return x


@derivative(mine)  # error
def mine_derivative(x: Tensor, /) -> Tensor:
    return x
"""


def test_mypy_sees_kinds_and_wrong_parameters(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(path)]
    environment = {**os.environ, "MYPYPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = SNIPPET.splitlines()
    reported = re.findall(r"snippet\.py:(\d+): (error|note): (.*)", result.stdout)
    wrong = {int(number) for number, kind, _ in reported if kind == "error"}
    assert wrong == {i for i, line in enumerate(lines, 1) if line.endswith("# error")}
    revealed = {int(n): text for n, _, text in reported if text.startswith("Revealed")}
    for i, line in enumerate(lines, 1):
        if "reveal_type(" in line:
            assert line.rsplit("# ")[-1] in revealed[i]
