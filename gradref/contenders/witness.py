"""torch's counterpart of an operation, with derivatives by autograd: a witness, not the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradref.declare.operation import Operation
from gradref.judge.questions import (
    ELEMENTWISE,
    Answer,
    Contender,
    Quantity,
    Question,
    Sample,
    of_chunks,
)
from gradref.judge.ulp import to_floats
from gradref.judge.verdict import TORCH, Case
from gradref.truth.jets import Floats


class Torch(Contender):
    """What autograd gives; it has every quantity that it does not raise for."""

    @property
    def name(self) -> str:
        """What its verdicts are headed by."""
        return TORCH

    def ways(self, record: Operation, quantity: Quantity) -> tuple[str, ...]:
        """Return one way where there is a counterpart; it knows no forms from the output."""
        roles = ("value", "gradient") if record.kind == "batch" else DERIVED
        return ("",) if record.torch is not None and quantity.role in roles else ()

    def answer(self, question: Question, way: str) -> Answer:
        """Return the result, or that torch has not implemented it."""
        return answered(question)


def answered(question: Question) -> Answer:
    """Return what autograd gives for a question, or that torch has not implemented it."""
    q, sample = question.quantity, question.sample
    derived = DERIVED[q.role]
    try:
        if q.reduction == "none":
            return Answer(derived(question).detach())
        chunks = [replace(question, sample=chunk) for chunk in sample.chunks()]
        results = [derived(chunk).detach() for chunk in chunks]
    except RuntimeError as error:
        if not isinstance(error, NotImplementedError) and "not implemented" not in str(error):
            raise
        return Answer(unsupported=str(error))
    return Answer(of_chunks(q, results))


def _call(question: Question) -> Tensor:
    record, s = question.record, question.sample
    assert record.torch is not None  # there is a way to ask only then
    more = dict(s.parameters)
    if record.kind not in ("loss", "batch"):
        return record.torch(*(s.arrays[name] for name in record.arguments), **more)
    if record.reductions:
        more["reduction"] = question.quantity.reduction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kl_div's "mean" warns that it is not batchmean
        return record.torch(**s.arrays, **more)


def _with_leaves(question: Question) -> Question:
    names = [n for n in question.record.differentiable if n in question.sample.arrays]
    return replace(question, sample=question.sample.leaves(*names))


def _argument(question: Question, name: str) -> Tensor:
    """Return an argument that is derived by; where there is but one, it goes without a name."""
    return question.sample.arrays[name or question.record.arguments[0]]


def _derivative(question: Question) -> Tensor:
    asked = _with_leaves(question)
    x, y = _argument(asked, ""), _call(asked)
    for _ in range(asked.quantity.order):
        y = _grad(y, x, torch.ones_like(y)) if y.requires_grad else torch.zeros_like(x)
    return y


def _gradient(question: Question) -> Tensor:
    asked = _with_leaves(question)
    return _grad(_call(asked), _argument(asked, asked.quantity.wrt), asked.grad_output)


def _jacobian(question: Question) -> Tensor:
    asked = _with_leaves(question)
    y, x = _call(asked), _argument(asked, "")
    units = torch.eye(y.shape[1], dtype=x.dtype, device=x.device)
    return torch.stack([_grad(y, x, unit.expand_as(y)) for unit in units], dim=1)


def _jacobian_diagonal(question: Question) -> Tensor:
    return torch.diagonal(_jacobian(question), dim1=1, dim2=2)


def _jvp(question: Question) -> Tensor:
    s, name = question.sample, question.quantity.along or question.record.arguments[0]

    def f(moving: Tensor) -> Tensor:
        return _call(replace(question, sample=s.having(**{name: moving})))

    result: Tensor = torch.func.jvp(f, (s.arrays[name],), (question.tangent,))[1]
    return result


def _hvp(question: Question) -> Tensor:
    asked = _with_leaves(question)
    along, wrt = (_argument(asked, name) for name in (asked.quantity.along, asked.quantity.wrt))
    first = _grad(_call(asked), along, asked.grad_output)
    return _grad(first, wrt, asked.tangent)


def _hessian_diagonal(question: Question) -> Tensor:
    asked = _with_leaves(question)
    x = _argument(asked, asked.quantity.wrt)
    first = _grad(_call(asked), x, asked.grad_output)
    if asked.record.coupled is None:
        return _grad(first, x, torch.ones_like(x))
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns = [_grad(first, x, unit.expand_as(x))[:, j] for j, unit in enumerate(units)]
    return torch.stack(columns, dim=1)


def torch_jets(record: Operation, x: Tensor, parameters: dict[str, Any]) -> list[Floats | None]:
    """Return torch's value, first and second derivative; None where it has none."""
    case = Case(record.full_name, {}, str(x.dtype).removeprefix("torch."), str(x.device))
    sample = Sample({"x": x}, x, x, parameters)
    found: list[Floats | None] = []
    for q in (q for q in ELEMENTWISE if q.role in ("value", "derivative", "second_derivative")):
        answer = Answer()
        if Torch().ways(record, q):
            answer = answered(Question(record, case, q, sample))
        found.append(None if answer.result is None else to_floats(answer.result))
    return found


DERIVED: dict[str, Callable[[Question], Tensor]] = {
    "value": _call,
    "derivative": _derivative,
    "second_derivative": _derivative,
    "gradient": _gradient,
    "vjp": _gradient,
    "jacobian": _jacobian,
    "jacobian_diagonal": _jacobian_diagonal,
    "jvp": _jvp,
    "hvp": _hvp,
    "hessian_diagonal": _hessian_diagonal,
}
"""How autograd computes each quantity."""


def _grad(y: Tensor, x: Tensor, vector: Tensor) -> Tensor:
    """Return vᵀ∂y/∂x, on a graph of its own; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(y, x, vector, create_graph=True, materialize_grads=True)
    return result
