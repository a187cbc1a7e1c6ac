"""Somebody's kernel as a contender: each of its functions is a way to ask for a quantity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gradref.contenders.call import Call, Returned
from gradref.contenders.kernel import Kernel, Role
from gradref.contenders.sandbox import Runner
from gradref.declare.operation import Operation
from gradref.judge.questions import Answer, Contender, Quantity, Question, Sample, of_chunks
from gradref.judge.trial import wanted_shape

ELEMENTWISE_ROLES: dict[str, tuple[Role, ...]] = {
    "value": ("forward", "value_and_gradient", "function"),
    "derivative": ("derivative", "backward", "value_and_gradient", "function"),
    "vjp": ("backward", "function"),
    "jvp": ("jvp",),
    "second_derivative": ("second_derivative", "function"),
}
ROW_ROLES: dict[str, tuple[Role, ...]] = {
    "value": ("forward", "value_and_gradient", "function"),
    "gradient": ("backward", "value_and_gradient", "function"),
    "vjp": ("backward", "function"),
    "jvp": ("jvp",),
}
"""The functions of a kernel that compute a quantity."""

OF_VALUES: tuple[Role, ...] = ("forward", "derivative", "second_derivative", "jvp")
"""The functions whose results have the dtype of values; gradients have that of their argument."""


@dataclass(frozen=True)
class Candidate(Contender):
    """A kernel, and what runs it."""

    kernel: Kernel
    runner: Runner

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return self.kernel.name

    def ways(self, record: Operation, quantity: Quantity) -> tuple[Role, ...]:
        """Return the functions that compute a quantity.

        A jvp and a gradient that comes with the value are those of the first argument.
        """
        is_elementwise = record.kind == "elementwise"
        roles = (ELEMENTWISE_ROLES if is_elementwise else ROW_ROLES).get(quantity.role, ())
        first = ("", record.arguments[0])
        only_first = {"value_and_gradient": quantity.wrt, "jvp": quantity.along}
        return tuple(
            role
            for role in roles
            if role in self.kernel.named
            and only_first.get(role, "") in first
            and (is_elementwise or not self._is_for_another_reduction(role, quantity))
        )

    def _is_for_another_reduction(self, role: Role, q: Quantity) -> bool:
        kernel = self.kernel
        if not kernel.record.reductions or kernel.accepts(role, "reduction"):
            return False
        default = kernel.record.parameters.get("reduction", "none")
        return bool(kernel.settings.get("reduction", default) != q.reduction)

    def as_asked(self, question: Question, way: str) -> Question:
        """Return the question with the dtype that is declared of values.

        A fused gradient takes no grad_output: it is asked for with one of ones.
        """
        q, s = question.quantity, question.sample
        dtype = question.case.torch_dtype
        declared = self.kernel.contract.dtype_of_values(dtype)
        if declared != dtype and (q.role == "value" or way in OF_VALUES):
            question = replace(question, result_dtype=declared)
        if way == "value_and_gradient" and q.role == "gradient":
            ones = torch.ones_like(s.grad_output)
            return replace(question, sample=replace(s, grad_output=ones))
        return question

    def calls(self, question: Question, way: str) -> list[Call] | None:
        """Return the calls for a question: one, or one for every chunk that is reduced.

        None where the function does not take what the sample has.
        """
        q, s = question.quantity, question.sample
        samples = [s] if q.reduction == "none" else s.chunks()
        made: list[Call] = []
        for one in samples:
            fitted = self.fitted(one)
            if fitted is None:
                return None
            call = self._call(replace(question, sample=fitted), _role(way))
            if call is None:
                return None
            made.append(call)
        return made

    def fitted(self, s: Sample) -> Sample | None:
        """Return a sample in a rank that the kernel takes; None where it has no such form."""
        record, ranks = self.kernel.record, self.kernel.contract.ranks
        rank = next(iter(s.arrays.values())).dim()
        if not ranks or rank in ranks:
            return s
        if record.kind == "batch":
            return None
        wants = min(ranks, key=lambda known: abs(known - rank))
        if not self.kernel.is_coupled and not s.by_class:
            return s.mapped(lambda a: _of_rank(a, wants))
        if rank != 2 or wants < 2:
            return None
        beside = (1,) * (wants - 2)
        if record.coupled == "class":
            return s.shaped((len(s.grad_output), *beside), 1)
        return s.shaped((*beside, len(s.grad_output)), -1)

    def _call(self, question: Question, role: Role) -> Call | None:
        record, q, s = self.kernel.record, question.quantity, question.sample
        given: dict[str, Any] = dict(s.parameters)
        if record.reductions:
            given["reduction"] = q.reduction
        arguments = ("x",) if record.kind == "elementwise" else record.arguments
        by_name = self._by_name(role, s)
        known = (*arguments, *by_name)
        given |= {name: a for name, a in s.arrays.items() if name not in known}
        keywords = self.kernel.keywords(role, given)
        if keywords is None or q.wrt not in ("", *known):
            return None
        return Call(
            self.kernel.name,
            role,
            tuple(s.arrays[name] for name in known),
            keywords,
            _grad_output(question),
            _tangent(question),
            wrt=(known.index(q.wrt) if q.wrt else 0,),
            along=known.index(q.along) if q.along else 0,
            by_name=by_name,
        )

    def _by_name(self, role: Role, s: Sample) -> tuple[str, ...]:
        """Return the optional arrays that a gradient is asked for by, if the function takes them.

        A backward gives these gradients behind those of the arguments.
        """
        record = self.kernel.record
        optional = (n for n in record.differentiable if n not in record.arguments)
        return tuple(n for n in optional if n in s.arrays and self.kernel.accepts(role, n))

    def answer(self, question: Question, way: str) -> Answer:
        """Return the results of the calls together, or the first answer that is none."""
        made = self.calls(question, way)
        if made is None:
            given = (n for n in question.case.parameters if n != "reduction")
            names = [n for n in given if not self.kernel.accepts(_role(way), n)]
            ranks = self.kernel.contract.ranks
            what = [*names, *([f"arrays of another rank than {ranks}"] if ranks else [])]
            return Answer(unsupported=f"does not take {', '.join(what)}")
        q, s = question.quantity, question.sample
        results: list[Tensor] = []
        for call, one in zip(made, [s] if q.reduction == "none" else s.chunks(), strict=True):
            returned = self.runner.ask(call)
            found = _result(returned, call, replace(question, sample=self.fitted(one) or one))
            if found.result is not None and self.kernel.contract.ranks:
                form = _shape(replace(question, sample=one))
                found = replace(found, result=found.result.reshape(form))
            if found.result is None or q.reduction == "none":
                return found
            results.append(found.result)
        return Answer(of_chunks(q, results))


def _result(returned: Returned, call: Call, question: Question) -> Answer:
    """Return what one call has given for a question, or what is wrong with it."""
    if returned.problem or returned.unsupported:
        return Answer(problem=returned.problem, unsupported=returned.unsupported)
    q = question.quantity
    is_second = call.role == "value_and_gradient" and q.role != "value"
    result = returned.results[1 if is_second else 0]
    if result is None and q.wrt:
        return Answer(unsupported=f"gives no gradient for {q.wrt}")
    if result is None:
        return Answer(problem="returns None")
    wants = _shape(question)
    if tuple(result.shape) != wants:
        return Answer(problem=f"returns shape {tuple(result.shape)}, wants {wants}")
    return Answer(result)


def _of_rank(a: Tensor, rank: int) -> Tensor:
    """Return an array with dimensions of 1 in the middle, or with its last ones flattened."""
    if rank == 1:
        return a.reshape(-1)
    rows = a.unsqueeze(-1) if a.dim() == 1 else a.flatten(1)
    return rows.reshape(len(rows), *(1,) * (rank - 2), rows.shape[1])


def _shape(question: Question) -> tuple[int, ...]:
    """Return the shape of what one call returns."""
    q, s = question.quantity, question.sample
    if q.reduction == "none":
        return wanted_shape(question)
    return () if q.role == "value" else tuple(s.arrays[q.wrt].shape)


def _role(way: str) -> Role:
    return way  # type: ignore[return-value]  # the ways of a kernel are its roles


def _grad_output(question: Question) -> Tensor | None:
    """Return what is pulled back: ones where a derivative is asked for by itself.

    Of a second derivative numbers of both signs, and the same for the tangent: they cancel.
    """
    q = question.quantity
    if q.role in ("value", "jvp"):
        return None
    if q.role == "second_derivative":
        return _signs(question)
    if q.role == "derivative":
        return torch.ones_like(question.sample.grad_output)
    return question.grad_output


def _tangent(question: Question) -> Tensor | None:
    """Return what is pushed forward."""
    q = question.quantity
    if q.role == "second_derivative":
        return _signs(question)
    return question.tangent if q.has_tangent else None


def _signs(question: Question) -> Tensor:
    """Return 1 and -1 in turn."""
    signs = torch.ones_like(question.sample.grad_output)
    signs.view(-1)[1::2] = -1
    return signs
