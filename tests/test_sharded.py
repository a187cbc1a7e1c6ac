"""Cross entropy over classes that are spread over 1, 2 and 3 processes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flint import ctx
from sharded_cross_entropy import CLASSES, cases, split
from torch import Tensor

import losses
from gradref.declare.operation import operation
from gradref.judge.ulp import errors, to_floats
from gradref.truth.hessians import BITS, derivatives, rounded_to_balls
from gradref.truth.jets import Balls
from losses import sharded

pytestmark = pytest.mark.xdist_group("sharded")

CHILD = Path(__file__).parent / "sharded_cross_entropy.py"
SENT = {torch.float64: 8, torch.float32: 4, torch.bfloat16: 4}
"""Bytes of a number on the wire."""


CANCELS = {"smoothed", "everything", "-inf, smoothed", "far from 0"}
"""With label smoothing a gradient is the difference A p − a."""


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "error", "-m", "torch.distributed.run"]
    command += [
        f"--nproc-per-node={request.param}",
        f"--master-port={random.randrange(20000, 60000)}",
    ]
    run = subprocess.run(
        [*command, str(CHILD), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def whole(ranks: list[dict[str, Any]], name: str) -> tuple[Tensor, Tensor]:
    """The loss, the same on all ranks, and the gradient of all classes."""
    parts = [rank["cases"][name] for rank in ranks]
    for part in parts:
        torch.testing.assert_close(part["loss"], parts[0]["loss"], rtol=0, atol=0, equal_nan=True)
    gradients = [part["gradient"] for part in parts]
    return parts[0]["loss"], torch.cat(gradients, dim=min(1, gradients[0].dim() - 1))


def off(got: Tensor, truth: Tensor, size: Tensor | None = None) -> float:
    """The worst error in ulp, of the truth or of a larger size."""
    error = errors(to_floats(got), Balls(to_floats(truth), np.zeros(truth.shape)), got.dtype)
    if size is not None:
        error = error * np.fmin(1.0, to_floats(truth.abs() / size))
    return float(error.max())


@pytest.mark.parametrize("name", cases())
def test_agrees_with_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    input, target, options = split(cases()[name][1])
    loss, gradient = whole(ranks, name)
    assert loss.dtype == gradient.dtype == input.dtype
    wide = input.double()
    expected = losses.cross_entropy(wide, target, **options)
    slope = losses.cross_entropy_gradient(wide, target, **options)
    bound = 8.0 if input.dtype is torch.float64 else 2.0
    assert off(loss, expected) <= bound
    size = torch.full_like(slope, 1 / CLASSES) if name in CANCELS else None
    assert off(gradient, slope, size) <= bound
    assert all(rank["cases"][name]["agree"] for rank in ranks)


def test_is_near_the_truth(ranks: list[dict[str, Any]]) -> None:
    """As Arb knows it, also where a probability is near 1."""
    truth = operation(losses.cross_entropy).truth
    for name in ("none", "certain"):
        input, target, _ = split(cases()[name][1])
        arrays = {"input": to_floats(input), "target": target.numpy()}
        parameters = {"weight": None, "ignore_index": -100, "label_smoothing": 0.0}
        exact = derivatives(truth, arrays, ["input"], parameters)
        loss, gradient = whole(ranks, name)
        for got, terms in ((loss, exact.value), (gradient, exact.jacobian)):
            with ctx.workprec(BITS):
                balls = rounded_to_balls(terms.sum(1))
            assert errors(to_floats(got), balls, torch.float32).max() <= 2.0


@pytest.mark.parametrize("name", cases())
def test_sends_a_few_numbers_a_row_once(ranks: list[dict[str, Any]], name: str) -> None:
    input, target, options = split(cases()[name][1])
    numbers = 5 if options.get("label_smoothing") else 3
    for rank in ranks:
        (gather,) = rank["cases"][name]["forward"]
        assert gather == ("_allgather_base_", target.numel() * numbers * SENT[input.dtype])
        assert rank["cases"][name]["backward"] == []


def test_a_dtensor_is_taken_as_by_loss_parallel(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        ours, pair, torchs = (rank["dtensor"][name] for name in ("ours", "pair", "torch"))
        for result in ("loss", "gradient"):
            torch.testing.assert_close(ours[result], torchs[result])
            assert torch.equal(ours[result], pair[result])


def test_one_process_is_one_shard() -> None:
    input, target, _ = split(cases()["none"][1])
    loss, gradient = sharded.cross_entropy_and_gradient(input, target)
    assert off(loss, losses.cross_entropy(input.double(), target)) <= 2.0
    assert off(gradient, losses.cross_entropy_gradient(input.double(), target)) <= 2.0
    assert sharded.cross_entropy(input, torch.full((6,), 10)).isnan(), "a class that nobody has"


def test_gradient_is_that_of_the_loss() -> None:
    input, target, _ = split(cases()["float64"][1])
    weight = torch.linspace(0, 2, CLASSES, dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        options = {"weight": weight, "reduction": reduction, "label_smoothing": 0.2}
        leaf = input.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, o=options: sharded.cross_entropy(x, target, **o), leaf
        )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(())}, TypeError, "input: got a float32 tensor of shape ()"),
        ({"input": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "input: got a int64"),
        ({"target": torch.zeros(2)}, TypeError, "target: got a float32 tensor"),
        ({"target": torch.tensor(1)}, ValueError, "target: got shape (), wants shape (2,)"),
        ({"weight": torch.ones(2)}, ValueError, "weight: got shape (2,), wants shape (3,)"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing: got 2.0"),
        ({"first_class": 1}, ValueError, "first_class, num_classes: got 3 classes from 1 on, of 3"),
    ],
)
def test_says_what_does_not_fit(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"input": torch.zeros(2, 3), "target": torch.zeros(2, dtype=torch.int64), **change}
    for function in (sharded.cross_entropy, sharded.cross_entropy_and_gradient):
        with pytest.raises(error, match=re.escape(words)):
            function(**arguments)


def test_refuses_what_torch_differentiates() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match="a tensor that torch differentiates"):
        sharded.cross_entropy_and_gradient(logits, torch.zeros(2, dtype=torch.int64))


def test_no_rows_are_no_rows() -> None:
    logits, target = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    assert sharded.cross_entropy(logits, target).isnan()
    loss = sharded.cross_entropy(logits, target, reduction="sum", label_smoothing=0.1)
    assert loss == 0
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.shape == (0, 5)
