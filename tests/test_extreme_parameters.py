"""Parameters from all that their domains admit: the bounds of the plain calls hold for each.

Certificates and `gradref verify` judge the declared settings. Here the parameters of every
elementwise function, profiles of losses among them, are drawn at random, in the usual range, in
every binade of float64 and at its ends; inputs lie where βx, x or x/β is of the size at which
exponentials vanish. What is known to fail has a name: ``GAPS``, each a strict expected failure.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import activations
from gradref import fuse
from gradref.declare.domains import Interval
from gradref.declare.operation import Operation, operation
from gradref.declare.registry import operations
from gradref.environment import has_compiler
from gradref.formula.errorfree import LIFT, SPLIT
from gradref.judge import gates
from gradref.judge.elementwise import ORDERS, declared_jets
from gradref.judge.inputs import rounded
from gradref.judge.ulp import errors, to_floats
from gradref.truth.jets import Balls, Floats, jets

Mask = NDArray[np.bool_]

SETTINGS = 60
TIES = 0.5001
"""What is correctly rounded where nobody decides on which side of half an ulp a result lies."""

LEAST, TINY, LARGEST = math.ulp(0.0), sys.float_info.min, sys.float_info.max
EDGES = (0.0, LEAST, TINY, 1.0, LARGEST)


def bound(dtype: torch.dtype) -> float:
    return max(gates.OURS.claims[dtype], TIES)


def with_numbers() -> list[Operation]:
    """Return the elementwise functions that have numeric parameters, profiles among them."""
    all_of_them = [r if r.kind == "elementwise" else r.profile for r in operations()]
    return [record for record in all_of_them if record is not None and numbers(record)]


def numbers(record: Operation) -> list[str]:
    """Return the names of the numeric parameters."""
    given = record.parameters
    return [n for n in record.domains if isinstance(record.domain(n, given), Interval)]


# --- what fails ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """A quantity that is further off than it should be for some numbers, why, and an example."""

    operation: str
    quantity: str
    reason: str
    where: Callable[..., Mask]
    x: float
    parameters: dict[str, float]


def elu_is_lifted(x: Floats, alpha: float) -> Mask:
    return x + LIFT < math.log(TINY)


def celu_is_lifted(x: Floats, alpha: float) -> Mask:
    return x / alpha + LIFT < math.log(TINY)


def softplus_is_lifted(x: Floats, beta: float, threshold: float) -> Mask:
    return LIFT - abs(beta * x) < math.log(TINY)


def split_overflows(x: Floats, beta: float, threshold: float) -> Mask:
    return np.maximum(abs(x), beta) * SPLIT == math.inf


def product_underflows(x: Floats, beta: float, threshold: float) -> Mask:
    return np.maximum(abs(beta * x), abs(threshold)) < 2.0**54 * TINY


def inverse_overflows(x: Floats, alpha: float) -> Mask:
    return np.full(x.shape, alpha < 2.0**-1023)


def softcap_is_lifted(x: Floats, cap: float) -> Mask:
    return LIFT - 2 * abs(x / cap) < math.log(TINY)


def quotient_underflows(x: Floats, cap: float) -> Mask:
    return abs(x / cap) < 2.0**54 * TINY


def inverse_of_cap_overflows(x: Floats, cap: float) -> Mask:
    return np.full(x.shape, cap < 8 / LARGEST)


INVERSE = "1/α overflows, where α is subnormal"
CAPPED = "8/c overflows, where the cap c is about the least normal number or subnormal"
LIFTED = "c·exp(t) is computed from exp(t + 64), which underflows where c is huge"
SPLIT_UP = "to split a factor two_product multiplies it by 2^27 + 1, which overflows"
UNDERFLOW = "βx or x/c, or its rounding error, underflows, and so does the threshold"
HUGE = {"beta": LARGEST, "threshold": math.inf}
AT_0 = {"beta": 0.01, "threshold": 0.0}
GAPS = [
    Gap("elu", "derivative", LIFTED, elu_is_lifted, -800.0, {"alpha": 1e300}),
    Gap("elu", "second_derivative", LIFTED, elu_is_lifted, -800.0, {"alpha": 1e300}),
    Gap("celu", "second_derivative", LIFTED, celu_is_lifted, -8e-298, {"alpha": 1e-300}),
    Gap("celu", "second_derivative", INVERSE, inverse_overflows, -LEAST, {"alpha": LEAST}),
    Gap("softcap", "second_derivative", LIFTED, softcap_is_lifted, 7.5e-203, {"cap": 1.3e-205}),
    Gap(
        "softcap",
        "second_derivative",
        UNDERFLOW,
        quotient_underflows,
        LEAST,
        {"cap": 2.8647491084452943e-08},
    ),
    Gap("softcap", "second_derivative", CAPPED, inverse_of_cap_overflows, 2e-323, {"cap": LEAST}),
    Gap("softplus", "second_derivative", LIFTED, softplus_is_lifted, -900 / LARGEST, HUGE),
    Gap("softplus", "derivative", SPLIT_UP, split_overflows, -602.1 / LARGEST, HUGE),
    Gap("softplus", "second_derivative", SPLIT_UP, split_overflows, -602.1 / LARGEST, HUGE),
    Gap("softplus", "value", UNDERFLOW, product_underflows, LEAST, AT_0),
    Gap("softplus", "derivative", UNDERFLOW, product_underflows, LEAST, AT_0),
    Gap("softplus", "second_derivative", UNDERFLOW, product_underflows, -LEAST, AT_0),
]


# --- parameters and inputs -----------------------------------------------------------------------


def drawn_parameters(record: Operation, rng: np.random.Generator) -> dict[str, float]:
    """Return a number for each parameter, or the default of it where that is in the domain."""
    names = numbers(record)
    drawn: dict[str, float] = {}
    for name in names:
        default = record.parameters[name]
        interval = record.domain(name, {**record.parameters, **drawn})
        assert isinstance(interval, Interval)
        is_drawn = len(names) == 1 or rng.random() < 0.6 or interval.excludes(default)
        drawn[name] = drawn_number(interval, rng) if is_drawn else default
    return drawn


def drawn_number(interval: Interval, rng: np.random.Generator) -> float:
    while True:
        usual, anywhere = np.exp2(rng.uniform(-10, 10)), np.exp2(rng.uniform(-1074, 1024))
        value = float(
            rng.choice([-1, 1]) * rng.choice([usual, anywhere, anywhere, rng.choice(EDGES)])
        )
        if not interval.excludes(value):
            return value


def drawn_inputs(
    record: Operation, parameters: dict[str, float], dtype: torch.dtype, rng: np.random.Generator
) -> torch.Tensor:
    """Return inputs of every size, and t, t/p and tp for usual t and each parameter p.

    A kink that moves with a parameter is a rounded quotient: on which side of it the kink lies is
    left to its neighbours.
    """
    assert record.facts is not None
    kinks = record.facts.at(**parameters).kinks.keys()
    moving = kinks - record.facts.at(**record.parameters).kinks.keys()
    info = torch.finfo(dtype)
    sizes = rng.uniform(math.log2(info.tiny) - info.bits, math.log2(info.max), 60)
    t = np.concatenate([np.exp2(rng.uniform(-20, 6, 20)), rng.uniform(40, 1500, 40)])
    sides = np.array([t, -t]).reshape(-1)
    around = np.array([0.0, *kinks])
    special = [0.0, -0.0, math.inf, -math.inf, math.nan]
    with np.errstate(all="ignore"):
        steps = [np.nextafter(around, side) for side in (-math.inf, math.inf)]
        near = [sides, *(f for p in parameters.values() for f in (sides / p, sides * p))]
        signed = rng.choice([-1, 1], 60) * np.exp2(sizes)
        x = rounded(np.concatenate([special, signed, *near, around, *steps]), dtype)
    return x[torch.from_numpy(~np.isin(to_floats(x), list(moving)))]


# --- errors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """The errors in ulp of f, f′ and f″ at all inputs, for one setting."""

    parameters: dict[str, float]
    points: Floats
    ulp: Floats


@functools.cache
def judged(record: Operation, dtype: torch.dtype) -> list[Judged]:
    rng = np.random.default_rng(0)
    settings = [drawn_parameters(record, rng) for _ in range(SETTINGS)]
    return [judge(record, p, drawn_inputs(record, p, dtype, rng)) for p in settings]


def judge(record: Operation, parameters: dict[str, float], x: torch.Tensor) -> Judged:
    assert record.facts is not None
    facts = record.facts.at(**parameters)
    points = to_floats(x)
    truth = Balls(np.full((3, len(x)), np.nan), np.zeros((3, len(x))))
    ordinary = np.isfinite(points) & ~np.isin(points, list(facts.kinks))
    proved = jets(record.truth, points[ordinary], **parameters)
    assert not np.isnan(proved.high).any()
    truth.high[:, ordinary], truth.rest[:, ordinary] = proved.high, proved.rest
    for at, jet in declared_jets(facts).items():
        truth.high[:, points == at] = np.asarray(jet)[:, None]
    functions = [record.function, *(record.derivatives[name] for name in ORDERS[1:])]
    got = [to_floats(f(x, **parameters)) for f in functions]
    ulp = [errors(g, truth[order], x.dtype) for order, g in enumerate(got)]
    return Judged(parameters, points, np.array(ulp))


def known(record: Operation, quantity: str, of: Judged) -> Mask:
    """Return where a gap is."""
    found = np.zeros(len(of.points), dtype=bool)
    with np.errstate(all="ignore"):
        for gap in GAPS:
            if (gap.operation, gap.quantity) == (record.name, quantity):
                found |= gap.where(of.points, **of.parameters)
    return found


def worst(all_of_them: list[tuple[Judged, Floats]]) -> tuple[float, dict[str, Any], float]:
    """Return the largest error, and the parameters and the input that it is at."""
    found = [
        (float(ulp.max()), of.parameters, float(of.points[ulp.argmax()])) for of, ulp in all_of_them
    ]
    return max(found, key=lambda error: error[0])


@pytest.mark.parametrize("quantity", ORDERS)
@pytest.mark.parametrize("record", with_numbers(), ids=lambda record: record.name)
def test_any_parameter(record: Operation, quantity: str, dtype: str) -> None:
    order, kind = ORDERS.index(quantity), getattr(torch, dtype)
    kept = [
        (of, np.where(known(record, quantity, of), 0.0, of.ulp[order]))
        for of in judged(record, kind)
    ]
    error, parameters, x = worst(kept)
    assert error <= bound(kind), f"{record.name} {quantity}, {parameters}: {error} ulp at {x!r}"


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(
            gap,
            marks=pytest.mark.xfail(reason=gap.reason, strict=True, raises=AssertionError),
            id=f"{gap.operation}-{gap.quantity}: {gap.reason}",
        )
        for gap in GAPS
    ],
)
def test_gap(gap: Gap) -> None:
    (record,) = operations(gap.operation)
    x = torch.tensor([gap.x], dtype=torch.float64)
    of = judge(record, gap.parameters, x)
    if not known(record, gap.quantity, of)[0]:
        pytest.fail("the example does not lie in the gap")
    (error,) = of.ulp[ORDERS.index(gap.quantity)]
    assert error <= bound(torch.float64), f"{gap.parameters}: {error} ulp at {gap.x!r}"


# --- softplus, where exp(βx) underflows and exp(βx)/β does not -----------------------------------


def below_underflow(beta: float) -> tuple[torch.Tensor, Balls]:
    x = torch.linspace(-1400, -700, 701, dtype=torch.float64) / beta
    return x, jets(
        operation(activations.softplus).truth, to_floats(x), beta=beta, threshold=math.inf
    )


@pytest.mark.parametrize("beta", [9e-133, 1e-280, 1e-304])
def test_softplus_of_what_exp_cannot_hold(beta: float) -> None:
    """At β = 9e-133 it gave 0 instead of numbers about 1e-261."""
    x, truth = below_underflow(beta)
    assert (truth.high[0] > 0).sum() > 100
    ulp = errors(to_floats(activations.softplus(x, beta=beta)), truth[0], torch.float64)
    assert ulp.max() <= bound(torch.float64)


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler")
def test_precise_kernels_hold_for_it_too() -> None:
    x, truth = below_underflow(1e-280)
    kernel = fuse(activations.softplus, "value", precise=True)
    ulp = errors(to_floats(kernel(x, beta=1e-280)), truth[0], torch.float64)
    assert ulp.max() <= bound(torch.float64)


@pytest.mark.parametrize("beta", [math.ulp(0.0), 1e-308, LARGEST])
def test_softplus_at_infinity(beta: float) -> None:
    """Where 1/β overflows too."""
    assert activations.softplus(-math.inf, beta=beta) == 0
    assert activations.softplus(math.inf, beta=beta) == math.inf
    assert math.isnan(activations.softplus(math.nan, beta=beta))


# --- float64 beside a zero of a derivative -------------------------------------------------------


@pytest.mark.parametrize(("name", "x"), [("silu", -1.2614), ("gelu", -0.7699)])
def test_float64_beside_a_zero_keeps_the_other_bound(name: str, x: float) -> None:
    """As docs/accuracy.md says: not 4 ulp, but a backward error of a few roundings."""
    (record,) = operations(name)
    assert record.facts is not None
    facts = record.facts.at(**record.parameters)
    (root,) = facts.roots[1]
    about_x, about_root = np.linspace(x - 1e-3, x + 1e-3, 201), root * np.linspace(0.5, 1.5, 1001)
    points = np.concatenate([about_x, about_root])
    truth = jets(record.truth, points, **record.parameters)[1]
    got = to_floats(record.derivatives["derivative"](torch.from_numpy(points)))
    ulp = errors(got, truth, torch.float64)
    allowed = gates.OURS.of_elements(truth, points, torch.float64, [root], is_product=False)
    assert ulp[: len(about_x)].max() > bound(torch.float64)
    assert (ulp <= allowed).all()
