"""Hostile conditions: lengths, layouts, memory and neighbours that a result must not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.call import Call, MemoryLayout, Returned, UnsupportedError
from gradref.contenders.candidate import Candidate
from gradref.contenders.kernel import Kernel, Role
from gradref.contenders.ours import Ours
from gradref.contenders.sandbox import Runner
from gradref.judge.gates import grossly_wrong
from gradref.judge.inputs import rounded
from gradref.judge.questions import Answer, Question, Sample, draw_sample, quantities
from gradref.judge.ulp import to_floats
from gradref.judge.verdict import Case
from gradref.truth.jets import Floats

LENGTHS = (0, 1, 2, 7, 31, 33, 127, 128, 129, 255, 257, 1023, 1024, 1025, 4099, 65537)
"""0, 1, lengths around the sizes of blocks, primes, and one above 2^16."""

FEW_LENGTHS = (1, 31, 257, 1025)

LAYOUTS: tuple[MemoryLayout, ...] = ("transposed", "strided", "offset", "expanded")

ATTEMPTS = 8
"""How many calls are made until freed memory holds something other than the poison."""

PROBED_ROWS = 6
"""Rows of a sample that conditions are tried on."""


@dataclass(frozen=True)
class Probe:
    """A function of a kernel on inputs of any shape, to compare with our formulas in float64."""

    kernel: Kernel
    case: Case
    role: Role
    seed: int

    @property
    def is_elementwise(self) -> bool:
        """Whether every element stands for itself."""
        return self.kernel.record.kind == "elementwise"

    def sample(self, length: int, rows: int = PROBED_ROWS) -> Sample:
        """Return ordinary inputs: no infinities, no overflow."""
        record, dtype = self.kernel.record, self.case.torch_dtype
        if not self.is_elementwise:
            coupled = record.coupled is not None
            count = rows if coupled else max(length, 1)
            s = draw_sample(record, self.case, length if coupled else 1, count, self.seed)
            s = replace(s, arrays={**s.arrays, **self.ordinary(s, length)}, columns=1)
            return s if coupled else s.take(slice(0, length))
        rng = np.random.default_rng([self.seed, length])
        shape = (rows, length)

        def normal(scale: float) -> Tensor:
            return rounded(scale * rng.normal(size=shape), dtype).to(self.case.device)

        parameters = {**record.parameters, **self.case.parameters}
        vector = normal(1.0)
        return Sample({"x": normal(3.0)}, vector, vector, parameters)

    def ordinary(self, s: Sample, length: int) -> dict[str, Tensor]:
        """Return the real arrays without the extremes that accuracy is judged at."""
        rng = np.random.default_rng([self.seed, length, 2])
        domains = self.kernel.record.array_domains({**s.parameters, **s.arrays})
        return {
            name: rounded(2.0 * rng.normal(size=a.shape), a.dtype).to(a.device)
            for name, a in s.arrays.items()
            if a.is_floating_point() and domains[name][0].draw == "real"
        }

    def question(self, s: Sample) -> Question | None:
        """Return a question that the function can answer of a sample; None if there is none.

        A question with a vector is preferred.
        """
        candidate = Candidate(self.kernel, _Nobody())
        found = [
            q
            for q in quantities(self.kernel.record, s)
            if self.role in candidate.ways(self.kernel.record, q)
        ]
        if not found:
            return None
        with_vector = (q for q in found if q.role in ("vjp", "jvp") and self.role != "function")
        asked = Question(self.kernel.record, self.case, next(with_vector, found[0]), s)
        return None if candidate.calls(asked, self.role) is None else asked

    def expected(self, s: Sample) -> Floats:
        """Return the results of our float64 formula."""
        asked = self.question(s)
        assert asked is not None  # looked at before
        wide = replace(asked, sample=s.wide())
        found = Ours().answer(Candidate(self.kernel, _Nobody()).as_asked(wide, self.role), "")
        assert found.result is not None  # ours has what is asked for
        return to_floats(found.result)


class _Nobody:
    """A runner that makes no calls, for a candidate that is only asked which it would make."""

    def ask(self, call: Call) -> Returned:
        raise NotImplementedError


@dataclass(frozen=True)
class Condition:
    """A condition: its name, and the test that returns what a kernel does wrong under it, if so.

    If a basic one is broken, those after it are not tested: they would fail with it.
    """

    name: str
    broken: Callable[[Probe, Runner], str]
    is_basic: bool = False


def broken_conditions(
    kernel: Kernel,
    case: Case,
    role: Role,
    runner: Runner,
    seed: int,
    conditions: Sequence[Condition],
) -> Iterator[tuple[str, Answer]]:
    """Yield the name of each condition with an answer that has what is wrong under it, if so."""
    probe = Probe(kernel, case, role, seed)
    if probe.question(probe.sample(5)) is None:
        return
    for condition in conditions:
        try:
            problem = condition.broken(probe, runner)
        except UnsupportedError as reason:
            yield condition.name, Answer(unsupported=str(reason))
            continue
        yield condition.name, Answer(problem=problem)
        if problem and condition.is_basic:
            return


def _answers(
    probe: Probe, runner: Runner, s: Sample, change: Callable[[Call], Call] = lambda call: call
) -> tuple[Floats | None, str, list[Returned]]:
    """Return the results for a sample or what prevented them, and what each call returned.

    Raise UnsupportedError where the kernel does not offer what is asked.
    """
    heard: list[Returned] = []

    class Listening:
        def ask(self, call: Call) -> Returned:
            heard.append(runner.ask(change(call)))
            if heard[-1].unsupported:
                raise UnsupportedError(heard[-1].unsupported)
            return heard[-1]

    asked = probe.question(s)
    assert asked is not None  # looked at before
    found = Candidate(probe.kernel, Listening()).answer(asked, probe.role)
    if found.result is None:
        return None, found.problem or found.unsupported, heard
    return to_floats(found.result), "", heard


def _arguments(probe: Probe, runner: Runner) -> str:
    """Test that the arguments, and the memory around them, are left as they were."""
    _, problem, heard = _answers(probe, runner, probe.sample(129))
    wrote = sorted({name for answer in heard for name in answer.wrote})
    if wrote:
        return f"writes into {', '.join(wrote)}, or next to it"
    return problem


def _repeated(probe: Probe, runner: Runner) -> str:
    """Test that the same call gives the same bits three times, in poisoned memory."""
    s = probe.sample(257)
    first, problem, _ = _answers(probe, runner, s, _with_poison)
    for _ in range(2):
        again, _, _ = _answers(probe, runner, s, _with_poison)
        if first is not None and again is not None and not _same(first, again):
            return "not deterministic: the same call gives different bits"
    return problem


def _reused(probe: Probe, runner: Runner) -> str:
    """Test that new contents of the same memory give new results."""
    s = probe.sample(129)
    _, problem, heard = _answers(probe, runner, s, _with_earlier)
    if any(answer.stale for answer in heard) and _depends_on_size(probe, s):
        return "returns an earlier result for new contents of the same memory: cached by address"
    return problem


def _with_earlier(call: Call) -> Call:
    """Return the call, to be made after one with half of its contents: no domain forbids them."""
    return replace(call, earlier=tuple(_halved(a) for a in call.arrays))


def _halved(a: Tensor) -> Tensor:
    return a / 2 if a.is_floating_point() else a


def _depends_on_size(probe: Probe, s: Sample) -> bool:
    """Return whether half of the arguments has other results: that of a step has not."""
    halves = replace(s, arrays={name: _halved(a) for name, a in s.arrays.items()})
    return bool(grossly_wrong(probe.expected(halves), probe.expected(s)).any())


def _with_poison(call: Call) -> Call:
    return replace(call, poisoned=True)


def _poisoned(probe: Probe, runner: Runner) -> str:
    """Test that fresh memory full of NaN changes no result."""
    s = probe.sample(129)
    dirty, problem, _ = _answers(probe, runner, s, _with_poison)
    if dirty is None:
        return problem
    unwritten = np.isnan(dirty) & ~np.isnan(probe.expected(s))
    for _ in range(ATTEMPTS if unwritten.any() else 1):
        clean, problem, _ = _answers(probe, runner, s)
        if clean is not None and not _same(clean, dirty):
            some = f"{int(unwritten.sum())} of {dirty.size} elements" if unwritten.any() else "some"
            return f"leaves memory uninitialised: {some} not written"
    return problem


def _lengths(probe: Probe, runner: Runner, lengths: Sequence[int] = LENGTHS) -> str:
    """Test that results of every length are right."""
    for length in lengths:
        if length == 0 and not probe.is_elementwise and probe.kernel.record.coupled:
            continue  # a row of nothing has no softmax
        s = probe.sample(length, rows=1 if length > 5000 else PROBED_ROWS)
        if not len(s.grad_output):
            continue
        got, problem, _ = _answers(probe, runner, s, _with_poison)
        if got is None:
            return f"length {length}: {problem}"
        wrong = grossly_wrong(got, probe.expected(s))
        if wrong.any():
            return _at_length(wrong, length)
    return ""


def _at_length(wrong: np.ndarray[Any, Any], length: int) -> str:
    """Return where in its rows a result of some length is wrong, in words."""
    by_row = wrong.reshape(-1, wrong.shape[-1]) if wrong.ndim else wrong.reshape(1, 1)
    columns = np.flatnonzero(by_row.any(0))
    flat = np.flatnonzero(wrong.reshape(-1))
    if by_row.shape[1] == length and columns[0] > 0 and columns[-1] == length - 1:
        tail = length - int(columns[0])
        return f"the last {tail} elements of rows of length {length} are wrong: the tail is cut"
    if flat[0] > 0 and flat[-1] == wrong.size - 1 and len(flat) <= wrong.size - flat[0]:
        return f"the last {wrong.size - int(flat[0])} of {wrong.size} results are wrong: a cut tail"
    return f"wrong from length {length} on: {len(flat)} of {wrong.size} results"


def _layouts(probe: Probe, runner: Runner, layouts: Sequence[MemoryLayout] = LAYOUTS) -> str:
    """Test that views, by strides, offset or broadcast, give what contiguous memory gives."""
    s = probe.sample(33)
    refused = ""
    for layout in layouts:
        if layout == "expanded":
            s = replace(s, arrays={n: _first_repeated(a) for n, a in s.arrays.items()})
            s = replace(s, grad_output=_first_repeated(s.grad_output))
        expected = probe.expected(s)
        plain, _, _ = _answers(probe, runner, s)
        try:
            got, problem, _ = _answers(probe, runner, s, partial(_laid_out, layout))
        except UnsupportedError as reason:
            refused = f"{layout} input: {reason}"
            continue
        if got is None:
            return f"{layout} input: {problem}"
        if plain is None or grossly_wrong(plain, expected).any():
            continue
        if grossly_wrong(got, expected).any():
            return f"wrong for {layout} input, right for contiguous: strides are ignored"
    if refused:
        raise UnsupportedError(refused)
    return ""


def _laid_out(layout: MemoryLayout, call: Call) -> Call:
    return replace(call, layout=layout)


def _first_repeated(a: Tensor) -> Tensor:
    return a[:1].expand(a.shape).contiguous()


def _rows_apart(probe: Probe, runner: Runner) -> str:
    """Test that a row gives the same alone, in another place, and among rows far above it."""
    s = probe.sample(33, rows=12)
    if not probe.is_elementwise:
        ordinary = probe.ordinary(s, 33)
        high = {n: _with_high_row(a) for n, a in ordinary.items() if n not in s.by_class}
        s = replace(s, arrays={**s.arrays, **high})
    asked = probe.question(s)
    if asked is None or asked.quantity.reduction != "none":
        return ""
    whole, problem, _ = _answers(probe, runner, s)
    if whole is None:
        return problem
    for row in range(len(s.grad_output)):
        alone, problem, _ = _answers(probe, runner, s.take(slice(row, row + 1)))
        if alone is None:
            return f"one row: {problem}"
        expected = probe.expected(s.take(slice(row, row + 1)))
        bad = grossly_wrong(whole[row : row + 1], expected).any()
        if bad and not grossly_wrong(alone, expected).any():
            return "a row's result depends on the other rows"
    backwards = torch.arange(len(s.grad_output) - 1, -1, -1)
    turned, _, _ = _answers(probe, runner, s.take(backwards))
    fits = turned is not None and len(turned) == len(whole)
    if turned is not None and fits and grossly_wrong(turned[::-1], whole).any():
        return "a row's result depends on its place"
    return ""


def _with_high_row(a: Tensor) -> Tensor:
    return torch.cat([a[:1] + 200, a[1:] - 200])


def _nan_everywhere(probe: Probe, runner: Runner) -> str:
    """Test that NaN gives NaN at every position of a vector."""
    if not probe.is_elementwise:
        return ""
    s = probe.sample(33, rows=1)
    s = replace(s, arrays={"x": torch.full_like(s.arrays["x"], torch.nan)})
    got, problem, _ = _answers(probe, runner, s)
    if got is None:
        return problem
    survives = np.isnan(got)
    if survives.any() and not survives.all():
        return "NaN depends on its position: the vector body and its tail take different branches"
    return "" if survives.all() else f"NaN is swallowed: it gives {got.reshape(-1)[0]:g}"


ARGUMENTS = Condition("arguments untouched", _arguments, is_basic=True)
REPEATED = Condition("repeated", _repeated, is_basic=True)

CONDITIONS = (
    ARGUMENTS,
    REPEATED,
    Condition("memory poisoned", _poisoned, is_basic=True),
    Condition("memory reused", _reused),
    Condition("lengths", _lengths),
    Condition("layouts", _layouts),
    Condition("rows apart", _rows_apart),
    Condition("NaN at every position", _nan_everywhere),
)
"""All conditions: those of mode full."""

CHEAP_CONDITIONS = (
    ARGUMENTS,
    REPEATED,
    Condition("a few lengths", partial(_lengths, lengths=FEW_LENGTHS)),
    Condition("a transposed view", partial(_layouts, layouts=("transposed",))),
)
"""Conditions that cost a few calls: those of mode quick."""


def _same(a: Floats, b: Floats) -> bool:
    return np.array_equal(a, b, equal_nan=True)
