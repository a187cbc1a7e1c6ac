"""Hostile conditions: memory, neighbours and earlier calls that a result must not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from gradref.contenders import contents, shapes
from gradref.contenders.call import Call
from gradref.contenders.compare import misuse, wrong
from gradref.contenders.kernel import Kernel
from gradref.contenders.libraries import (
    ALONG_GRAD_OUTPUT,
    OF_ALL,
    OVERWRITTEN,
    Graph,
    UnsupportedError,
)
from gradref.contenders.probe import NotTriedError, Probe, probes
from gradref.contenders.sandbox import Runner
from gradref.judge.gates import Gate, Kind, Mask
from gradref.judge.questions import Answer, Sample, quantities
from gradref.judge.verdict import Case
from gradref.truth.jets import Floats

ATTEMPTS = 8
"""How many calls are made until freed memory holds something other than the poison."""

ROWS = 6

SIZES: dict[shapes.Mode, tuple[tuple[int, int], ...]] = {
    "quick": ((129, ROWS), (1031, 5)),
    "full": ((129, ROWS), (1031, 5), (20_011, 3)),
}
"""Lengths and numbers of rows: a kernel may treat large arrays in another way."""


@dataclass(frozen=True)
class Condition:
    """A condition: its name, and the test that returns what a kernel does wrong under it, if so.

    If a basic one is broken, those after it are not tested: they would fail with it. One of
    ``every_reduction`` is tried on each that the kernel has, else on the first.
    """

    name: str
    broken: Callable[[Probe, Runner], str]
    is_basic: bool = False
    every_reduction: bool = False


def broken_conditions(
    kernel: Kernel,
    case: Case,
    runner: Runner,
    gate: Gate,
    seed: int,
    known: Mapping[str, Kind],
    conditions: Sequence[Condition],
) -> Iterator[tuple[str, str, Answer]]:
    """Yield each condition with the way that the kernel was asked, and what is wrong, if so.

    ``known`` has the gravest kind of failure of each quantity; one that is wrong, and gives no
    results, is not asked again.
    """
    seen: set[tuple[str, str, str]] = set()
    for probe in probes(kernel, case, gate, seed, known):
        if not _is_offered(probe, runner):
            continue
        q = probe.quantity
        is_first = (probe.role, q.role, q.wrt) not in seen
        seen.add((probe.role, q.role, q.wrt))
        for condition in conditions:
            if not is_first and not condition.every_reduction:
                continue
            try:
                problem = condition.broken(probe, runner)
            except UnsupportedError as reason:
                yield condition.name, probe.name, Answer(unsupported=str(reason))
                continue
            except NotTriedError:
                continue
            yield condition.name, probe.name, Answer(problem=problem)
            if problem and condition.is_basic:
                break


def _is_offered(probe: Probe, runner: Runner) -> bool:
    """Return whether the quantity is there: whether it is not has a verdict already."""
    try:
        return probe.ask(runner, probe.sample(5, ROWS)).results is not None or not probe.fails
    except (UnsupportedError, NotTriedError):
        return False


# --- memory --------------------------------------------------------------------------------------


def _arguments(mode: shapes.Mode, probe: Probe, runner: Runner) -> str:
    """Test that the arguments, and the memory around them, are left as they were."""
    for size in SIZES[mode]:
        heard = probe.ask(runner, probe.sample(*size))
        if problem := misuse(probe, heard):
            return problem
        if heard.problem:
            return heard.problem
    return ""


def _repeated(mode: shapes.Mode, probe: Probe, runner: Runner) -> str:
    """Test that the same call gives the same bits five times, in poisoned memory."""
    for size in SIZES[mode]:
        s = probe.sample(*size)
        first = probe.ask(runner, s, _with_poison)
        if first.results is None:
            return first.problem
        for _ in range(4):
            again = probe.ask(runner, s, _with_poison).results
            if again is not None and not _same(first.results, again):
                return "not deterministic: the same call gives different bits"
    return ""


def _reused(mode: shapes.Mode, probe: Probe, runner: Runner) -> str:
    """Test that new contents of the same memory give new results, and leave the old ones alone."""
    for size in SIZES[mode]:
        s = probe.sample(*size)
        heard = probe.ask(runner, s, partial(_with_earlier, probe, s))
        if any(returned.overwrites for returned in heard.calls):
            return "a call changes what an earlier one has returned: results share a buffer"
        if any(returned.stale for returned in heard.calls) and _depends_on_size(probe, s):
            return "returns an earlier result for new contents of the memory: cached by address"
        if heard.results is None:
            return heard.problem
        if probe.fails or not _wrong(probe, s, heard.results).any():
            continue
        alone = probe.ask(runner, s).results
        if alone is not None and not _wrong(probe, s, alone).any():
            return "wrong after a call with other contents of the same memory: part of it is cached"
    return ""


def _with_earlier(probe: Probe, s: Sample, call: Call) -> Call:
    """Return the call, to be made after one with half of its contents."""
    halves = probe.fitted(_halved(probe, s))
    names = list(probe.record.arguments) if probe.record.kind != "elementwise" else ["x"]
    return replace(call, earlier=tuple(halves.arrays[name] for name in names))


def _halved(probe: Probe, s: Sample) -> Sample:
    """Return a sample with half of its arguments: no domain forbids it but that of labels."""
    kept = probe.discrete(s) | (set(s.arrays) - {*probe.record.arguments, "x"})
    arrays = {name: a if name in kept else a / 2 for name, a in s.arrays.items()}
    return replace(s, arrays=arrays)


def _depends_on_size(probe: Probe, s: Sample) -> bool:
    """Return whether half of the arguments has other results: that of a step has not."""
    return bool(_wrong(probe, s, probe.wide(_halved(probe, s))).any())


def _with_poison(call: Call) -> Call:
    return replace(call, poisoned=True)


def _poisoned(probe: Probe, runner: Runner) -> str:
    """Test that fresh memory full of NaN changes no result."""
    for size in SIZES["full"]:
        s = probe.sample(*size)
        dirty = probe.ask(runner, s, _with_poison)
        if dirty.results is None:
            return dirty.problem
        unwritten = np.isnan(dirty.results) & ~np.isnan(probe.wide(s))
        for _ in range(ATTEMPTS if unwritten.any() else 1):
            clean = probe.ask(runner, s).results
            if clean is not None and not _same(clean, dirty.results):
                parts = f"{int(unwritten.sum())} of {clean.size} elements"
                some = parts if unwritten.any() else "some"
                return f"leaves memory uninitialised: {some} not written"
    return ""


# --- other calls ---------------------------------------------------------------------------------


def _in_turn(probe: Probe, runner: Runner) -> str:
    """Test that calls of two shapes in turn, and one after an exception, give what they should."""
    short, long = probe.sample(17, ROWS), probe.sample(33, 2 * ROWS)
    for s in (short, long, short, long):
        if problem := wrong(probe, runner, s, "calls of two shapes in turn"):
            return problem
    for malformed in (_complex, _longer):
        with suppress(UnsupportedError):
            probe.ask(runner, short, malformed)
        label = "the call after one with arguments that do not fit"
        if problem := wrong(probe, runner, short, label):
            return problem
    return ""


def _complex(call: Call) -> Call:
    """Return the call with complex arguments, of another shape each."""
    arrays = tuple(a.to(torch.complex64)[..., None, : i + 1] for i, a in enumerate(call.arrays))
    return replace(call, arrays=arrays)


def _longer(call: Call) -> Call:
    """Return the call with every array but the first one twice as long, and the vectors too."""

    def twice(a: Tensor) -> Tensor:
        return torch.cat([a, a]) if a.dim() else torch.stack([a, a])

    return replace(
        call,
        arrays=(call.arrays[0], *map(twice, call.arrays[1:])),
        grad_output=None if call.grad_output is None else twice(call.grad_output),
        tangent=None if call.tangent is None else twice(call.tangent),
    )


def _together(probe: Probe, runner: Runner) -> str:
    """Test that two threads may call the kernel at the same time."""
    for size in SIZES["full"]:
        s = probe.sample(*size)

        def beside(call: Call, s: Sample = s) -> Call:
            return replace(_with_earlier(probe, s, call), together=True)

        if problem := wrong(probe, runner, s, "two threads at a time", beside):
            return problem
    return ""


def _graph(probe: Probe, runner: Runner) -> str:
    """Test that a graph changes no value, and what may be done with it no gradient."""
    role = probe.quantity.role
    is_first = role in ("value", "derivative", "vjp", "gradient")
    if probe.role != "function" or probe.kernel.library != "torch" or not is_first:
        raise NotTriedError
    s = probe.sample(33, ROWS)
    if wrong(probe, runner, s, ""):
        raise NotTriedError  # it is not for the graph
    floating = {name for name, a in s.arrays.items() if a.is_floating_point()}
    is_differentiable = floating <= {"x", *probe.record.differentiable}
    for graph in get_args(Graph)[1:] if role != "value" else (OF_ALL,):
        if (graph in OVERWRITTEN or role == "value") and probe.kernel.contract.in_place:
            continue
        if graph == ALONG_GRAD_OUTPUT and probe.record.kind != "elementwise":
            continue
        if graph == OF_ALL and not is_differentiable:
            continue
        try:
            heard = probe.ask(runner, s, partial(replace, graph=graph))
        except UnsupportedError:
            continue
        if heard.results is None and graph not in OVERWRITTEN:
            return f"the graph {graph}: {heard.problem}"
        if heard.results is not None and _wrong(probe, s, heard.results).any():
            return f"wrong with the graph {graph}"
    return ""


def _double_backward(probe: Probe, runner: Runner) -> str:
    """Test roughly that the gradient of rows has a derivative: theory promises nothing more of it.

    Of an elementwise function its accuracy is judged, at every input.
    """
    q = probe.quantity
    if probe.role != "function" or q.role not in ("vjp", "gradient"):
        raise NotTriedError
    s = probe.sample(33, ROWS)
    found = [
        hvp
        for hvp in quantities(probe.record, s)
        if hvp.role == "hvp" and hvp.wrt == hvp.along == q.wrt and hvp.reduction == q.reduction
    ]
    if not found:
        raise NotTriedError
    second = replace(probe, quantity=found[0], fails=True)
    return wrong(second, runner, s, "the derivative of the gradient")


# --- neighbours ----------------------------------------------------------------------------------


def _rows_apart(probe: Probe, runner: Runner) -> str:
    """Test that a row gives the same alone and among others, one of which is far above it."""
    if probe.quantity.reduction != "none":
        raise NotTriedError
    s = probe.sample(33, 2 * ROWS)
    if probe.record.kind != "elementwise":
        real = [name for name in probe.real(s) if name not in s.by_class]
        high = {name: _with_high_row(s.arrays[name]) for name in real}
        s = s.having(**high)
        if not probe.is_taken(s):
            raise NotTriedError
    heard = probe.ask(runner, s)
    if heard.results is None:
        return heard.problem
    for row in range(len(s.grad_output)):
        one = s.take(slice(row, row + 1))
        alone = probe.ask(runner, one)
        if alone.results is None:
            return f"one row: {alone.problem}"
        in_place = _wrong(probe, one, heard.results[row : row + 1]).any()
        if in_place and not _wrong(probe, one, alone.results).any():
            return "a row's result depends on the other rows"
    return ""


def _with_high_row(a: Tensor) -> Tensor:
    return torch.cat([a[:1] + 200, a[1:] - 200])


def _nan_everywhere(probe: Probe, runner: Runner) -> str:
    """Test that NaN gives NaN at every position of a vector."""
    if probe.record.kind != "elementwise" or probe.kernel.contract.nan != "truth":
        raise NotTriedError
    s = probe.sample(33, 1)
    s = s.having(x=torch.full_like(s.arrays["x"], torch.nan))
    if not probe.is_taken(s):
        raise NotTriedError
    heard = probe.ask(runner, s)
    if heard.results is None:
        return heard.problem
    survives = np.isnan(heard.results)
    if survives.any() and not survives.all():
        return "NaN depends on its position: the vector body and its tail take different branches"
    return "" if survives.all() else f"NaN is swallowed: it gives {heard.results.reshape(-1)[0]:g}"


def _same(a: Floats, b: Floats) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def _wrong(probe: Probe, s: Sample, got: Floats) -> Mask:
    return probe.expected(s).wrong(got)


# --- all of them ---------------------------------------------------------------------------------


def every_condition() -> tuple[str, ...]:
    """Return the names of all conditions."""
    return tuple(condition.name for condition in conditions("full"))


def conditions(mode: shapes.Mode) -> tuple[Condition, ...]:
    """Return the conditions of a mode: in quick those that cost a few calls."""
    sized = [
        Condition(name, partial(test, mode), every_reduction=True)
        for name, test in {**shapes.TESTS, **contents.TESTS}.items()
    ]
    basic = (
        Condition(
            "arguments untouched", partial(_arguments, mode), is_basic=True, every_reduction=True
        ),
        Condition("repeated", partial(_repeated, mode), is_basic=True, every_reduction=True),
    )
    reused = Condition("memory reused", partial(_reused, mode))
    graph = (Condition("graph", _graph), Condition("double backward", _double_backward))
    if mode == "quick":
        return (*basic, reused, *graph, *sized)
    return (
        *basic,
        Condition("memory poisoned", _poisoned, is_basic=True),
        reused,
        *graph,
        Condition("calls in turn", _in_turn),
        Condition("two threads", _together),
        Condition("rows apart", _rows_apart),
        Condition("NaN at every position", _nan_everywhere),
        Condition("more than 2^24 elements", shapes.large, every_reduction=True),
        *sized,
    )
