"""Say what is probably wrong with a kernel, judging by where its results are off, and how much."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from gradref.judge.evidence import AT_THE_EDGE, Evidence
from gradref.judge.gates import Mask
from gradref.judge.inputs import HALVES
from gradref.judge.ulp import spacing, to_floats
from gradref.truth.jets import Floats

PLACES = ("the entry of the true class",)
"""Branches that are a place among the results, not a range of inputs."""

MANY = 0.9
"""The share of the wrong results that a mistake has to explain."""

LEAP = 16
"""An error of so many times the bound at the edge of right results is a leap."""

WIDE_GAP = 1 / 32
"""The least gap of right results between two intervals of wrong ones, as a share of their span."""


def explain(e: Evidence, ulp: Floats, wrong: Mask) -> tuple[str, ...]:
    """Return at most three sentences, the likeliest cause first."""
    found: list[str] = []
    signs = wrong & (e.got == 0) & (ulp <= e.allowed)
    wrong = wrong & ~signs
    for rule in RULES if wrong.any() else ():
        with np.errstate(all="ignore"):
            new = [words for words in rule(e, ulp, wrong) if words not in found]
        found += new
        if len(found) >= 3 or (new and rule in CONCLUSIVE):
            break
    if wrong.any() and not found:
        found += _somewhere(e, ulp, wrong)
    if signs.any():
        found.append(f"a zero of the wrong sign {_range(e, signs)}")
    return tuple(found[:3])


# --- mistakes with a name ------------------------------------------------------------------------


def _known_mistakes(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield each known mistake that predicts these results wherever it makes a difference."""
    comparable = np.isfinite(e.got) & np.isfinite(e.truth.high)
    failing = wrong & comparable
    if failing.sum() < 3 or failing.sum() < 0.5 * wrong.sum():
        return
    truth, step = e.truth.high, spacing(e.truth.high, e.dtype)
    for words, prediction in e.mistakes():
        explained = np.abs(e.got - prediction) <= np.maximum(np.abs(e.got - truth) / 16, step)
        explained &= np.abs(e.got - prediction) < np.abs(e.got - truth)
        matters = failing | (comparable & (np.abs(prediction - truth) > 4 * step))
        is_zero = not prediction[failing].any()  # as much else is, from underflow to cancellation
        shares = np.mean(explained[failing]), np.mean(explained[matters])
        if min(shares) >= MANY and not is_zero:
            yield words


def _constant(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if every result is the same, or NaN: nothing was computed."""
    if len(e.got) < 3:
        return
    if np.isnan(e.got).all() and np.mean(np.isnan(e.truth.high)) < 0.5:
        yield "every result is NaN"
    if (e.got == e.got[0]).all() and not (e.truth.high == e.truth.high[0]).all():
        yield f"every result is {e.got[0]:g}"


def _proportional(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if the results are a multiple of the truth."""
    usable = np.isfinite(e.got) & np.isfinite(e.truth.high) & (e.truth.high != 0) & (e.got != 0)
    if usable.sum() < 8 or (wrong & usable).sum() < 0.5 * usable.sum():
        return
    ratio = e.got[usable] / e.truth.high[usable]
    middle = float(np.median(ratio))
    eps = torch.finfo(e.dtype).eps
    if np.mean(np.abs(ratio / middle - 1) <= 8 * eps) >= MANY and abs(middle - 1) > 8 * eps:
        if middle == -1:
            yield "the sign is wrong"
        elif abs(middle) < 1:
            yield f"too small by a factor of {1 / middle:.6g}"
        else:
            yield f"too large by a factor of {middle:.6g}"


# --- what happens to special numbers -------------------------------------------------------------


def _not_a_number(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence for NaN or infinity in place of a number, and for the reverse."""
    swallowed = wrong & np.isnan(e.truth.high) & ~np.isnan(e.got)
    if e.is_elementwise:
        swallowed &= np.isnan(e.x)
    if swallowed.any():
        yield f"NaN is swallowed: it gives {e.got[swallowed][0]:g}"
    at_infinity = wrong & (np.isinf(e.x) if e.is_elementwise else False)
    if np.any(at_infinity & np.isnan(e.got)):
        yield f"NaN {_range(e, at_infinity & np.isnan(e.got))}: inf * 0 or inf - inf"
    finite = wrong & np.isfinite(e.truth.high) & ~at_infinity
    for lost, what in ((finite & np.isnan(e.got), "NaN"), (finite & np.isinf(e.got), "infinity")):
        if lost.any():
            yield f"{what} {_range(e, lost)}, where the truth is a number{_cause(e, lost)}"


def _cause(e: Evidence, lost: Mask) -> str:
    """Return why numbers became NaN or infinite, as far as that can be told."""
    near_overflow = 0.9 * float(np.log(torch.finfo(e.dtype).max))
    if e.quantity.endswith("[mean]") and not e.truth.high[lost].any():
        return ": 0/0 in a mean, of which no row counts"
    far = np.min(np.abs(e.truth.high[lost])) > near_overflow
    if far and np.isinf(e.got[lost]).all() and not e.is_elementwise:
        return ": the logarithm of a probability that underflows to 0"
    if np.isnan(e.got[lost]).all() and e.branches.get(AT_THE_EDGE, np.zeros_like(lost))[lost].all():
        return ": 0 * log 0"
    edge = float(np.min(np.abs(e.x[lost])))
    if not e.is_elementwise:
        unshifted = ": exp overflows, the maximum of a row is not subtracted"
        return unshifted if edge > near_overflow else ""
    found = (words for low, high, words in _edges(e.dtype) if low <= edge <= high)
    return "".join(f": {words}" for words in itertools.islice(found, 1))


def _edges(dtype: torch.dtype) -> Iterator[tuple[float, float, str]]:
    """Yield what overflows where numbers become infinite or NaN from some size on."""
    largest = torch.finfo(dtype).max
    exponent = float(np.log(largest))
    yield 0.9 * exponent, 1.5 * exponent, "exp overflows"
    if dtype is not torch.float16:
        yield 65488.0, 65552.0, "it is computed in float16"
    yield 0.5 * largest**0.5, 2 * largest**0.5, "a square overflows"
    yield 0.5 * largest ** (1 / 3), 2 * largest ** (1 / 3), "a cube overflows"
    yield largest / 8, largest, "a multiple of it overflows"


def _clamped(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if one result, not 0, is given for all inputs beyond some point."""
    if not e.is_elementwise:
        return
    order = np.argsort(e.x)
    for side in (order, order[::-1]):
        got, x = e.got[side], e.x[side]
        run = int(np.argmax(got != got[0])) if (got != got[0]).any() else len(got)
        inside = side[:run]
        some = np.isfinite(got[0]) and got[0] != 0
        if run > 8 and _varies(e, inside) and some and np.mean(wrong[inside]) >= 0.5:
            edge = f"x <= {x[run - 1]:.6g}" if x[0] < 0 else f"x >= {x[run - 1]:.6g}"
            yield f"constant, {got[0]:.6g}, for {edge}: made for a range of inputs, and clamped"


def _varies(e: Evidence, inside: NDArray[np.intp]) -> bool:
    """Return whether the truth is not about the same at some places, as where it saturates."""
    truth = e.truth.high[inside]
    return bool(np.ptp(truth) > LEAP * torch.finfo(e.dtype).eps * np.max(np.abs(truth)))


def _kink(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if a result at a kink is wrong."""
    at_kink = wrong & e.branches.get("kink", np.zeros_like(wrong))
    if at_kink.any():
        at = int(np.flatnonzero(at_kink)[0])
        yield (
            f"another value at the kink {e.x[at]:g}: got {e.got[at]:g},"
            f" torch's choice is {e.truth.high[at]:g}"
        )


# --- how digits are lost -------------------------------------------------------------------------


def _zero(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if results are 0 where the truth is not."""
    lost = wrong & (e.got == 0) & np.isfinite(e.truth.high) & (e.truth.high != 0)
    if lost.sum() >= max(1, 0.02 * wrong.sum()):
        largest = float(np.max(np.abs(e.truth.high[lost])))
        smallest = torch.finfo(e.dtype).smallest_normal
        kept = (e.got != 0) & (np.abs(e.got) < smallest) & (np.abs(e.truth.high) < smallest)
        why = _cause(e, lost) if e.is_elementwise and kept.any() else ""
        why = why if "exp" in why else ""  # another overflow gives no 0
        if largest < smallest and not kept.any():
            why = ": subnormal numbers are flushed to zero"
        yield f"exactly 0 {_range(e, lost)}, where the truth is as large as {largest:.3g}{why}"


def _cancellation(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if the error of small results is absolute, as the last digit of 1 is."""
    finite = wrong & (e.got != 0) & np.isfinite(e.got) & np.isfinite(e.truth.high)
    small = finite & (np.abs(e.truth.high) < 2.0**-3)
    if small.sum() < 3 or small.sum() < 0.5 * finite.sum():
        return
    eps = torch.finfo(e.dtype).eps
    scale = np.maximum(1.0, np.abs(e.x)) if e.is_elementwise else 1.0
    error = np.abs(e.got - e.truth.high) / scale
    if np.mean(error[small] <= 8 * eps) >= MANY and np.median(error[small]) > 2.0**-10 * eps:
        between = f", or steps rounded to {e.case.dtype}" if e.dtype in HALVES else ""
        yield (
            f"cancels {_range(e, small)}: the error is about the last digit of 1, as in 1 + erf,"
            f" 1 + tanh, 1 - sigmoid{between}"
        )
        return
    relative = (np.abs(e.got - e.truth.high) / np.abs(e.truth.high))[small]
    largest = np.argsort(np.abs(e.truth.high[small]))
    quarter = max(1, len(largest) // 4)
    grows = np.median(relative[largest[:quarter]]) > 16 * np.median(relative[largest[-quarter:]])
    typical = float(np.quantile(error[small], 0.99))
    if grows and typical < 2.0**-6:
        yield (
            f"an absolute error of about {typical:.1g} {_range(e, small)}, where results are"
            " small: a polynomial or a table without relative accuracy"
        )


def _exponent(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if the error in ulp is in proportion to the logarithm of the result."""
    finite = wrong & np.isfinite(ulp) & (e.truth.high != 0)
    if finite.sum() < 3 or finite.sum() < 0.5 * wrong.sum():
        return
    if not e.is_elementwise and not ((e.truth.high >= 0) & (e.truth.high <= 1)).all():
        return  # not the exponential of anything: no probability
    if np.mean(ulp[finite] <= 4 * np.abs(np.log(np.abs(e.truth.high[finite])))) >= MANY:
        yield f"the argument of an exponential is rounded: digits are lost {_range(e, finite)}"


def _precision(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if the relative error is small everywhere, but not small enough."""
    usable = np.isfinite(e.got) & np.isfinite(e.truth.high) & (e.truth.high != 0) & (e.got != 0)
    usable &= np.abs(e.truth.high) >= torch.finfo(e.dtype).smallest_normal
    if usable.sum() < 8 or (wrong & usable).sum() < 0.25 * usable.sum():
        return
    relative = np.abs(e.got[usable] / e.truth.high[usable] - 1)
    typical = float(np.quantile(relative, 0.9))
    if 0 < typical < 0.05:
        digits = int(np.floor(-np.log2(typical)))
        why = _arithmetic(e.got[usable], digits, e.dtype)
        yield f"about {digits} correct bits everywhere: {why}"


def _arithmetic(got: Floats, bits: int, dtype: torch.dtype) -> str:
    """Return what results with so many correct bits were probably computed in."""
    for narrow in (torch.bfloat16, torch.float16, torch.float32):
        is_narrower = torch.finfo(narrow).eps > torch.finfo(dtype).eps
        if is_narrower and np.mean(to_floats(torch.from_numpy(got).to(narrow)) == got) >= MANY:
            return f"computed in {narrow}".replace("torch.", "")
    if dtype is torch.float64 and 20 <= bits <= 25:
        return "computed in float32"
    return "rounded between steps, accumulated in too few bits, or a fast approximation of exp"


def _scattered(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if a few results are grossly wrong, scattered among right ones."""
    wrong = wrong & np.isfinite(e.got) & (e.got != 0)
    share = float(np.mean(wrong))
    right = ~wrong & np.isfinite(e.truth.high)
    if wrong.sum() < 5 or share > 0.25 or not right.any():
        return
    position = np.flatnonzero(wrong)
    spread = (position[-1] - position[0]) / len(wrong)
    order = np.argsort(e.x) if e.is_elementwise else np.arange(len(wrong))
    neighbours = wrong[order]
    runs = np.count_nonzero(neighbours[1:] & neighbours[:-1]) / max(1, wrong.sum())
    gross = np.median(np.abs(e.got - e.truth.high)[wrong] / np.abs(e.truth.high)[wrong]) > 2.0**-4
    if spread > 0.5 and runs < 0.5 and gross:
        yield f"{share:.1%} of the results are garbage, scattered among right ones"


def _another_formula(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield a sentence if the first digits are wrong at ordinary inputs."""
    centre = (np.abs(e.x) >= 2.0**-4) & (np.abs(e.x) <= 3)
    centre &= np.isfinite(e.got) & np.isfinite(e.truth.high)
    centre &= (np.abs(e.truth.high) > 2.0**-8) & (e.got != 0)
    if not e.is_elementwise or centre.sum() < 8 or np.mean(wrong[centre]) < 0.5:
        return
    relative = np.abs(e.got / e.truth.high - 1)[centre]
    if np.median(relative) > max(2.0**-12, 8 * torch.finfo(e.dtype).eps):
        yield (
            "another formula or constant, or an approximation: a relative error of"
            f" {np.median(relative):.1g} at ordinary inputs"
        )


def _somewhere(e: Evidence, ulp: Floats, wrong: Mask) -> Iterator[str]:
    """Yield, if no rule applies, where results are wrong, and whether only there."""
    words = f"off by up to {np.max(ulp[wrong]):.3g} ulp {_range(e, wrong)}"
    if e.is_elementwise and np.isfinite(e.x[wrong]).any():
        inside = np.zeros_like(wrong)
        for low, high in _intervals(e, wrong):
            inside |= (e.x >= low) & (e.x <= high)
        if np.mean(wrong[inside]) >= MANY and np.mean(inside) < 0.5:
            words += f", and nowhere else{_branch(e, ulp, wrong)}"
        if (e.got[wrong] == e.x[wrong]).all():
            words += "; it returns x itself there"
    for name in PLACES:
        if name in e.branches and not (wrong & ~e.branches[name]).any():
            words += f"; only {name} is wrong: it may have been updated in a rounded copy"
    yield words


def _branch(e: Evidence, ulp: Floats, wrong: Mask) -> str:
    """Return that a branch is taken wrongly where errors do not grow to a bound, but leap over it.

    So do those that begin at a kink.
    """
    edges = np.unique(_intervals(e, wrong))
    at_edges = wrong & np.isin(e.x, edges)
    kinks = e.x[e.branches.get("kink", np.zeros_like(wrong))]
    at_kinks = (np.abs(np.subtract.outer(edges, kinks)) <= np.abs(kinks) / 64).any()
    leaps = (ulp[at_edges] > LEAP * e.allowed[at_edges]).all()
    return ": a branch is missing or taken wrongly" if leaps or at_kinks else ""


def _range(e: Evidence, where: Mask) -> str:
    """Return the part of the inputs that a mask covers, in words."""
    if not e.is_elementwise:
        share = float(np.mean(where))
        least, most = np.min(e.x[where]), np.max(e.x[where])
        what = f"in {share:.1%} of the results" if share < 1 else "in every result"
        return f"{what}, of rows whose largest magnitude is {least:.3g} to {most:.3g}"
    if np.isnan(e.x[where]).all():
        return "at NaN"
    if np.isinf(e.x[where]).all():
        return "at x = " + " and ".join(f"{value:g}" for value in np.unique(e.x[where]))
    tested = e.x[np.isfinite(e.x)]
    return " and ".join(
        f"for x <= {high:.6g}"
        if low <= tested.min() / 2 and high < 0
        else f"for x >= {low:.6g}"
        if high >= tested.max() / 2 and low > 0
        else f"at x = {low:.6g}"
        if low == high
        else f"for x in [{low:.6g}, {high:.6g}]"
        for low, high in _intervals(e, where)
    )


def _intervals(e: Evidence, where: Mask) -> list[tuple[float, float]]:
    """Return at most three intervals of inputs that cover a mask, cut at its widest gaps."""
    line = np.argsort(e.x, kind="stable")[: np.count_nonzero(~np.isnan(e.x))]
    at = np.flatnonzero(where[line])
    gaps = np.diff(at)
    least = max(WIDE_GAP * (at[-1] - at[0]), 16 * np.median(gaps)) if len(gaps) else 0.0
    wide = [int(i) for i in np.argsort(gaps)[-2:] if gaps[i] > least]
    cuts = [0, *(i + 1 for i in sorted(wide)), len(at)]
    x = e.x[line][at]
    return [(float(x[a]), float(x[b - 1])) for a, b in pairwise(cuts)]


Rule = Callable[[Evidence, Floats, Mask], Iterator[str]]

RULES: tuple[Rule, ...] = (
    _constant,
    _kink,
    _known_mistakes,
    _proportional,
    _not_a_number,
    _another_formula,
    _clamped,
    _zero,
    _exponent,
    _cancellation,
    _scattered,
    _precision,
)

CONCLUSIVE: tuple[Rule, ...] = (
    _constant,
    _known_mistakes,
    _proportional,
    _clamped,
    _scattered,
    _cancellation,
    _exponent,
    _another_formula,
    _precision,
)
"""Rules that explain all of an error: none after them is asked."""
