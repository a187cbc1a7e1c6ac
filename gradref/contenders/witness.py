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
        return ("",) if record.torch is not None and quantity.role in DERIVED else ()

    def answer(self, question: Question, way: str) -> Answer:
        """Return the result, or that torch has not implemented it."""
        return answered(question)


def answered(question: Question) -> Answer:
    """Return what autograd gives for a question, or that torch has not implemented it."""
    record, q, sample = question.record, question.quantity, question.sample
    try:
        if q.reduction == "none":
            return Answer(DERIVED[q.role](record, q, sample).detach())
        results = [DERIVED[q.role](record, q, chunk).detach() for chunk in sample.chunks()]
    except RuntimeError as error:
        if not isinstance(error, NotImplementedError) and "not implemented" not in str(error):
            raise
        return Answer(unsupported=str(error))
    return Answer(torch.stack(results) if q.role == "value" else torch.cat(results))


def _call(record: Operation, q: Quantity, s: Sample) -> Tensor:
    assert record.torch is not None  # there is a way to ask only then
    more = dict(s.parameters)
    if record.kind != "loss":
        return record.torch(s.arrays["x"], **more)
    if record.reductions:
        more["reduction"] = q.reduction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kl_div's "mean" warns that it is not batchmean
        return record.torch(**s.arrays, **more)


def _leaves(record: Operation, s: Sample) -> Sample:
    return s.leaves(*record.differentiable)


def _vector(q: Quantity, s: Sample) -> Tensor:
    """Return what is pulled back; all elements of a chunk have that of its first row."""
    return s.grad_output if q.reduction == "none" else s.grad_output[0]


def _derivative(record: Operation, q: Quantity, s: Sample) -> Tensor:
    leaves = _leaves(record, s)
    x, y = leaves.arrays["x"], _call(record, q, leaves)
    for _ in range(q.order):
        y = _grad(y, x, torch.ones_like(y)) if y.requires_grad else torch.zeros_like(x)
    return y


def _gradient(record: Operation, q: Quantity, s: Sample) -> Tensor:
    leaves = _leaves(record, s)
    return _grad(_call(record, q, leaves), leaves.arrays[q.wrt or "x"], _vector(q, s))


def _jacobian(record: Operation, q: Quantity, s: Sample) -> Tensor:
    leaves = _leaves(record, s)
    y, x = _call(record, q, leaves), leaves.arrays["x"]
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.stack([_grad(y, x, unit.expand_as(x)) for unit in units], dim=1)


def _jacobian_diagonal(record: Operation, q: Quantity, s: Sample) -> Tensor:
    return torch.diagonal(_jacobian(record, q, s), dim1=1, dim2=2)


def _jvp(record: Operation, q: Quantity, s: Sample) -> Tensor:
    def f(x: Tensor) -> Tensor:
        return _call(record, q, replace(s, arrays={"x": x}))

    result: Tensor = torch.func.jvp(f, (s.arrays["x"],), (s.tangent,))[1]
    return result


def _hvp(record: Operation, q: Quantity, s: Sample) -> Tensor:
    leaves = _leaves(record, s)
    along, wrt = (leaves.arrays[name or "x"] for name in (q.along, q.wrt))
    first = _grad(_call(record, q, leaves), along, _vector(q, s))
    return _grad(first, wrt, s.tangent)


def _hessian_diagonal(record: Operation, q: Quantity, s: Sample) -> Tensor:
    leaves = _leaves(record, s)
    x = leaves.arrays[q.wrt]
    first = _grad(_call(record, q, leaves), x, _vector(q, s))
    if record.coupled is None:
        return _grad(first, x, torch.ones_like(x))
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns = [_grad(first, x, unit.expand_as(x))[:, j] for j, unit in enumerate(units)]
    return torch.stack(columns, dim=1)


def torch_jets(record: Operation, x: Tensor, parameters: dict[str, Any]) -> list[Floats | None]:
    """Return torch's value, first and second derivative; None where it has none."""
    case = Case(record.name, {}, str(x.dtype).removeprefix("torch."), str(x.device), record.package)
    sample = Sample({"x": x}, x, x, parameters)
    found: list[Floats | None] = []
    for q in (q for q in ELEMENTWISE if q.role in ("value", "derivative", "second_derivative")):
        answer = Answer()
        if Torch().ways(record, q):
            answer = answered(Question(record, case, q, sample))
        found.append(None if answer.result is None else to_floats(answer.result))
    return found


DERIVED: dict[str, Callable[[Operation, Quantity, Sample], Tensor]] = {
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
