"""Questions of contents: targets, parameters, infinities and NaN, what elements have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.compare import Labelled, held, right_for_all
from gradref.contenders.probe import NotTriedError, Probe
from gradref.contenders.sandbox import Runner
from gradref.contenders.shapes import CLASSES, Mode
from gradref.contenders.witness import Torch
from gradref.declare.operation import Domain
from gradref.judge.gates import Mask
from gradref.judge.questions import Sample
from gradref.judge.ulp import to_floats
from gradref.truth.jets import Floats


def _targets(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test class indices: the last class, one class, those that are ignored, and int32."""
    if probe.record.kind == "elementwise":
        raise NotTriedError
    s = probe.sample(CLASSES, 7)
    indices = [n for n, a in s.arrays.items() if not a.is_floating_point()]
    if not indices:
        raise NotTriedError
    (name,) = indices
    if problem := right_for_all(probe, runner, _of_targets(probe, name)):
        return problem
    int32 = s.having(**{name: s.arrays[name].int()})
    more = int32.take([0, 1, 2, 3, 4, 5]).shaped((2, 3), 1)
    both = [("int32 targets", int32), ("int32 targets of 2 dimensions", more)]
    return right_for_all(probe, runner, both, may_refuse=True)


def _of_targets(probe: Probe, name: str) -> Labelled:
    def aimed(s: Sample, target: Tensor) -> Sample:
        return s.having(**{name: target})

    s = probe.sample(CLASSES, 7)
    target = s.arrays[name]
    yield "the last class", aimed(s, torch.full_like(target, CLASSES - 1))
    yield "the first class", aimed(s, torch.zeros_like(target))
    first = probe.record.arguments[0]
    if first in probe.real(s) and target.dim() == 1:
        led = s.arrays[first].clone()
        rows, gaps = torch.arange(7, device=led.device), torch.arange(2.0, 16.0, 2.0)
        led[rows, target] = led.amax(-1) + gaps.to(led)
        yield "targets that lead by 2 to 14", s.having(**{first: led})
    one = probe.sample(1, 7)
    yield "one class", aimed(one, torch.zeros_like(one.arrays[name]))
    ignored = probe.ignored_index(s, name)
    if ignored is None:
        return
    yield f"some targets are {ignored}", probe.with_some_ignored(s)
    if probe.kernel.accepts(probe.role, "ignore_index"):
        for other in (0, -1):
            parameters = {**probe.case.parameters, "ignore_index": other}
            setting = probe.with_parameters(parameters)
            some = setting.with_some_ignored(setting.sample(CLASSES, 7))
            yield f"ignore_index is {other}", some
    if not (probe.is_reduced and probe.quantity.reduction == "mean"):
        yield f"all targets are {ignored}", aimed(s, torch.full_like(target, ignored))


def _parameters(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test parameters each alone and two at a time, where the cases vary them together."""
    if probe.case.parameters:
        raise NotTriedError
    return right_for_all(probe, runner, _of_parameters(mode, probe))


def _of_parameters(mode: Mode, probe: Probe) -> Labelled:
    record, kernel = probe.record, probe.kernel
    cases = [dict(case) for case in record.cases if len(case) > 1]
    seen: list[dict[str, Any]] = []
    for case in cases:
        names = [name for name in case if kernel.takes(name) and name not in kernel.settings]
        for size in (1, 2) if mode == "full" else (1,):
            for chosen in itertools.combinations(names, size):
                given = {name: case[name] for name in chosen}
                if given in seen or set(given) & set(record.arguments):
                    continue
                seen.append(given)
                setting = probe.with_parameters(given)
                s = setting.with_some_ignored(setting.sample(CLASSES, 7))
                yield f"with {', '.join(given)} alone", s


def _other_parameters(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test half, twice and the negative of the numbers that a parameter has in the cases."""
    if probe.case.parameters or mode == "quick":
        raise NotTriedError
    return right_for_all(probe, runner, _of_other_parameters(probe), may_refuse=True)


def _of_other_parameters(probe: Probe) -> Labelled:
    known = [probe.record.parameters, *probe.record.cases]
    numbers = {(n, v) for case in known for n, v in case.items() if isinstance(v, float)}
    for name, value in sorted(numbers):
        if not np.isfinite(value) or not probe.kernel.takes(name) or name in probe.kernel.settings:
            continue
        for other in dict.fromkeys((value / 2, 2 * value, -value, 0.25, 1.0)):
            if (name, other) in numbers:
                continue
            setting = probe.with_parameters({name: other})
            yield f"{name} = {other:g}", setting.sample(CLASSES, 7)


def _by_class(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test arrays that broadcast with one number for each class, or for each row of classes."""
    if probe.case.parameters:
        raise NotTriedError
    return right_for_all(probe, runner, _of_arrays_by_class(probe), may_refuse=True)


def _of_arrays_by_class(probe: Probe) -> Labelled:
    given = {name: value for case in probe.record.cases for name, value in case.items()}
    for name, domain in given.items():
        if isinstance(domain, Domain) and domain.broadcasts and probe.kernel.takes(name):
            setting = probe.with_parameters({name: domain})
            s = setting.sample(1, 7 * CLASSES).shaped((7, CLASSES), -1)
            whole = s.arrays[name]
            for of, part in (("class", whole[0]), ("row", whole[:, :1])):
                one = replace(s.having(**{name: part.contiguous()}), by_class=(name,))
                yield f"{name} with one number for each {of}", one


def _contents(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test infinities, NaN and masked elements: what the function tends to, or torch's choice."""
    tried, refused = False, ""
    for label, s in _of_contents(probe):
        if not probe.is_taken(s):
            continue
        heard = probe.ask(runner, s)
        if heard.results is None:
            refused = refused or f"{label}: {heard.problem}"
            continue
        with np.errstate(all="ignore"):
            expected = probe.expected(s)
        off = expected.wrong(heard.results)
        off |= _another_limit(expected.truth, heard.results, _of_torch(probe, s))
        if off.any():
            at = int(np.flatnonzero(off.reshape(-1))[0])
            got, truth = (float(v.reshape(-1)[at]) for v in (heard.results, expected.truth))
            return f"{label}: got {got:g}, wants {truth:g}"
        tried = True
    return held(tried, refused)


def _of_torch(probe: Probe, s: Sample) -> Floats | None:
    """Return what torch chooses, if it has the quantity."""
    witness = Torch()
    if not witness.ways(probe.record, probe.quantity):
        return None
    try:
        found = witness.answer(probe.question(s.wide()), "")
    except (RuntimeError, ValueError, IndexError):
        return None
    return None if found.result is None else to_floats(found.result)


def _another_limit(truth: Floats, got: Floats, theirs: Floats | None) -> Mask:
    """Return which results are not the infinity or the NaN that is true, nor what torch gives."""
    is_same = (got == truth) | (np.isnan(got) & np.isnan(truth))
    if theirs is not None and theirs.shape == truth.shape:
        near = np.isclose(got, theirs, rtol=2.0**-6, atol=0.0, equal_nan=True)
        is_same |= near | (np.isnan(truth) != np.isnan(theirs))
    return np.asarray(~np.isfinite(truth) & ~is_same)


def _of_contents(probe: Probe) -> Labelled:
    """Yield rows with one element that is no ordinary number, and the edges of a domain."""
    yield from _of_nan_in_vectors(probe)
    if probe.record.kind == "elementwise":
        return  # asked about at every one of them
    s = probe.sample(CLASSES, 6)
    contract = probe.kernel.contract
    domains = probe.record.array_domains({**s.parameters, **s.arrays})
    for name, a in s.arrays.items():
        domain = domains[name][0] if name in domains else None
        if domain is None or not a.is_floating_point() or name not in probe.record.arguments:
            continue
        for value in _edges(domain):
            if contract.allows_any_at(value):
                continue
            changed = a.clone()
            changed[[1, -1] if a.dim() == 1 else ([1, -1], [2, -1])] = value
            yield f"{name} with {value:g} in a row", s.having(**{name: changed})
    yield from _of_nan(probe)
    yield from _of_ignored(probe)
    for name in probe.real(s) if probe.record.coupled and contract.inf != "any" else ():
        long = probe.sample(33, 6)
        for label, masked in (
            ("the first half", slice(16)),
            ("all but the last", slice(32)),
            ("all", slice(33)),
        ):
            changed = long.arrays[name].clone()
            changed[..., masked] = -torch.inf
            yield f"{name} with {label} -inf", long.having(**{name: changed})
    real = [name for name in probe.record.arguments if name in probe.real(s)]
    if len(real) > 1 and contract.inf != "any":
        infinite = {name: s.arrays[name].clone() for name in real}
        for a in infinite.values():
            a[1] = torch.inf
        yield f"inf in {', '.join(real)}", s.having(**infinite)
    if contract.subnormals == "keep":
        smallest = torch.finfo(probe.case.torch_dtype).smallest_normal
        tiny = {name: s.arrays[name] * (smallest / 16) for name in probe.real(s)}
        if tiny:
            yield f"subnormal {', '.join(tiny)}", s.having(**tiny)


def _of_nan_in_vectors(probe: Probe) -> Labelled:
    """Yield grad_output, or a tangent, with NaN in one row."""
    takes_it = probe.has_vector and not probe.fails and probe.role != "value_and_gradient"
    if takes_it and not probe.is_reduced and probe.kernel.contract.nan != "any":
        s = probe.sample(CLASSES, 6)
        vectors = {name: getattr(s, name).clone() for name in ("grad_output", "tangent")}
        for vector in vectors.values():
            vector[2] = torch.nan
        yield "NaN in the vector", replace(s, **vectors)


def _of_nan(probe: Probe) -> Labelled:
    """Yield NaN at every position of an argument, and in rows that do not count."""
    long, short = probe.sample(70, 70), probe.sample(1, 3)
    for name in set(probe.record.arguments) & probe.real(long):
        if probe.kernel.contract.nan != "any":
            nothing = torch.full_like(short.arrays[name], torch.nan)
            label = f"{name} with NaN in rows of one element"
            yield label, short.having(**{name: nothing})
            a = long.arrays[name]
            eye = torch.eye(70, dtype=torch.bool, device=a.device)
            changed = a.masked_fill(eye if a.shape == eye.shape else a == a, torch.nan)
            label = f"{name} with NaN at every position"
            yield label, long.having(**{name: changed})


def _of_ignored(probe: Probe) -> Labelled:
    """Yield rows of NaN that do not count, and a mean of none that does."""
    s, first = probe.sample(CLASSES, 7), probe.record.arguments[0]
    indices = {
        n: probe.ignored_index(s, n) for n, a in s.arrays.items() if not a.is_floating_point()
    }
    ignored = {name: index for name, index in indices.items() if index is not None}
    if probe.quantity.role != "value" or not ignored or first not in probe.real(s):
        return  # torch's gradient of such a row is NaN, ours 0
    some = probe.with_some_ignored(s)
    some.arrays[first][::3] = torch.nan
    yield "rows of NaN that are ignored", some
    if probe.quantity.reduction == "mean":
        none = {n: torch.full_like(s.arrays[n], index) for n, index in ignored.items()}
        yield "a mean of rows that are all ignored", s.having(**none)


def _edges(domain: Domain) -> Iterator[float]:
    """Yield what is at the ends of a domain, and beyond its numbers."""
    if domain.is_discrete:
        return
    for end in (domain.low, domain.high):
        if not (domain.open_low and end == domain.low):
            yield end
    yield float("nan")


def _alike(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test elements that have something in common: what a shorter path may be chosen for."""
    return right_for_all(probe, runner, _of_alike(probe))


def _of_alike(probe: Probe) -> Labelled:
    s = probe.sample(33, 6)
    of_rows = [name for name in s.arrays if name in probe.real(s) or name == "x"]
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "positive": torch.abs,
        "negative": lambda a: -a.abs(),
        "small": lambda a: a / 1024,
        "equal": lambda a: torch.full_like(a, 0.75),
        "descending": lambda a: a.sort(-1, descending=True).values,
    }
    for label, change in changes.items() if of_rows else ():
        changed = {name: change(s.arrays[name]) for name in of_rows}
        yield f"all elements {label}", s.having(**changed)


THRESHOLDS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 100.0)
"""What people compare with."""

LEAST = 2.0**-60
"""Next to 0 there are numbers whose logarithm torch's losses clamp."""


def _thresholds(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test separate elements at and next to what people compare with, parameters among it."""
    if probe.record.kind != "loss" or probe.record.coupled is not None:
        raise NotTriedError  # asked about elementwise anyway; in rows only differences matter
    return right_for_all(probe, runner, [("at a threshold", _at_thresholds(probe))])


def _at_thresholds(probe: Probe) -> Sample:
    """Return thresholds as the first argument, and one above the others if those are real."""
    first, dtype = probe.record.arguments[0], probe.case.torch_dtype
    parameters = {**probe.record.parameters, **probe.case.parameters}.values()
    values = [*THRESHOLDS, *(v for v in parameters if isinstance(v, float) and np.isfinite(v))]
    at = torch.tensor([*values, *(-v for v in values)], dtype=torch.float64).to(dtype)
    at = torch.cat([at, *(torch.nextafter(at, at.new_tensor(e)) for e in (-np.inf, np.inf))])
    domain = probe.record.array_domains(dict(probe.record.parameters))[first][0]
    at = at[(at >= domain.low) & (at <= domain.high) & ((at == 0) | (at.abs() > LEAST))]
    at = at[at > domain.low] if domain.open_low else at
    s = probe.sample(1, 2 * len(at))
    above = torch.arange(2).repeat_interleave(len(at)).to(dtype)
    others = dict.fromkeys(probe.real(s) - {first}, above)
    shares = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.75]).repeat(len(above)).to(dtype)[: len(above)]
    domains = probe.record.array_domains({**s.parameters, **s.arrays})
    others |= {n: shares for n in s.arrays if n != first and domains[n][0].draw == "unit"}
    moved = at.repeat(2) + (above if others else 0)
    placed = {name: a.to(probe.case.device) for name, a in {**others, first: moved}.items()}
    return s.having(**placed)


def _vectors(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test grad_output, or the tangent, that is 0, large or tiny."""
    if not probe.has_vector or probe.role == "value_and_gradient":
        raise NotTriedError
    return right_for_all(probe, runner, _of_vectors(probe))


POWERS = (-40, -12, 8, 18)
"""Of two, by which the vectors are scaled: a format of 16 bits may not hold them."""


def _of_vectors(probe: Probe) -> Labelled:
    s = probe.sample(33, 6)
    name = "tangent" if probe.quantity.role == "jvp" else "grad_output"
    for label, factor in (("of 0", 0.0), *((f"times 2^{k}", 2.0**k) for k in POWERS)):
        scaled = replace(s, grad_output=s.grad_output * factor, tangent=s.tangent * factor)
        yield f"{name} {label}", scaled


TESTS: dict[str, Callable[[Mode, Probe, Runner], str]] = {
    "targets": _targets,
    "parameters alone": _parameters,
    "other parameters": _other_parameters,
    "parameters by class": _by_class,
    "contents": _contents,
    "contents alike": _alike,
    "thresholds": _thresholds,
    "vectors": _vectors,
}
"""What is tried of every quantity, by the name that its verdict has."""
