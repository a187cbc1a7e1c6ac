"""Results for labelled samples beside what is expected of them, and in words what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from gradref.contenders.call import Call
from gradref.contenders.libraries import UnsupportedError
from gradref.contenders.probe import Expected, Heard, NotTriedError, Probe
from gradref.contenders.sandbox import Runner
from gradref.judge.gates import Mask
from gradref.judge.questions import Sample

FEW = 8
"""About so many elements of an array are asked alone."""

AROUND = 97, 61
"""Elements that are put before and behind some, to ask of them elsewhere."""

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
    return f"{label}: {places(off)}" if off.any() else ""


def right_for_all(
    probe: Probe, runner: Runner, samples: Labelled, *, may_refuse: bool = False
) -> str:
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
        found = heard.problem or misuse(probe, heard)
        if heard.results is not None and not found:
            off = expected.wrong(heard.results)
            is_new = off.any() and not (probe.fails and _follows_the_inputs(probe, runner, s, off))
            found = places(off) if is_new else ""
        if found and not probe.fails and is_right(expected, probe.ask(runner, s)):
            found += "; asked again they are right"
        right |= not found
        problem = problem or (f"{label}: {found}" if found else "")
        if problem and (right or not probe.fails):
            return problem
    return held(right, refused)


def _follows_the_inputs(probe: Probe, runner: Runner, s: Sample, off: Mask) -> bool:
    """Return whether an elementwise function is wrong at the same inputs, among others or alone."""
    if probe.record.kind != "elementwise":
        return False
    flat = s.mapped(lambda a: a.reshape(-1))
    expected, off = probe.expected(flat), off.reshape(-1)
    before, behind = (probe.sample(count, 1).mapped(torch.flatten) for count in AROUND)

    def is_off(asked: Sample, answers: slice, at: slice) -> bool:
        heard = probe.ask(runner, asked.mapped(lambda a: a[None]))
        if heard.results is None:
            return False
        got = expected.truth.copy()
        got[at] = heard.results.reshape(-1)[answers]
        return bool((expected.wrong(got)[at] == off[at]).all())

    whole, some = slice(None), slice(None, None, max(1, off.size // FEW))
    among = flat.joined(before, behind)
    return is_off(among, slice(AROUND[0], -AROUND[1]), whole) and is_off(
        flat.take(some), whole, some
    )


def misuse(probe: Probe, heard: Heard) -> str:
    """Return what calls have done to memory or to torch that is not theirs, if anything."""
    wrote, shares, changed = (
        ", ".join(sorted({name for returned in heard.calls for name in getattr(returned, what)}))
        for what in ("wrote", "shares", "changed")
    )
    if wrote:
        return f"writes into {wrote}, or next to it"
    if shares and (probe.role != "function" or probe.quantity.role == "value"):
        return f"returns memory of {shares}: who changes one changes the other"
    return f"changes {changed} of the process" if changed else ""


def is_right(expected: Expected, heard: Heard) -> bool:
    """Return whether there are results, and none is wrong."""
    return heard.results is not None and not expected.wrong(heard.results).any()


def held(tried: bool, refused: str) -> str:
    """Return that nothing is wrong; raise where the kernel refuses, or nothing was compared."""
    if refused:
        raise UnsupportedError(refused)
    if not tried:
        raise NotTriedError
    return ""


def places(off: Mask) -> str:
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
