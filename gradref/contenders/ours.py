"""Our own declared functions as a contender."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from gradref.autodiff import lookup
from gradref.declare.operation import Operation
from gradref.judge.questions import Answer, Contender, Quantity, Question, of_chunks
from gradref.judge.verdict import OURS


class Ours(Contender):
    """The plain calls: checked, evaluated in float64, rounded once.

    ``instead`` is asked in place of the operation in question, with the same truth.
    """

    @property
    def name(self) -> str:
        """What its verdicts are headed by."""
        return OURS

    def __init__(self, instead: Operation | None = None) -> None:
        self._instead = instead

    def ways(self, record: Operation, quantity: Quantity) -> tuple[str, ...]:
        """Return one way for what is declared."""
        record = self._instead or record
        needs = {"vjp": "derivative", "jvp": "derivative"} if record.kind == "elementwise" else {}
        role = needs.get(quantity.role, quantity.role)
        return ("",) if role == "value" or role in record.derivatives else ()

    def answer(self, question: Question, way: str) -> Answer:
        """Return the result of the declared function."""
        record = self._instead or question.record
        q, sample = question.quantity, question.sample
        if record.kind == "elementwise":
            return Answer(_elementwise(record, question))
        if q.reduction == "none":
            return Answer(_of_rows(record, question))
        chunks = [replace(question, sample=chunk) for chunk in sample.chunks()]
        results = [_of_rows(record, chunk) for chunk in chunks]
        return Answer(of_chunks(q, results))


def _elementwise(record: Operation, question: Question) -> Tensor:
    q, x, parameters = question.quantity, question.sample.arrays["x"], question.sample.parameters
    declared = question.record.function  # of which products are composed
    result: Tensor
    if q.role == "vjp":
        result = lookup.vjp(declared)(x, question.sample.grad_output, **parameters)
    elif q.role == "jvp":
        result = lookup.jvp(declared)(x, question.sample.tangent, **parameters)
    elif q.role == "derivative_from_output":
        y = declared(x, **parameters)
        result = record.derivatives[q.role](y, **parameters)
    else:
        function = record.function if q.role == "value" else record.derivatives[q.role]
        result = function(x, **parameters)
    return result


def _of_rows(record: Operation, question: Question) -> Tensor:
    """Return a quantity of rows, or of one chunk under its reduction."""
    q, s = question.quantity, question.sample
    function = record.function if q.role == "value" else record.derivatives[q.role]
    if q.role.endswith("from_output"):
        from_output: Tensor = function(record.function(**s.arrays, **s.parameters), **s.parameters)
        return from_output
    more: dict[str, Any] = dict(s.parameters)
    if q.has_grad_output:
        more["grad_output"] = question.grad_output
    if q.has_tangent:
        more["tangent"] = question.tangent
    more |= {role: name for role, name in (("wrt", q.wrt), ("along", q.along)) if name}
    if record.reductions:
        more["reduction"] = q.reduction
    result: Tensor = function(**s.arrays, **more)
    return result
