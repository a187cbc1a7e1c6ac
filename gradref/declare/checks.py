"""Whether a declaration is whole: what the toolkit would otherwise stumble over, by its name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gradref.declare.facts import Kink
from gradref.declare.operation import Operation

POINTS = (-3.25, -0.75, 0.625, 2.5)
"""Where a truth is tried."""

FAR = 2.0**200
"""Where f, f′ and f″ are at their limits to several digits, if they have any."""

CLOSE = 1e-6


def problem(record: Operation) -> str:
    """Return what is wrong with a declaration; empty if nothing is."""
    return next(_problems(record), "")


def _problems(record: Operation) -> Iterator[str]:
    if not (record.formula.__doc__ or "").strip():
        yield "has no docstring, wants one: its first line is what lists and pages say of it"
    if record.kind in ("loss", "batch") and "gradient" not in record.derivatives:
        yield f"has no gradient, wants one: a function under @gradient({record.name})"
    if record.kind == "elementwise":
        yield from _of_truth(record)


def _of_truth(record: Operation) -> Iterator[str]:
    from flint import arb_series

    for x in POINTS:
        try:
            found = _jet(record, x)
        except Exception as error:  # a truth is somebody's function
            yield (
                f"has a truth that raises {type(error).__name__}: {error}; wants a function of"
                " flint.arb_series, as docs/declare.md says"
            )
            return
        if not isinstance(found, arb_series):
            yield f"has a truth that gives {type(found).__name__}, wants a flint.arb_series"
            return
    assert record.facts is not None  # an elementwise operation has facts
    facts = record.facts.at(**record.parameters)
    for at, declared in facts.limits.items():
        if len(declared) != 3:
            yield f"declares {declared} for its limits at {at:g}, wants f, f′ and f″"
            return
        yield from _of_limits(record, at, declared)
    for kink in facts.kinks.values():
        yield from _of_kink(kink)


def _jet(record: Operation, x: float) -> Any:
    from flint import arb_series, ctx

    from gradref.truth.jets import exactly

    with ctx.workprec(1024):
        return record.truth(arb_series([x, 1], prec=3), **exactly(record.parameters))


def _of_limits(record: Operation, at: float, declared: tuple[float, ...]) -> Iterator[str]:
    series = _jet(record, math.copysign(FAR, at))
    for order, limit in enumerate(declared):
        tends_to = float(series[order]) * (1, 1, 2)[order]
        if math.isnan(limit) or not series[order].is_finite():
            continue  # there is none, or a truth that is not made for so large a number
        is_near = abs(tends_to) > 1e12 if math.isinf(limit) else _is_near(tends_to, limit)
        if not is_near or (math.isinf(limit) and tends_to * limit < 0):
            what = f"f{'′' * order} at {at:g}"
            yield f"declares the limit {limit:g} of {what}, and its truth tends to {tends_to:.6g}"


def _is_near(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(1.0, abs(b))


def _of_kink(kink: Kink) -> Iterator[str]:
    if kink.left == kink.right:
        yield f"declares a kink at {kink.at:g}, where f, f′ and f″ do not jump"
