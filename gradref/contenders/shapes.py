"""Questions of real size and shape: lengths, counts of rows, ranks, layouts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.compare import (
    Labelled,
    held,
    is_right,
    misuse,
    places,
    right_for_all,
    wrong,
)
from gradref.contenders.libraries import UnsupportedError
from gradref.contenders.memory import MemoryLayout
from gradref.contenders.probe import NotTriedError, Probe
from gradref.contenders.sandbox import Runner
from gradref.judge.questions import Quantity, Sample

Mode = Literal["quick", "full"]

LENGTHS: dict[Mode, tuple[int, ...]] = {
    "quick": (1, 2, 3, 7, 8, 31, 33, 64, 127, 129, 255, 257, 1023, 1025, 2049, 4099),
    "full": (
        *range(192),  # every residue of 64 behind whole blocks, and of 96
        *sorted({2**k + d for k in range(8, 18) for d in (-1, 0, 1)}),
        *(100, 500, 1000, 5000, 10_000, 100_000, 4099, 100_003),
        *(30_522, 32_000, 50_257, 50_304, 128_256, 151_936),
    ),
}
"""Of rows, and of vectors of separate elements: around every power of two to 2^17, round numbers,
primes, and the sizes of vocabularies.
"""

COUNTS: dict[Mode, tuple[int, ...]] = {
    "quick": (0, 1, 2, 8, 33, 257, 2049),
    "full": (0, 1, 2, 7, 8, 9, 33, 255, 256, 257, 2047, 2048, 2049, 4097, 65_537, 100_003),
}
"""Of rows, which a kernel may spread over programs, of which CUDA has at most 65,535 in y and z."""

BLOCKS: dict[Mode, tuple[tuple[int, int], ...]] = {
    "quick": ((65, 9), (130, 34)),
    "full": ((65, 9), (130, 34), (259, 130), (1027, 301), (131, 2050), (17, 70_001)),
}
"""Lengths together with numbers of rows: a block of a kernel has both."""

CLASSES = 5
"""Elements of the rows that are counted."""

MANY = 1 << 15
"""Elements of a row from which on there are few rows."""

SHAPES: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "quick": ((), (5,), (2, 3, 4), (2, 1, 3, 4)),
    "full": (
        *((), (5,), (3, 4), (1, 1), (2, 5), (2, 3, 4), (2, 1, 3, 4)),
        *((2, 2, 1, 2, 3), (2, 1, 2, 1, 2, 3)),
    ),
}

LAYOUTS: dict[Mode, tuple[MemoryLayout, ...]] = {
    "quick": ("transposed", "expanded", "one number"),
    "full": (
        *("transposed", "strided", "offset", "expanded", "broadcast", "one number"),
        "channels last",
    ),
}

REPEATING: tuple[MemoryLayout, ...] = ("expanded", "broadcast", "one number")
"""Views in which several elements lie in one place."""


def _lengths(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that results of every length are right."""
    problem = right_for_all(probe, runner, _of_lengths(mode, probe))
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
    for length in LENGTHS[mode]:
        if length == 0 and (is_coupled or probe.is_reduced):
            continue  # a row of nothing has no softmax, and there is no mean of no number
        is_chosen = length in LENGTHS["quick"] or length >= 192
        if probe.is_reduced and not is_chosen:
            continue
        rows = 1 if length > MANY or probe.record.coupled is None else 3 if length > 128 else 6
        s = probe.sample(length, rows)
        yield f"length {length}", s
        if is_coupled and is_chosen and length > 8 and probe.real(s):
            yield f"length {length}, led by the last element", _far_above_0(probe, s)


def _far_above_0(probe: Probe, s: Sample) -> Sample:
    """Return rows of which every exponential overflows; the last element leads the first row."""
    far = 800.0 if probe.case.torch_dtype is torch.float64 else 200.0
    arrays = dict(s.arrays)
    for name in probe.real(s) - set(s.by_class):
        arrays[name] = s.arrays[name] + far
        arrays[name][0, -1] += far
    return replace(s, arrays=arrays)


def _counts(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that results of every number of rows are right, the largest rows last in a sum."""
    if probe.record.kind == "elementwise":
        raise NotTriedError
    return right_for_all(probe, runner, _of_counts(mode, probe))


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
    return right_for_all(probe, runner, _of_ranks(mode, probe), may_refuse=True)


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
        dims = {
            "dim": (*range(len(shape) + 1), -1, *((-2,) if shape else ())),
            "class": (min(1, len(shape)),),
            "last": (-1,),
        }
        for dim in dims[coupled]:
            s = probe.with_some_ignored(probe.sample(CLASSES, size)).shaped(shape, dim)
            yield f"rows of {CLASSES} along dim {dim} of rank {len(shape) + 1}", s


def _layouts(mode: Mode, probe: Probe, runner: Runner) -> str:
    """Test that views, by strides, offset or broadcast, give what contiguous memory gives."""
    if probe.kernel.contract.contiguous:
        raise NotTriedError
    layouts: Sequence[MemoryLayout] = LAYOUTS[mode]
    if mode == "full" and probe.kernel.library == "numpy":
        layouts = (*layouts, "reversed")
    tried, refused = False, ""
    ranks = (2, 4) if mode == "full" else (2,)
    for layout, of, rank in itertools.product(layouts, OF, ranks):
        s = _to_lay(probe, layout, of, rank)
        if s is None:
            continue
        plain, expected = probe.ask(runner, s), probe.expected(s)
        if not is_right(expected, plain):
            if probe.fails or s.grad_output.dim() > 2:
                continue  # where it may refuse the rank
            return f"contiguous: {plain.problem or 'results are wrong'}"
        laid = partial(replace, layouts=dict.fromkeys(_laid(probe, s, of), layout))
        try:
            heard = probe.ask(runner, s, laid)
        except UnsupportedError as reason:
            refused = f"{layout} {of}: {reason}"
            continue
        if heard.results is None:
            return f"{layout} {of}: {heard.problem}"
        if problem := misuse(probe, heard):
            return f"{layout} {of}: {problem}"
        if expected.wrong(heard.results).any():
            if is_right(expected, probe.ask(runner, s, laid)):
                return f"{layout} {of}: wrong once, and right when asked again"
            return f"wrong for {layout} {of}, right for contiguous: strides are ignored"
        tried = True
    return held(tried, refused)


OF = ("input", "first argument", "other arguments", "grad_output", "both")
"""Which arrays lie in another way."""


def _laid(probe: Probe, s: Sample, of: str) -> tuple[str, ...]:
    """Return the names of the arrays that lie in another way; none where that says nothing new."""
    is_elementwise = probe.record.kind == "elementwise"
    arguments = ("x", *probe.record.arguments) if is_elementwise else tuple(s.arrays)
    has_vector = probe.has_vector and not probe.is_reduced
    vectors = ("grad_output", "tangent") if has_vector else ()
    return {
        "input": arguments,
        "first argument": arguments[:1] if len(s.arrays) > 1 else (),
        "other arguments": arguments[1:] if len(s.arrays) > 1 else (),
        "grad_output": vectors,
        "both": (*arguments, *vectors) if vectors else (),
    }[of]


def _to_lay(probe: Probe, layout: MemoryLayout, of: str, rank: int) -> Sample | None:
    """Return a sample that a layout can hold; None where it is not for the kernel."""
    if rank == 4 and not probe.kernel.contract.takes_rank(4):
        return None
    s = _of_four_dimensions(probe) if rank == 4 else probe.fitted(_of_two_dimensions(probe))
    names = _laid(probe, s, of)
    if not names or not probe.is_taken(s) or (layout == "reversed" and of != "input"):
        return None
    if probe.kernel.contract.in_place and layout in REPEATING:
        return None  # such memory cannot be written to
    return _repeating(s, layout, names)


def _of_two_dimensions(probe: Probe) -> Sample:
    """Return a sample of 6 by 33 numbers; of a loss of separate elements too."""
    s = probe.sample(33, 6)
    is_flat = probe.record.kind == "loss" and probe.record.coupled is None
    return s.shaped((6, 33), -1) if is_flat else s


def _of_four_dimensions(probe: Probe) -> Sample:
    """Return a sample of 6 by 5 by 2 by 2 numbers, dimension 1 that of the classes."""
    if probe.record.kind == "elementwise":
        return probe.sample(20, 6).mapped(lambda a: a.reshape(6, 5, 2, 2))
    if probe.record.coupled is None:
        return probe.sample(1, 6 * 5 * 4).shaped((6, 5, 2, 2), -1)
    return probe.sample(5, 24).shaped((6, 2, 2), 1 if probe.record.coupled == "class" else -1)


def _repeating(s: Sample, layout: MemoryLayout, names: Collection[str]) -> Sample:
    """Return a sample with contents that a layout can hold: of one row, or of one number."""

    def repeated(name: str, a: Tensor) -> Tensor:
        if name not in names or not a.dim() or layout not in REPEATING:
            return a
        one = {"expanded": a[:1], "broadcast": a[..., :1], "one number": a.reshape(-1)[:1]}[layout]
        return one.expand(a.shape).contiguous()

    return replace(
        s,
        arrays={name: repeated(name, a) for name, a in s.arrays.items()},
        grad_output=repeated("grad_output", s.grad_output),
        tangent=repeated("tangent", s.tangent),
    )


REPEATED = 257
"""How often a sample is repeated in an array of more than 2^24 elements."""


def large(probe: Probe, runner: Runner) -> str:
    """Test an array of more elements than float32 can count: a sample of rows, repeated."""
    q = probe.quantity
    if probe.case.parameters or (probe.is_reduced and q.role != "value"):
        raise NotTriedError
    s = probe.sample(4099, 16) if probe.kernel.is_coupled else probe.sample(65_537, 1)
    rows = len(s.grad_output)
    heard = probe.ask(runner, s.take(torch.arange(rows).repeat(REPEATED)))
    if heard.results is None:
        return heard.problem
    expected = probe.expected(s)
    if probe.is_reduced:
        expected = expected.scaled(REPEATED if q.reduction == "sum" else 1)
        is_wrong = expected.wrong(heard.results).any()
        return f"wrong over {REPEATED * rows:,} rows" if is_wrong else ""
    parts = heard.results.reshape(REPEATED, rows, *heard.results.shape[1:])
    for i in (0, *np.flatnonzero(np.any(parts != parts[0], axis=tuple(range(1, parts.ndim))))):
        if (off := expected.wrong(parts[i])).any():
            return f"elements from {int(i) * off.size:,} of {parts.size:,}: {places(off)}"
    return ""


TESTS: dict[str, Callable[[Mode, Probe, Runner], str]] = {
    "lengths": _lengths,
    "numbers of rows": _counts,
    "ranks": _ranks,
    "layouts": _layouts,
}
"""What is tried of every quantity, by the name that its verdict has."""
