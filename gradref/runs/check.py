"""Somebody's kernels before the judge, from their subject to the verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradref.arrays import reject
from gradref.contenders.candidate import Candidate
from gradref.contenders.conditions import broken_conditions, conditions
from gradref.contenders.contract import Special
from gradref.contenders.exhaustive import exhaustive
from gradref.contenders.explain import explain
from gradref.contenders.kernel import Kernel, index_or_probability
from gradref.contenders.mistakes import mistakes
from gradref.contenders.ours import Ours
from gradref.contenders.real_size import REAL_SIZE, at_real_size
from gradref.contenders.sandbox import Host, Runner, Sandbox
from gradref.contenders.witness import Torch
from gradref.judge.batches import BatchExam
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.evidence import SPECIAL, Evidence
from gradref.judge.gates import Kind
from gradref.judge.inputs import EVERYTHING, HALVES
from gradref.judge.questions import Answer, Question
from gradref.judge.rows import RowsExam
from gradref.judge.trial import Exam, Trial
from gradref.judge.verdict import TORCH, Case, Status, Verdict
from gradref.runs.options import CALLS, LINK_POINTS, POINTS, ROW_SAMPLES, Options
from gradref.runs.run import Run


def cases(
    kernels: Iterable[Kernel], dtypes: Sequence[str], device: str
) -> list[tuple[Kernel, Case]]:
    """Return every kernel with every setting that it is for and every dtype."""
    return [
        (kernel, Case(kernel.operation, given, dtype, device))
        for kernel in kernels
        for given in kernel.cases()
        for dtype in dtypes
    ]


def exam_of(case: Case, options: Options, within: tuple[float, float] = EVERYTHING) -> Exam:
    """Return the questions of a mode, with arguments in a range."""
    dtype = case.torch_dtype
    if case.record.kind == "elementwise":
        limit = LINK_POINTS if dtype in HALVES and options.mode == "link" else None
        sizes = POINTS[options.mode]
        return ElementwiseExam(case, sizes, options.seed, (case.dtype,), limit, within)
    if case.record.kind == "batch":
        return BatchExam(case, CALLS[options.mode], options.seed, within)
    lengths, rows = ROW_SAMPLES[options.mode]
    return RowsExam(case, lengths, 0, rows, options.seed, within=within)


def check(kernel: Kernel, case: Case, runner: Runner, options: Options) -> Iterator[Verdict]:
    """Yield the verdicts on a kernel in one case."""
    if not kernel.claims(case.parameters):
        choice = index_or_probability(kernel.record)
        reason = f'its {choice} is an {kernel.targets}; "{choice}": "either" declares both'
        yield Verdict.without_result(kernel.name, case, "every quantity", "unsupported", reason)
        return
    trial = Trial(
        Candidate(kernel, runner),
        options.held_to(),
        [Ours(), Torch()],
        finish=_Finish(kernel),
        explain=explain,
    )
    declared = kernel.contract.words
    exam = exam_of(case, options, kernel.contract.range)
    verdicts = []
    for verdict in trial.verdicts(exam):
        verdicts.append(replace(verdict, declared=declared))
        yield verdicts[-1]
    if not any(verdict.errors is not None for verdict in verdicts):
        return
    if not isinstance(exam, BatchExam):
        tried = _conditions(kernel, case, runner, options, _known(verdicts))
    else:
        tried = _of_a_large_call(kernel, case, runner, options, exam, _known(verdicts))
    for verdict in tried:
        yield replace(verdict, declared=declared)


def _of_a_large_call(
    kernel: Kernel,
    case: Case,
    runner: Runner,
    options: Options,
    exam: BatchExam,
    known: Collection[str],
) -> Iterator[Verdict]:
    """Yield the verdict on a large call: of a loss of a batch no other condition is tried."""
    usual = () if options.mode == "link" else (REAL_SIZE,)
    if REAL_SIZE in (usual if options.conditions is None else options.conditions):
        answers = dict(at_real_size(Candidate(kernel, runner), exam, known))
        if answers:
            yield _tried(kernel, case, REAL_SIZE, answers)
    words = "none but real size is tried of a loss of a batch"
    yield Verdict.without_result(kernel.name, case, "conditions", "unsupported", words)


def _known(verdicts: Iterable[Verdict]) -> dict[str, Kind]:
    """Return the gravest kind of failure of every quantity that has any: one that fails is wrong.

    A failure at infinity, NaN or a kink that is let pass says nothing of other inputs.
    """
    found: dict[str, Kind] = {}
    for verdict in verdicts:
        kinds = {part.kind for part in verdict.tolerated}
        name = verdict.quantity.removesuffix(f" [{SPECIAL}]")
        if not verdict.passed or "wrong" in kinds:
            found[name] = "wrong"
        elif "range" in kinds:
            found.setdefault(name, "range")
    return found


@dataclass(frozen=True)
class _Finish:
    """Adds to the evidence of a kernel the mistakes it may have made, and what it has declared."""

    kernel: Kernel

    def __call__(self, evidence: Evidence, asked: list[Question]) -> Evidence:
        excused = dict(evidence.excused)
        contract = self.kernel.contract
        if contract.subnormals == "flush":
            excused["subnormal numbers flushed to 0, as declared"] = flushed(evidence)
        special = {"NaN": (contract.nan, np.isnan), "an infinity": (contract.inf, np.isinf)}
        for name, (declared, is_it) in special.items():
            if evidence.is_elementwise and declared != "truth":
                excused[f"at {name}, {WORDS[declared]}, as declared"] = is_it(evidence.x) & another(
                    evidence, declared
                )
        return replace(
            evidence,
            excused=excused,
            mistakes=lambda: (m for m in mistakes(asked) if m[1].size == evidence.got.size),
        )


WORDS: Mapping[Special, str] = {"torch": "what torch gives", "any": "anything"}


def another(e: Evidence, declared: Special) -> NDArray[np.bool_]:
    """Return which results are not the truth, but what is declared of special inputs."""
    differs = (e.got != e.truth.high) & ~(np.isnan(e.got) & np.isnan(e.truth.high))
    if declared == "any":
        return np.asarray(differs)
    theirs = e.others.get(TORCH, e.truth.high)
    return np.asarray(differs & ((e.got == theirs) | (np.isnan(e.got) & np.isnan(theirs))))


def flushed(e: Evidence) -> np.ndarray[Any, Any]:
    """Return which results are those of a subnormal input or result that is treated as 0."""
    smallest = torch.finfo(e.case.torch_dtype).smallest_normal
    is_subnormal = (np.abs(e.truth.high) < smallest) & (e.truth.high != 0)
    excused = is_subnormal & (e.got == 0)
    if e.is_elementwise:
        at_zero = e.truth.high[e.x == 0]
        tiny = (np.abs(e.x) < smallest) & (e.x != 0)
        excused |= tiny & np.isin(e.got, at_zero)
    return np.asarray(excused)


def not_taken(kernel: Kernel, device: str) -> Iterator[Verdict]:
    """Yield a record of the parameters that were not judged, as the kernel does not take them."""
    if kernel.missing:
        case = Case(kernel.operation, {}, "every dtype", device)
        words = f"does not take {', '.join(kernel.missing)}"
        yield Verdict.without_result(kernel.name, case, "parameters", "unsupported", words)


def _conditions(
    kernel: Kernel, case: Case, runner: Runner, options: Options, known: Mapping[str, Kind]
) -> Iterator[Verdict]:
    """Yield a verdict for every condition, over all functions of the kernel."""
    is_quick = options.mode in ("link", "quick")
    wanted = conditions("quick" if is_quick else "full")
    if options.conditions is not None:
        named = {c.name: c for c in (*conditions("full"), *wanted)}
        wanted = tuple(c for name, c in named.items() if name in options.conditions)
    elif options.mode == "link":
        return
    tried: dict[str, dict[str, Answer]] = {}
    gate, seed = options.held_to(), options.seed
    for name, way, answer in broken_conditions(kernel, case, runner, gate, seed, known, wanted):
        tried.setdefault(name, {})[way] = answer
    for condition in wanted:
        if condition.name in tried:
            yield _tried(kernel, case, condition.name, tried[condition.name])


def _tried(kernel: Kernel, case: Case, condition: str, answers: Mapping[str, Answer]) -> Verdict:
    """Return the verdict on the answers under a condition, by the ways to ask."""
    problems = _by_words({way: a.problem for way, a in answers.items() if a.problem})
    refused = _by_words({way: a.unsupported for way, a in answers.items() if a.unsupported})
    status: Status = "fail" if problems else "unsupported" if refused else "pass"
    words = problems or refused
    return Verdict.without_result(kernel.name, case, condition, status, *words)


def _by_words(said: Mapping[str, str]) -> list[str]:
    """Return what is said, each once, of all the ways to ask that it is said of."""
    ways: dict[str, list[str]] = {}
    for way, words in said.items():
        ways.setdefault(words, []).append(way)
    return [f"{' and '.join(of)}: {words}" for words, of in ways.items()]


def check_subject(
    subject: str,
    operation: str | None,
    dtypes: Sequence[str],
    options: Options,
    xfails: Path | None = None,
    on_case: Callable[[str, int], None] = lambda label, of: None,
    sandbox: Sandbox | None = None,
) -> Run:
    """Judge the kernels of a subject in a process of their own.

    ``on_case`` hears what is judged next, of how many; ``sandbox`` is that process, if it has been
    started before. A run that is interrupted has the verdicts before.
    """
    with sandbox or Sandbox(subject, operation) as runner:
        patterns = read_xfails(xfails) if xfails is not None else []
        kernels = [kernel.within(options.range) for kernel in runner.kernels]
        run = Run(subject, asdict(options))
        selected = cases(kernels, dtypes, options.device)
        used: set[str] = set()
        for kernel in kernels:
            run.verdicts += not_taken(kernel, options.device)
        with suppress(KeyboardInterrupt):
            for kernel, case in selected:
                on_case(f"{case.label} {case.dtype}", len(selected))
                try:
                    for verdict in _of_case(kernel, case, runner, options):
                        run.verdicts += _expected([verdict], patterns, used)
                except Exception as problem:  # a setting for which there is no truth, for one
                    words = f"{type(problem).__name__}: {problem}"
                    run.problems.append(f"{kernel.name}, {case.label} {case.dtype}: {words}")
            run.finished = True
    if run.finished:
        run.unused = [pattern for pattern in patterns if pattern not in used]
    return run


def _of_case(kernel: Kernel, case: Case, host: Host, options: Options) -> Iterator[Verdict]:
    yield from check(kernel, case, host, options)
    if options.mode == "exhaustive":
        yield from exhaustive(kernel, case, host, options.held_to())


def read_xfails(path: Path) -> list[str]:
    """Return the patterns in a file, one to a line; what follows a # is the reason."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _expected(
    verdicts: Sequence[Verdict], patterns: Sequence[str], used: set[str]
) -> Iterator[Verdict]:
    for verdict in verdicts:
        matching = {p for p in patterns if is_named(verdict, p)}
        used |= matching
        yield verdict.expected_to_fail() if matching else verdict


def is_named(verdict: Verdict, pattern: str) -> bool:
    """Return whether a pattern names a verdict: * is any text, and all else itself."""
    literal = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(literal, verdict.name) is not None


def range_of(text: str) -> tuple[float, float]:
    """Return the numbers in a range like ``-10:10``; one that is left out is an infinity."""
    low, separator, high = text.partition(":")
    try:
        limits = (float(low or "-inf"), float(high or "inf"))
    except ValueError:
        limits = (math.nan, math.nan)
    if not separator or not limits[0] < limits[1]:
        reject("range", repr(text), "LOW:HIGH, the lower number first, as in -10:10")
    return limits


def ulp_of(text: str, name: str = "claim") -> float:
    """Return the number in a claim like ``1ulp`` or ``0.5``; ``name`` is the argument's."""
    try:
        value = float(text.strip().removesuffix("ulp").strip())
    except ValueError:
        value = -1.0
    if not 0.5 <= value < float("inf"):
        reject(name, repr(text), "a number of ulp that is at least 0.5, as in 1ulp")
    return value
