"""The check of kernels: every setting, dtype and quantity, and the hostile conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gradref.check.call import Answer
from gradref.check.conditions import CONDITIONS, broken_conditions
from gradref.check.elementwise import ElementwiseCheck
from gradref.check.evidence import Evidence
from gradref.check.explain import explain
from gradref.check.kernel import Kernel, Role
from gradref.check.options import Options
from gradref.check.rows import RowsCheck, cases_of
from gradref.check.sandbox import Runner
from gradref.check.verdict import Status, Verdict
from gradref.measure.verdict import Case


def cases(
    kernels: Iterable[Kernel], dtypes: Sequence[str], device: str
) -> list[tuple[Kernel, Case]]:
    """Every kernel with every setting that it is for and every dtype."""
    return [
        (kernel, Case(kernel.operation, given, dtype, device))
        for kernel in kernels
        for given in cases_of(kernel)
        for dtype in dtypes
    ]


def check(kernel: Kernel, case: Case, runner: Runner, options: Options) -> Iterator[Verdict]:
    """The verdicts on a kernel in one case."""
    if not kernel.claims(case.parameters):
        reason = f'takes a target that is an {kernel.targets}; "target": "either" would claim more'
        yield _without_result(kernel, case, "every quantity", Answer(unsupported=reason))
        return
    answered = False
    for quantity, answer, evidence in _evidence(kernel, case, runner, options):
        if evidence is None:
            yield _without_result(kernel, case, quantity, answer)
        else:
            answered = True
            yield evidence.verdict(explain)
    if answered and options.is_hostile:
        yield from _conditions(kernel, case, runner, options)


def _evidence(
    kernel: Kernel, case: Case, runner: Runner, options: Options
) -> Iterator[tuple[str, Answer, Evidence | None]]:
    if kernel.record.kind != "elementwise":
        yield from RowsCheck(kernel, case, options).run(runner)
        return
    for plan, answer, evidence in ElementwiseCheck(kernel, case, options).run(runner):
        yield plan.quantity, answer, evidence


def _without_result(kernel: Kernel, case: Case, quantity: str, answer: Answer) -> Verdict:
    status: Status = "unsupported" if answer.unsupported else "fail"
    words = (answer.unsupported or answer.problem,)
    return Verdict(kernel.name, case.label, quantity, case.dtype, case.device, status, words=words)


def not_taken(kernel: Kernel, device: str) -> Iterator[Verdict]:
    """A record of the parameters that were not judged, as the kernel does not take them."""
    if kernel.missing:
        words = (f"does not take {', '.join(kernel.missing)}",)
        where = (kernel.name, kernel.operation, "parameters", "every dtype", device)
        yield Verdict(*where, "unsupported", words=words)


def _conditions(kernel: Kernel, case: Case, runner: Runner, options: Options) -> Iterator[Verdict]:
    """A verdict for every condition, over all functions of the kernel."""
    tried: dict[str, dict[Role, Answer]] = {}
    for role in kernel.functions:
        for name, answer in broken_conditions(kernel, case, role, runner, options):
            tried.setdefault(name, {})[role] = answer
    for condition in CONDITIONS:
        if condition.name in tried:
            answers = tried[condition.name].items()
            problems = [f"{role}: {answer.problem}" for role, answer in answers if answer.problem]
            refused = [f"{role}: {a.unsupported}" for role, a in answers if a.unsupported]
            words = tuple(problems or refused)
            status: Status = "fail" if problems else "unsupported" if refused else "pass"
            yield Verdict(
                kernel.name,
                case.label,
                condition.name,
                case.dtype,
                case.device,
                status,
                words=words,
            )
