"""Questions of real size and shape: lengths, counts of rows, ranks, layouts, targets, contents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.call import Call
from gradref.contenders.libraries import UnsupportedError
from gradref.contenders.memory import MemoryLayout
from gradref.contenders.probe import NotTriedError, Probe
from gradref.contenders.sandbox import Runner
from gradref.contenders.witness import Torch
from gradref.declare.operation import Domain
from gradref.judge.gates import Mask
from gradref.judge.questions import Quantity, Sample
from gradref.judge.ulp import to_floats
from gradref.truth.jets import Floats

Mode = Literal["quick", "full"]

LENGTHS: dict[Mode, tuple[int, ...]] = {
    "quick": (1, 2, 3, 7, 8, 31, 33, 64, 127, 129, 255, 257, 1023, 1025, 2049, 4099),
    "full": (
        *range(192),  # every residue of 64 behind whole blocks, and of 96
        *sorted({2**k + d for k in range(8, 18) for d in (-1, 0, 1)}),
        4099,
        100_003,
    ),
}
"""Of rows, and of vectors of separate elements: around every power of two to 2^17, and primes."""

COUNTS: dict[Mode, tuple[int, ...]] = {
    "quick": (0, 1, 2, 8, 33, 257, 2049),
    "full": (0, 1, 2, 7, 8, 9, 33, 255, 256, 257, 2047, 2048, 2049, 4097, 65_537, 100_003),
}
"""Of rows, which a kernel may spread over programs, of which CUDA has at most 65,535 in y and z."""

BLOCKS: dict[Mode, tuple[tuple[int, int], ...]] = {
    "quick": ((65, 9), (130, 34)),
    "full": ((65, 9), (130, 34), (259, 130), (1027, 301), (131, 2050)),
}
"""Lengths together with numbers of rows: a block of a kernel has both."""

CLASSES = 5
"""Elements of the rows that are counted."""

MANY = 1 << 15
"""Elements of a row from which on there are few rows."""

SHAPES: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "quick": ((), (5,), (2, 3, 4), (2, 1, 3, 4)),
    "full": ((), (5,), (3, 4), (1, 1), (2, 3, 4), (2, 1, 3, 4), (2, 2, 1, 2, 3)),
}

LAYOUTS: dict[Mode, tuple[MemoryLayout, ...]] = {
    "quick": ("transposed", "expanded", "one number"),
    "full": ("transposed", "strided", "offset", "expanded", "broadcast", "one number"),
}

REPEATING: tuple[MemoryLayout, ...] = ("expanded", "broadcast", "one number")
"""Views in which several elements lie in one place."""

Labelled = Iterable[tuple[str, Sample]]


def wrong(
    probe: Probe,
    runner: Runner,
    s: Sample,
    label: str,
    change: Callable[[Call], Call] = lambda call: call,
) -> str:
    """Return what is wrong with the results of one sample, if anything."""
    heard = probe.ask(runner, s, change)
    if heard.results is None:
        return f"{label}: {heard.problem}"
    off = probe.expected(s).wrong(heard.results)
    return f"{label}: {_places(off)}" if off.any() else ""


def _all(probe: Probe, runner: Runner, samples: Labelled, *, may_refuse: bool = False) -> str:
    """Return what is wrong with the first sample that is; one that is not taken is passed over.

    Where a kernel ``may_refuse`` an exception is not wrong, but it does not hold either. Of a
    quantity that fails anyway only what is right for some of the samples counts.
    """
    right, problem, refused = False, "", ""
    for label, s in samples:
        if not probe.is_taken(s):
            continue
        try:
            expected = probe.expected(s)
        except ValueError:  # ours refuses it: there is no truth
            continue
        heard = probe.ask(runner, s)
        if heard.results is None and may_refuse and heard.problem.startswith("raises"):
            refused = refused or f"{label}: {heard.problem}"
            continue
        if heard.results is None:
            found = heard.problem
        else:
            off = expected.wrong(heard.results)
            found = _places(off) if off.any() else ""
        right |= not found
        problem = problem or (f"{label}: {found}" if found else "")
        if problem and (right or not probe.fails):
            return problem
    return _held(right, refused)


def _held(tried: bool, refused: str) -> str:
    """Return that nothing is wrong; raise where the kernel refuses, or nothing was compared."""
    if refused:
        raise UnsupportedError(refused)
    if not tried:
        raise NotTriedError
    return ""


def _places(off: Mask) -> str:
    """Return where results are wrong, in words."""
    flat = np.flatnonzero(off.reshape(-1))
    by_row = off.reshape(-1, off.shape[-1]) if off.ndim else off.reshape(1, 1)
    rows, columns = np.flatnonzero(by_row.any(1)), np.flatnonzero(by_row.any(0))
    width, count = by_row.shape[1], len(by_row)
    if len(flat) == off.size:
        return "every result is wrong" if off.size > 1 else "the result is wrong"
    if columns[0] > 0 and columns[-1] == width - 1 and len(columns) == width - columns[0]:
        return f"the last {len(columns)} of {width} elements of a row are wrong: the tail is cut"
    if count > 1 and rows[0] > 0 and rows[-1] == count - 1 and len(rows) == count - rows[0]:
        return f"the last {len(rows)} of {count} rows are wrong: a block or tail of rows is missing"
    return f"{len(flat)} of {off.size} results are wrong, the first at {int(flat[0])}"


# --- sizes ---------------------------------------------------------------------------------------


def _lengths(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that results of every length are right."""
    problem = _all(probe, runner, _of_lengths(mode, probe))
    if probe.record.kind == "elementwise" and (problem or probe.fails):
        return "; ".join(filter(None, (problem, _vector_body(probe, runner))))
    return problem


def _vector_body(probe: Probe, runner: Runner) -> str:
    """Return from which length on results differ from those of calls with one element."""
    exact = replace(probe, fails=False)
    for length in LENGTHS["quick"]:
        s = exact.sample(length, 1)
        heard = exact.ask(runner, s)
        if heard.results is None:
            return ""
        off = np.flatnonzero(exact.expected(s).wrong(heard.results))
        if len(off):
            one = s.mapped(lambda a, at=off[0]: a.reshape(1, -1)[:, at : at + 1])  # type: ignore[misc]
            is_right_alone = not wrong(exact, runner, one, "")
            words = f"differs from the call alone for N >= {length} (vector body)"
            return words if is_right_alone else ""
    return ""


def _of_lengths(mode: Mode, probe: Probe) -> Labelled:
    is_coupled = probe.kernel.is_coupled
    lengths = LENGTHS[mode] if not probe.is_reduced else LENGTHS["quick"]
    for length in lengths:
        if length == 0 and (is_coupled or probe.is_reduced):
            continue  # a row of nothing has no softmax, and there is no mean of no number
        rows = 1 if length > MANY or probe.record.coupled is None else 3 if length > 128 else 6
        yield f"length {length}", probe.sample(length, rows)


def _counts(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that results of every number of rows are right, the largest rows last in a sum."""
    if probe.record.kind == "elementwise":
        raise NotTriedError
    return _all(probe, runner, _of_counts(mode, probe))


def _of_counts(mode: Mode, probe: Probe) -> Labelled:
    if probe.record.coupled:
        for length, rows in BLOCKS[mode]:
            yield f"{rows} rows of {length}", probe.sample(length, rows)
    for rows in COUNTS[mode]:
        if rows == 0 and probe.is_reduced:
            continue  # there is no mean of no number, and no grad_output either
        s = probe.sample(CLASSES if probe.record.coupled else 1, rows)
        if probe.is_reduced and not s.by_class:
            each = replace(probe, role="forward", quantity=Quantity("value"))
            s = s.take(torch.from_numpy(np.argsort(each.wide(s))))
        yield f"{rows} rows", s


def _ranks(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that arrays of any rank, along every dimension, give what their rows do."""
    return _all(probe, runner, _of_ranks(mode, probe), may_refuse=True)


def _of_ranks(mode: Mode, probe: Probe) -> Labelled:
    coupled = None if probe.record.kind == "elementwise" else probe.record.coupled
    for shape in SHAPES[mode]:
        if not probe.kernel.contract.takes_rank(len(shape) + (coupled is not None)):
            continue
        size = int(np.prod(shape))
        if coupled is None:
            s = probe.sample(size, 1)
            if probe.record.kind == "elementwise":
                s = s.mapped(lambda a, shape=shape: a.reshape(shape))  # type: ignore[misc]
                yield f"shape {shape}", s
            else:
                yield f"shape {shape}", s.shaped(shape, -1)
            continue
        places = {
            "dim": (*range(len(shape) + 1), -1, *((-2,) if shape else ())),
            "class": (min(1, len(shape)),),
            "last": (-1,),
        }
        for dim in places[coupled]:
            s = _with_some_ignored(probe, probe.sample(CLASSES, size)).shaped(shape, dim)
            yield f"rows of {CLASSES} along dim {dim} of rank {len(shape) + 1}", s


def _layouts(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that views, by strides, offset or broadcast, give what contiguous memory gives."""
    if probe.kernel.contract.contiguous:
        raise NotTriedError
    layouts: Sequence[MemoryLayout] = LAYOUTS[mode]
    if mode == "full" and probe.kernel.library == "numpy":
        layouts = (*layouts, "reversed")
    tried, refused = False, ""
    for layout, of in itertools.product(layouts, ("input", "grad_output", "both")):
        has_vector = _has_vector(probe) and not probe.is_reduced
        if of != "input" and (layout == "reversed" or not has_vector):
            continue
        if probe.kernel.contract.in_place and layout in REPEATING:
            continue  # such memory cannot be written to
        s = _repeating(probe.fitted(_of_two_dimensions(probe)), layout, of)
        plain = probe.ask(runner, s)
        expected = probe.expected(s)
        off = None if plain.results is None else expected.wrong(plain.results)
        if (off is None or off.any()) and probe.fails:
            continue
        if off is None or off.any():
            return f"contiguous: {plain.problem if off is None else _places(off)}"
        try:
            heard = probe.ask(runner, s, partial(_laid, layout, of))
        except UnsupportedError as reason:
            refused = f"{layout} {of}: {reason}"
            continue
        if heard.results is None:
            return f"{layout} {of}: {heard.problem}"
        if wrote := sorted({name for returned in heard.calls for name in returned.wrote}):
            return f"{layout} {of}: writes into {', '.join(wrote)}, or next to it"
        if expected.wrong(heard.results).any():
            return f"wrong for {layout} {of}, right for contiguous: strides are ignored"
        tried = True
    return _held(tried, refused)


def _of_two_dimensions(probe: Probe) -> Sample:
    """Return a sample of 6 by 33 numbers; of a loss of separate elements too."""
    if probe.record.kind == "loss" and probe.record.coupled is None:
        return probe.sample(1, 6 * 33).shaped((6, 33), -1)
    return probe.sample(33, 6)


def _laid(layout: MemoryLayout, of: str, call: Call) -> Call:
    if of != "grad_output":
        call = replace(call, layout=layout)
    return call if of == "input" else replace(call, vector_layout=layout)


def _has_vector(probe: Probe) -> bool:
    """Return whether a quantity is a product with grad_output or with a tangent."""
    return probe.quantity.role in ("vjp", "jvp", "gradient")


def _repeating(s: Sample, layout: MemoryLayout, of: str) -> Sample:
    """Return a sample with contents that a layout can hold: of one row, or of one number."""

    def repeated(a: Tensor) -> Tensor:
        if not a.dim() or layout not in REPEATING:
            return a
        one = {"expanded": a[:1], "broadcast": a[..., :1], "one number": a.reshape(-1)[:1]}[layout]
        return one.expand(a.shape).contiguous()

    if of != "input":
        s = replace(s, grad_output=repeated(s.grad_output), tangent=repeated(s.tangent))
    if of == "grad_output":
        return s
    return replace(s, arrays={name: repeated(a) for name, a in s.arrays.items()})


REPEATED = 257
"""How often a sample is repeated in an array of more than 2^24 elements."""


def large(probe: Probe, runner: Runner) -> str:
    """Test an array of more elements than float32 can count: a sample of rows, repeated."""
    if probe.case.parameters or probe.is_reduced:
        raise NotTriedError
    s = probe.sample(4099, 16) if probe.kernel.is_coupled else probe.sample(65_537, 1)
    rows = len(s.grad_output)
    heard = probe.ask(runner, s.take(torch.arange(rows).repeat(REPEATED)))
    if heard.results is None:
        return heard.problem
    parts = heard.results.reshape(REPEATED, rows, *heard.results.shape[1:])
    expected = probe.expected(s)
    for i in (0, *np.flatnonzero(np.any(parts != parts[0], axis=tuple(range(1, parts.ndim))))):
        if (off := expected.wrong(parts[i])).any():
            return f"elements from {int(i) * off.size:,} of {parts.size:,}: {_places(off)}"
    return ""


# --- contents ------------------------------------------------------------------------------------


def _targets(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test class indices: the last class, one class, those that are ignored, and int32."""
    if probe.record.kind == "elementwise":
        raise NotTriedError
    s = probe.sample(CLASSES, 7)
    indices = [n for n, a in s.arrays.items() if not a.is_floating_point()]
    if not indices:
        raise NotTriedError
    (name,) = indices
    if problem := _all(probe, runner, _of_targets(probe, name)):
        return problem
    int32 = replace(s, arrays={**s.arrays, name: s.arrays[name].int()})
    return _all(probe, runner, [("int32 targets", int32)], may_refuse=True)


def _of_targets(probe: Probe, name: str) -> Labelled:
    def having(s: Sample, target: Tensor) -> Sample:
        return replace(s, arrays={**s.arrays, name: target})

    s = probe.sample(CLASSES, 7)
    target = s.arrays[name]
    yield "the last class", having(s, torch.full_like(target, CLASSES - 1))
    yield "the first class", having(s, torch.zeros_like(target))
    first = probe.record.arguments[0]
    if first in probe.real(s):
        led = s.arrays[first].clone()
        rows, gaps = torch.arange(7, device=led.device), torch.arange(2.0, 16.0, 2.0)
        led[rows, target] = led.amax(-1) + gaps.to(led)
        yield "targets that lead by 2 to 14", replace(s, arrays={**s.arrays, first: led})
    one = probe.sample(1, 7)
    yield "one class", having(one, torch.zeros_like(one.arrays[name]))
    ignored = _ignored(probe, s, name)
    if ignored is None:
        return
    yield f"some targets are {ignored}", _with_some_ignored(probe, s)
    if probe.kernel.accepts(probe.role, "ignore_index"):
        parameters = {**probe.case.parameters, "ignore_index": 0}
        of_first = replace(probe, case=replace(probe.case, parameters=parameters))
        some = _with_some_ignored(of_first, of_first.sample(CLASSES, 7))
        yield "ignore_index is 0", some
    if not (probe.is_reduced and probe.quantity.reduction == "mean"):
        yield f"all targets are {ignored}", having(s, torch.full_like(target, ignored))


def _ignored(probe: Probe, s: Sample, name: str) -> int | None:
    """Return the class index that does not count, if the kernel takes one."""
    domain = probe.record.array_domains(dict(s.parameters))[name][0]
    ignored = s.parameters.get(domain.ignored)
    return None if ignored is None or not probe.kernel.takes(domain.ignored) else int(ignored)


def _with_some_ignored(probe: Probe, s: Sample) -> Sample:
    """Return a sample of which every third class index is one that does not count."""
    arrays = dict(s.arrays)
    for name, target in s.arrays.items():
        if not target.is_floating_point() and (ignored := _ignored(probe, s, name)) is not None:
            arrays[name] = target.clone()
            arrays[name][::3] = ignored
    return replace(s, arrays=arrays)


def _parameters(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test parameters each alone and two at a time, where the cases vary them together."""
    if probe.case.parameters:
        raise NotTriedError
    return _all(probe, runner, _of_parameters(mode, probe))


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
                setting = replace(probe, case=replace(probe.case, parameters=given))
                s = _with_some_ignored(setting, setting.sample(CLASSES, 7))
                yield f"with {', '.join(given)} alone", s


def _by_class(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test arrays that broadcast with one number for each class, of which there are rows."""
    if probe.case.parameters:
        raise NotTriedError
    return _all(probe, runner, _of_arrays_by_class(probe), may_refuse=True)


def _of_arrays_by_class(probe: Probe) -> Labelled:
    given = {name: value for case in probe.record.cases for name, value in case.items()}
    for name, domain in given.items():
        if isinstance(domain, Domain) and domain.broadcasts and probe.kernel.takes(name):
            setting = replace(probe, case=replace(probe.case, parameters={name: domain}))
            s = setting.sample(1, 7 * CLASSES).shaped((7, CLASSES), -1)
            arrays = {**s.arrays, name: s.arrays[name][0].contiguous()}
            yield (
                f"{name} with one number for each class",
                replace(s, arrays=arrays, by_class=(name,)),
            )


def _contents(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test infinities, NaN and masked elements: what the function tends to, or torch's choice."""
    if probe.record.kind == "elementwise":
        raise NotTriedError  # asked about at every one of them
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
    return _held(tried, refused)


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
            changed[1 if a.dim() == 1 else (1, 2)] = value
            yield f"{name} with {value:g} in a row", replace(s, arrays={**s.arrays, name: changed})
    for name in probe.real(s) if probe.record.coupled and contract.inf != "any" else ():
        long = probe.sample(33, 6)
        for label, masked in (("the first half", slice(16)), ("all but the last", slice(32))):
            changed = long.arrays[name].clone()
            changed[..., masked] = -torch.inf
            yield f"{name} with {label} -inf", replace(long, arrays={**long.arrays, name: changed})
    if contract.subnormals == "keep":
        smallest = torch.finfo(probe.case.torch_dtype).smallest_normal
        tiny = {name: s.arrays[name] * (smallest / 16) for name in probe.real(s)}
        if tiny:
            yield f"subnormal {', '.join(tiny)}", replace(s, arrays={**s.arrays, **tiny})


def _edges(domain: Domain) -> Iterator[float]:
    """Yield what is at the ends of a domain, and beyond its numbers."""
    if domain.is_discrete:
        return
    for end in (domain.low, domain.high):
        if not (domain.open_low and end == domain.low):
            yield end
    yield float("nan")


def _vectors(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test grad_output, or the tangent, that is 0, large or tiny."""
    if not _has_vector(probe) or probe.role == "value_and_gradient":
        raise NotTriedError
    return _all(probe, runner, _of_vectors(probe))


def _of_vectors(probe: Probe) -> Labelled:
    s = probe.sample(33 if probe.record.coupled or probe.record.kind == "elementwise" else 1, 6)
    name = "tangent" if probe.quantity.role == "jvp" else "grad_output"
    for label, factor in (("of 0", 0.0), ("times 256", 256.0), ("times 2^-12", 2.0**-12)):
        scaled = replace(s, grad_output=s.grad_output * factor, tangent=s.tangent * factor)
        yield f"{name} {label}", scaled


TESTS: dict[str, Callable[[Mode, Probe, Runner], str]] = {
    "lengths": _lengths,
    "numbers of rows": _counts,
    "ranks": _ranks,
    "layouts": _layouts,
    "targets": _targets,
    "parameters alone": _parameters,
    "parameters by class": _by_class,
    "contents": _contents,
    "vectors": _vectors,
}
"""What is tried of every quantity, by the name that its verdict has."""
