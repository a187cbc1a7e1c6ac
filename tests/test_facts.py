"""Every fact, declared or computed, also a negative one, against our formulas and torch.

The facts of profiles, which losses of one residual or margin are made of, are tested alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gradref.contenders.witness import torch_jets
from gradref.declare.operation import NOT, Facts, Operation
from gradref.declare.registry import operations
from gradref.judge.elementwise import ORDERS
from gradref.truth.jets import jets

PROFILES = [record.profile for record in operations() if record.profile is not None]
ELEMENTWISE = [*(record for record in operations() if record.kind == "elementwise"), *PROFILES]
CASES = [
    pytest.param(record, {**record.parameters, **case}, id=f"{record.name}-{dict(case)}")
    for record in ELEMENTWISE
    for case in record.cases
]
GRID = np.concatenate([np.linspace(-30, 30, 1201), np.linspace(-1.01, 1.01, 402)])
FAR = 2.0**50
"""Where a function with algebraic tails too has come to its limits."""

pytestmark = pytest.mark.parametrize(("record", "parameters"), CASES)


def facts_of(record: Operation, parameters: dict[str, Any]) -> Facts:
    assert record.facts is not None
    return record.facts.at(**parameters)


def truth(record: Operation, x: Any, parameters: dict[str, Any]) -> Any:
    return jets(record.truth, np.atleast_1d(np.asarray(x, dtype=float)), **parameters).high


def with_extremes(record: Operation, parameters: dict[str, Any], order: int) -> Any:
    """The grid with the zeros of one order, where the order below is extreme, and around kinks."""
    facts = facts_of(record, parameters)
    kinks = np.array(list(facts.kinks))
    beside = [np.nextafter(kinks, side) for side in (-math.inf, math.inf)]
    return np.concatenate([GRID, facts.roots.get(order, []), *beside])


def ours(record: Operation, x: float, parameters: dict[str, Any]) -> list[float]:
    functions = (record.function, *(record.derivatives[name] for name in ORDERS[1:]))
    return [function(x, **parameters) for function in functions]


def test_kinks_have_unequal_sides(record: Operation, parameters: dict[str, Any]) -> None:
    """What Arb has computed of both sides is where our formulas go, which know nothing of it."""
    step = 2.0**-40
    for at, kink in facts_of(record, parameters).kinks.items():
        for side, limit in ((-step, kink.left), (step, kink.right)):
            for order, (found, other) in enumerate(
                zip(ours(record, at + side, parameters), limit, strict=True)
            ):
                rate = limit[order + 1] if order < 2 else 0.0
                assert found == pytest.approx(other + rate * side, abs=64 * step)
        assert kink.left != kink.right


def test_what_a_function_is_not(record: Operation, parameters: dict[str, Any]) -> None:
    """The first of f, f' and f" that jumps, seen from both sides: no declared number is used."""
    step = 2.0**-40
    for at, kink in facts_of(record, parameters).kinks.items():
        left, right = (ours(record, at + side, parameters) for side in (-step, step))
        jumps = [abs(a - b) > 64 * step for a, b in zip(left, right, strict=True)]
        assert kink.claim == NOT[jumps.index(True)]


def test_kinks_take_the_chosen_value(record: Operation, parameters: dict[str, Any]) -> None:
    for at, kink in facts_of(record, parameters).kinks.items():
        assert ours(record, at, parameters) == pytest.approx(kink.chosen, nan_ok=True)


def test_kinks_agree_with_torch(record: Operation, parameters: dict[str, Any]) -> None:
    for at, kink in facts_of(record, parameters).kinks.items():
        theirs = torch_jets(record, torch.tensor([at], dtype=torch.float64), parameters)
        for chosen, found in zip(kink.chosen, theirs, strict=True):
            if found is not None:
                assert found[0] == pytest.approx(chosen, rel=1e-12)


def test_no_kink_is_undeclared(record: Operation, parameters: dict[str, Any]) -> None:
    """Between neighbours the jets change little, but across a declared kink."""
    facts = facts_of(record, parameters)
    step = 2.0**-30
    x = np.round(GRID / step) * step
    found = truth(record, x, parameters), truth(record, x + step, parameters)
    jump = np.abs(found[1] - found[0]).max(axis=0) > 1e-6
    declared = np.any([np.isnan(x), *((x <= at) & (at <= x + step) for at in facts.kinks)], axis=0)
    assert not np.any(jump & ~declared), x[jump & ~declared]


def test_limits(record: Operation, parameters: dict[str, Any]) -> None:
    for at, limit in facts_of(record, parameters).limits.items():
        far = math.copysign(1e6, at)
        for reached, value in zip(truth(record, far, parameters)[:, 0], limit, strict=True):
            if math.isfinite(value):
                assert reached == pytest.approx(value, abs=1e-5)
            else:
                assert abs(reached) > 1e3
                assert math.copysign(1, reached) == math.copysign(1, value)
        assert tuple(ours(record, at, parameters)) == limit


def test_codomain(record: Operation, parameters: dict[str, Any]) -> None:
    """Nothing on the grid lies outside, and something on it is next to either end."""
    low, high = facts_of(record, parameters).codomain
    x = np.concatenate([with_extremes(record, parameters, 1), [-FAR, FAR]])
    values = truth(record, x, parameters)[0]
    assert values.min() >= low - 1e-15
    assert values.max() <= high
    for bound, extreme in ((low, values.min()), (high, values.max())):
        if math.isfinite(bound):
            assert extreme == pytest.approx(bound, abs=1e-12)
        else:
            assert abs(extreme) > 0.25


def test_lipschitz_constant(record: Operation, parameters: dict[str, Any]) -> None:
    facts = facts_of(record, parameters)
    points = np.concatenate([with_extremes(record, parameters, 2), [-FAR, FAR]])
    steepest = np.abs(truth(record, points, parameters)[1]).max()
    jumps = any(kink.left[0] != kink.right[0] for kink in facts.kinks.values())
    grows = any(math.isinf(limit[1]) for limit in facts.limits.values())
    assert math.isinf(facts.lipschitz) == (jumps or grows)
    if math.isfinite(facts.lipschitz):
        assert steepest == pytest.approx(facts.lipschitz, rel=1e-12)


def test_symmetry(record: Operation, parameters: dict[str, Any]) -> None:
    symmetry = facts_of(record, parameters).symmetry
    x = GRID[GRID > 0]
    right, left = truth(record, x, parameters)[0], truth(record, -x, parameters)[0]
    middle = ours(record, 0.0, parameters)[0]
    assert np.allclose(right, left, atol=1e-12) == (symmetry == "even")
    odd = np.allclose(right + left, 2 * middle, atol=1e-12)
    assert odd == (symmetry == "odd")


def test_monotone_and_convex(record: Operation, parameters: dict[str, Any]) -> None:
    facts = facts_of(record, parameters)
    sides = [np.nextafter(at, side) for at in facts.kinks for side in (-math.inf, math.inf)]
    x = np.unique(np.concatenate([GRID, sides]))
    values = truth(record, x, parameters)[0]
    assert bool(np.all(np.diff(values) >= 0)) == facts.monotone
    around = [at + side for at in facts.kinks for side in (-1e-3, 1e-3)]
    x = np.unique(np.concatenate([GRID, around]))
    values = truth(record, x, parameters)[0]
    middle = truth(record, (x[2:] + x[:-2]) / 2, parameters)[0]
    below = middle <= (values[2:] + values[:-2]) / 2 + 1e-13
    jumps = any(kink.left[0] != kink.right[0] for kink in facts.kinks.values())
    assert (bool(np.all(below)) and not jumps) == facts.convex


def test_zeros(record: Operation, parameters: dict[str, Any]) -> None:
    """Exactly one change of sign in a declared bracket, and none of a derivative elsewhere."""
    facts = facts_of(record, parameters)
    zeros = facts.roots
    for order in (1, 2):
        x = np.sort(GRID)
        sign = np.sign(truth(record, x, parameters)[order])
        x, sign = x[sign != 0], sign[sign != 0]
        changes = [
            (a, b) for a, b, s, t in zip(x, x[1:], sign, sign[1:], strict=False) if s * t < 0
        ]
        irrational = [(a, b) for a, b in changes if not a <= 0 <= b]
        roots = zeros.get(order, [])
        assert len(irrational) == len(roots)
        for (a, b), root in zip(irrational, sorted(roots), strict=True):
            assert a <= root <= b
