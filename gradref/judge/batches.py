"""Losses of a batch: whole calls, drawn by the operation, with their truths and evidence.

The losses of a call are rows that share all that they depend on: what its arrays hold are the
coordinates of each. So the gates of :mod:`gradref.judge.rows` hold, with the number of coordinates
for the length n, which no sum in a call is longer than.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flint import ctx
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Domain, Operation
from gradref.judge.evidence import Evidence
from gradref.judge.gates import Gate
from gradref.judge.inputs import EVERYTHING, into_range, rounded
from gradref.judge.questions import Quantity, Question, Sample, changed, quantities
from gradref.judge.rows import Expanded, Known, evidence_of, joined, magnitudes, show_values
from gradref.judge.ulp import to_floats, to_numpy
from gradref.judge.verdict import Case, Place
from gradref.truth.hessians import BITS, denominators, derivatives


@dataclass(frozen=True)
class BatchExam:
    """A loss of a batch with one setting of its parameters, in one dtype, on some calls."""

    case: Case
    calls: int
    seed: int
    within: tuple[float, float] = EVERYTHING
    is_large: bool = False

    @property
    def record(self) -> Operation:
        """The declaration."""
        return self.case.record

    @cached_property
    def samples(self) -> list[Sample]:
        """The calls that are asked about."""
        return [self._drawn(np.random.default_rng([self.seed, i])) for i in range(self.calls)]

    def _drawn(self, rng: np.random.Generator) -> Sample:
        record, case = self.record, self.case
        assert record.draw is not None  # what declares a loss of a batch asks for it
        drawn = record.draw(rng, case.parameters, self.is_large)
        arrays = {name: self._tensor(a) for name, a in drawn.items()}
        if self.within != EVERYTHING:
            wrt = _wrt(record, arrays)
            arrays |= {n: into_range(arrays[n], self.within, self.seed) for n in wrt}
        given = case.parameters.items()
        parameters = {n: v for n, v in given if not isinstance(v, Domain) and n != "reduction"}
        count = len(record.function(**arrays, **parameters, reduction="none"))
        largest = max(arrays[name].numel() for name in _wrt(record, arrays))
        return Sample(
            arrays=arrays,
            grad_output=self._tensor(rng.normal(size=count)),
            tangent=self._tensor(rng.normal(size=largest)),
            parameters=parameters,
            is_one_chunk=True,
        )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        if values.dtype.kind != "f":
            return torch.from_numpy(values).to(self.case.device)
        return rounded(values, self.case.torch_dtype).to(self.case.device)

    def questions(self) -> Iterator[tuple[Quantity, list[Question]]]:
        """Yield every quantity with what is asked for it, a question for each call."""
        for quantity in quantities(self.record, self.samples[0]):
            yield quantity, [Question(self.record, self.case, quantity, s) for s in self.samples]

    def evidence(
        self,
        quantity: Quantity,
        asked: list[Question],
        contender: str,
        got: list[Tensor],
        others: Mapping[str, list[Tensor]],
        gate: Gate,
    ) -> Evidence:
        """Return the evidence of a quantity over all calls."""
        results = [to_floats(values) for values in got]
        known = [self._known(i, quantity, gate) for i in range(len(asked))]
        found = evidence_of(self.case, quantity, asked[0].dtype, contender, results, known, gate)
        sizes = [float(next(iter(q.sample.arrays.values())).abs().max()) for q in asked]
        return replace(
            found,
            others={who: joined(map(to_floats, values)) for who, values in others.items()},
            x=np.repeat(sizes, [r.size for r in results]),
            describe=lambda index: _describe(asked, results, index),
        )

    @cached_property
    def _expanded(self) -> list[Expanded]:
        return [_expanded(self.record, sample) for sample in self.samples]

    def _known(self, call: int, q: Quantity, gate: Gate) -> Known:
        """Return the truth of a quantity: every loss counts as its reduction says."""
        expanded = self._expanded[call]
        weights = expanded.grad_output
        if q.reduction != "none":
            backward = weights[:1] if q.has_grad_output else 1.0
            is_mean = q.reduction == "mean"
            with ctx.workprec(BITS):
                shares = expanded.mean_weights[:, None] if is_mean else np.ones_like(weights)
                weights = backward * shares
        whole = replace(expanded, grad_output=weights)
        return Known.of(whole.quantity(replace(q, reduction="none"), gate.usual_terms))


def _wrt(record: Operation, arrays: Mapping[str, Tensor]) -> list[str]:
    """Return the arguments that a call is differentiated by."""
    return [n for n in record.differentiable if n in arrays]


def _parameters(record: Operation, arrays: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return what the truth takes besides the arrays."""
    known = {**record.parameters, **given}
    return {n: v for n, v in known.items() if n not in arrays and n != "reduction"}


def _shares(
    record: Operation, arrays: Mapping[str, Tensor], given: Mapping[str, Any]
) -> NDArray[Any]:
    """Return what each loss counts for in a mean."""
    numbers = {name: to_numpy(a) for name, a in arrays.items()}
    with ctx.workprec(BITS):
        return denominators(record.shares, numbers, _parameters(record, arrays, given), 0)


def _expanded(record: Operation, s: Sample) -> Expanded:
    """Return everything about a call up to second order, each of its losses as a row."""
    numbers = {name: to_numpy(a) for name, a in s.arrays.items()}
    wrt = _wrt(record, s.arrays)
    shapes = {name: numbers[name].shape for name in wrt}
    rest = {name: a for name, a in numbers.items() if name not in wrt}

    def truth(**given: Any) -> Any:
        shaped = {name: given[name].reshape(shape) for name, shape in shapes.items()}
        return record.truth(**given | shaped)

    row = {name: numbers[name].reshape(1, -1) for name in wrt}
    parameters = _parameters(record, numbers, s.parameters)
    balls = derivatives(truth, {**row, **rest}, wrt, parameters)
    x = np.abs(np.concatenate(list(row.values()), axis=1)).repeat(len(balls.value), axis=0)
    plain, usual = magnitudes(balls, x, record, s)
    return Expanded(
        balls=balls,
        magnitudes=plain,
        usual=usual,
        grad_output=to_floats(s.grad_output)[:, None],
        tangent=to_floats(s.tangent)[None],
        mean_weights=_shares(record, s.arrays, s.parameters),
        is_loss=True,
        length=x.shape[1],
        columns=1,
    )


def _describe(asked: list[Question], results: list[NDArray[np.float64]], index: int) -> Place:
    """Return the call that a result belongs to, and its place in there."""
    for question, result in zip(asked, results, strict=True):
        if index < result.size:
            given, q = dict(question.sample.arrays), question.quantity
            if q.has_grad_output:
                given["grad_output"] = question.grad_output
            if q.has_tangent:
                given["tangent"] = question.tangent
            at = {name: show_values(a, question.case.torch_dtype) for name, a in given.items()}
            shape = () if q.role == "value" and q.reduction != "none" else result.shape
            inside = np.unravel_index(index, shape) if shape else ()
            parameters = changed(question.record, question.sample.parameters)
            return Place(at, shape, tuple(map(int, inside)), parameters)
        index -= result.size
    raise IndexError(index)
