"""What profiles are lifted to: signatures, names, documentation, and φ as an operation."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import gradref
import losses
from gradref.contenders.ours import Ours
from gradref.contenders.witness import Torch
from gradref.declare import profile_derivative, residual_loss
from gradref.declare.facts import Facts
from gradref.declare.operation import Operation
from gradref.declare.registry import operations
from gradref.judge import gates
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.trial import Trial
from gradref.judge.verdict import Case
from gradref.report.text import failure

LIFTED = [record for record in operations() if record.chain is not None]
ROLES = ("gradient", "hvp", "hessian_diagonal")
Reduction = Literal["none", "mean", "sum"]
Argument = Literal["input", "target"]


def huber_loss_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    raise NotImplementedError


def huber_loss_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    raise NotImplementedError


@pytest.mark.parametrize("written", [huber_loss_gradient, huber_loss_hvp], ids=lambda f: f.__name__)
def test_a_lifted_signature_is_as_if_it_were_written(written: Callable[..., Any]) -> None:
    lifted = getattr(losses, written.__name__)
    assert inspect.signature(lifted) == inspect.signature(written, eval_str=True)
    assert inspect.signature(losses.huber_loss_hessian_diagonal) == inspect.signature(
        losses.huber_loss_gradient
    )


@pytest.mark.parametrize("record", LIFTED, ids=lambda r: r.name)
@pytest.mark.parametrize("role", ROLES)
def test_a_lifted_function_has_a_name_and_a_place(record: Operation, role: str) -> None:
    function = record.derivatives[role]
    assert function.__qualname__ == function.__name__ == f"{record.name}_{role}"
    assert function.__module__ == record.module
    assert getattr(losses, function.__name__) is function
    assert pickle.loads(pickle.dumps(function)) is function
    assert "\n>>> " in (function.__doc__ or "")


@pytest.mark.parametrize("record", LIFTED, ids=lambda r: r.name)
def test_a_profile_is_judged_as_an_activation_is(record: Operation, dtype: str) -> None:
    """At every 16-bit number φ, φ′ and φ″ are proved to be a nearest number; a tie is a tie."""
    profile = record.profile
    assert profile is not None
    assert profile.name not in {other.name for other in operations()}
    for given in profile.cases:
        case = Case(profile.name, dict(given), dtype, "cpu")
        sizes = {torch.float32: 20_000, torch.float64: 10_000}
        exam = ElementwiseExam(case, sizes, 0, (dtype,), declared=profile)
        verdicts = list(Trial(Ours(), gates.OURS, [Torch()]).verdicts(exam))
        names = {v.quantity.removesuffix(" [special]") for v in verdicts}
        assert {"value", "derivative", "second_derivative"} <= names
        wrong = [v for v in verdicts if not v.passed and v.used > 1 + 2.0**-38]
        assert [failure(verdict) for verdict in wrong] == []


def test_an_optional_array_is_a_weight() -> None:
    x, t, w = torch.tensor([3.0, 0.5]), torch.zeros(2), torch.tensor([2.0, 0.0])
    assert losses.huber_loss(x, t, "none", weight=w).tolist() == [5.0, 0.0]
    assert losses.huber_loss_gradient(x, t, "none", weight=w).tolist() == [2.0, 0.0]
    assert losses.huber_loss_hvp(x, t, x, "sum", 4.0, w, along="target").tolist() == [-6.0, -0.0]


def test_the_residual_is_compared_before_it_is_rounded() -> None:
    """1 − 2⁻⁶⁰ and 1 + 2⁻⁶⁰ both round to δ."""
    x = torch.tensor([1.0, 1.0], dtype=torch.float64)
    t = torch.tensor([2.0**-60, -(2.0**-60)], dtype=torch.float64)
    assert losses.huber_loss_hessian_diagonal(x, t, "sum").tolist() == [1.0, 0.0]


def test_a_label_has_no_gradient() -> None:
    x, y = torch.zeros(2), torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"target: .* wants target.detach\(\): it is a constant"):
        gradref.as_autograd(losses.soft_margin_loss)(x, y)


def test_a_lifted_function_has_the_name_of_its_role() -> None:
    @residual_loss(
        torch=torch.nn.functional.l1_loss,
        truth=lambda r: r,
        facts=Facts(limits={}),
    )
    def shift(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
        return input - target

    with pytest.raises(ValueError, match="function: got the name slope, wants shift_gradient"):

        @profile_derivative(shift)
        def slope(r: Tensor) -> Tensor:
            return torch.ones_like(r)
