"""A kernel at every float32 input."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from gradref.contenders.candidate import Candidate
from gradref.contenders.kernel import Kernel, Role
from gradref.contenders.sandbox import Host
from gradref.judge.gates import Gate
from gradref.judge.inputs import EVERYTHING
from gradref.judge.questions import ELEMENTWISE, Quantity, Question, Sample
from gradref.judge.verdict import Case, Verdict
from gradref.sweep.sweep import Sweep


class NoAnswerError(Exception):
    """A kernel gave no result in the middle of a sweep."""


@dataclass(frozen=True)
class Swept:
    """A function of a kernel as a function of a tensor."""

    case: Case
    quantity: Quantity
    way: Role
    candidate: Candidate
    host: Host

    def __call__(self, x: Tensor) -> Tensor:
        """Return the results; raise where there are none."""
        sample = Sample({"x": x}, x, x, {**self.case.record.parameters, **self.case.parameters})
        answer = self.candidate.answer(
            Question(self.case.record, self.case, self.quantity, sample), self.way
        )
        if answer.result is None:
            raise NoAnswerError(answer.problem or answer.unsupported)
        return answer.result.to(x.device)


class KernelSweep(Sweep):
    """A sweep of one quantity as somebody's function computes it."""

    @cached_property
    def source(self) -> str:
        """Return the digest of the function, which is taken where it is called."""
        swept = self.candidate
        assert isinstance(swept, Swept)
        return swept.host.digest(swept.candidate.kernel.name, swept.way)


def sweeps(kernel: Kernel, case: Case, host: Host, gate: Gate) -> Iterator[Sweep]:
    """Yield a sweep for every quantity of an elementwise kernel, for every way to ask."""
    if kernel.record.kind != "elementwise":
        return
    candidate = Candidate(kernel, host)
    parameters = {**kernel.record.parameters, **case.parameters}
    for quantity in ELEMENTWISE:
        if quantity.role not in ("value", "derivative", "second_derivative"):
            continue
        for way in candidate.ways(kernel.record, quantity):
            if kernel.keywords(way, parameters) is None:
                continue
            yield KernelSweep(
                kernel.record,
                case.parameters,
                quantity.role,
                case.dtype,
                case.device,
                subject=kernel.name,
                candidate=Swept(case, quantity, way, candidate, host),
                claim=gate.claims[case.torch_dtype],
            )


def exhaustive(kernel: Kernel, case: Case, host: Host, gate: Gate) -> Iterator[Verdict]:
    """Yield the verdicts of the sweeps; a 16-bit format has been tried in whole already."""
    if case.dtype != "float32":
        return
    if kernel.contract.dtype_of_values(case.torch_dtype) != case.torch_dtype:
        words = "results of another dtype than the inputs are not certified"
        yield Verdict.without_result(kernel.name, case, "all 2^32", "unsupported", words)
        return
    if kernel.contract.range != EVERYTHING:
        words = "a sweep has every input, and a range is declared"
        yield Verdict.without_result(kernel.name, case, "all 2^32", "unsupported", words)
        return
    for sweep in sweeps(kernel, case, host, gate):
        quantity = f"{sweep.quantity} at all 2^32"
        with tempfile.TemporaryDirectory() as folder:
            try:
                certificate = sweep.run(Path(folder), lambda done, of: None)
            except NoAnswerError as problem:
                yield Verdict.without_result(kernel.name, case, quantity, "fail", str(problem))
                continue
        yield certificate.verdict(quantity)
