"""A kernel at every float32 input."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradref.check.call import Call
from gradref.check.elementwise import Plan, plans
from gradref.check.kernel import Kernel
from gradref.check.options import Options
from gradref.check.sandbox import Runner
from gradref.check.verdict import Verdict
from gradref.measure.ulp import Errors
from gradref.measure.verdict import Case
from gradref.sweep.sweep import Sweep
from gradref.sweep.tally import Tally


class NoAnswerError(Exception):
    """A kernel gave no result in the middle of a sweep."""


def sweeps(kernel: Kernel, case: Case, runner: Runner, options: Options) -> Iterator[Sweep]:
    """One for every quantity of an elementwise kernel that a bound on each input makes sense of."""
    if kernel.record.kind != "elementwise":
        return
    parameters = {**kernel.record.parameters, **case.parameters}
    for plan in plans(kernel):
        keywords = kernel.keywords(plan.role, parameters)
        if keywords is not None and not plan.has_vector:
            yield Sweep(
                kernel.record,
                case.parameters,
                plan.quantity,
                case.dtype,
                case.device,
                subject=kernel.name,
                candidate=Candidate(kernel, plan, keywords, runner),
                claim=options.bound(case.torch_dtype),
            )


class Candidate:
    """A function of a kernel as a function of a tensor."""

    def __init__(
        self, kernel: Kernel, plan: Plan, keywords: dict[str, Any], runner: Runner
    ) -> None:
        self._kernel, self._plan, self._keywords, self._runner = kernel, plan, keywords, runner
        self.__wrapped__ = kernel.functions[plan.role]  # of which a digest is taken

    def __call__(self, x: Tensor) -> Tensor:
        """The results; an exception where there are none."""
        call = Call(
            self._kernel.name,
            self._plan.role,
            (x,),
            self._keywords,
            torch.ones_like(x),
            (0,),
            self._plan.order,
        )
        answer = self._runner.ask(call)
        result = answer.results[self._plan.result] if answer.results else None
        if result is None:
            raise NoAnswerError(answer.problem or answer.unsupported)
        return result.to(x.device)


def exhaustive(kernel: Kernel, case: Case, runner: Runner, options: Options) -> Iterator[Verdict]:
    """The verdicts of the sweeps; a 16-bit format has been tried in whole already."""
    if case.dtype != "float32":
        return
    for sweep in sweeps(kernel, case, runner, options):
        quantity = f"{sweep.quantity} at all 2^32"
        with tempfile.TemporaryDirectory() as folder:
            try:
                certificate = sweep.run(Path(folder), lambda done, of: None)
            except NoAnswerError as problem:
                where = (kernel.name, case.label, quantity, case.dtype, case.device)
                yield Verdict(*where, "fail", words=(str(problem),))
                continue
        words = tuple(
            f"{name}: worst {region.tally.worst:.4g} ulp at {certificate.worst_inputs[name]},"
            f" {region.tally.incorrectly_rounded:,} inputs not correctly rounded"
            for name, region in certificate.regions.items()
            if not region.passed
        )
        yield Verdict(
            kernel.name,
            case.label,
            quantity,
            case.dtype,
            case.device,
            "pass" if certificate.passed else "fail",
            bound=certificate.grade,
            errors=_errors(certificate.total),
            words=words,
        )


def _errors(tally: Tally) -> Errors:
    """A tally as a summary; the quantiles are the edges that hold them."""
    return Errors(
        count=tally.inputs,
        worst=tally.worst,
        worst_index=tally.worst_bits,
        median=tally.quantile(0.5),
        p99=tally.quantile(0.99),
        correctly_rounded=1 - tally.incorrectly_rounded / tally.inputs,
        histogram=tally.histogram,
        wrong_nonfinite=tally.wrong_nonfinite,
        lost_to_zero=tally.lost_to_zero,
        wrong_sign=tally.wrong_sign,
    )
