"""The oracle: balls that hold the value, Ziv's loop, ties, and the refusal to guess."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_series, ctx
from mpmath import mp

import activations
from gradref.declare.operation import operations
from gradref.truth import series
from gradref.truth.jets import beyond_half, jets, linear_expansion_at_zero
from gradref.truth.rows import derivatives, to_balls

REFERENCE = {
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "logsigmoid": lambda x: -mp.log1p(mp.exp(-x)),
}
POINTS = [-30.0, -5.5, -1.2784645427610738, -1e-30, 1e-7, 0.3, 2.0, 17.0, 40.0]


@pytest.mark.parametrize("name", REFERENCE)
def test_jets_agree_with_mpmath(name: str) -> None:
    """A second arithmetic and a second way to differentiate."""
    (record,) = operations(name)
    balls = jets(record.truth, np.array(POINTS), **record.parameters)
    with mp.workdps(80):
        for i, x in enumerate(POINTS):
            coefficients = mp.taylor(REFERENCE[name], mp.mpf(x), 2)
            for order in range(3):
                want = coefficients[order] * math.factorial(order)
                got = mp.mpf(float(balls.high[order, i])) + mp.mpf(float(balls.low[order, i]))
                assert abs(got - want) <= abs(want) * mp.mpf(2) ** -70 + mp.mpf(10) ** -60


@pytest.mark.parametrize("x", [-1e300, -1e4, -1e-300, 5e-324, 1e-300, 1e4, 1e300])
def test_extreme_arguments_are_decided(x: float) -> None:
    for record in operations("activations"):
        if record.kind == "elementwise":
            balls = jets(record.truth, np.array([x]), **record.parameters)
            assert np.isfinite(balls.high).all(), record.name


def test_precision_is_raised_where_it_has_to_be() -> None:
    """cos − 1 near 0 cancels twice the digits of x."""
    balls = jets(lambda x: x.cos() - 1, np.array([1e-150]))
    assert balls.high[0, 0] == pytest.approx(-5e-301, rel=1e-15)


def test_what_cannot_be_decided_is_not_guessed() -> None:
    vague = jets(lambda x: x + arb(0, 1e-3), np.array([3.0]))
    assert math.isnan(vague.high[0, 0])
    assert vague.high[1, 0] == 1.0


def test_ties_are_decided_exactly() -> None:
    """silu(x) of a tiny x is x/2 + x²/4: just above a tie of bfloat16."""
    (silu,) = operations("silu")
    x, step = 2.0**-133, 2.0**-133
    assert not beyond_half(silu.truth, x, 0, step, step / 2)
    assert beyond_half(silu.truth, x, 0, 0.0, step / 2)
    half = {"negative_slope": 0.5}
    (leaky,) = operations("leaky_relu")
    assert not beyond_half(leaky.truth, -step, 0, 0.0, step / 2, **half)  # a true tie: even
    assert beyond_half(leaky.truth, -step, 0, -step, step / 2, **half)


@pytest.mark.parametrize("name", ["expm1", "log1p", "logistic", "softplus", "tanh"])
def test_series(name: str) -> None:
    """Each series function has the derivatives of its constant terms."""
    function: Any = getattr(series, name)
    for x in (-0.7, 1e-9, 0.9, 3.0):
        with ctx.workprec(200):
            h = arb(2) ** -60
            jet = function(arb_series([x, 1], prec=3))
            after = function(arb_series([arb(x) + h, 0], prec=3))[0]
            taylor = jet[0] + jet[1] * h + jet[2] * h * h
            assert abs(after - taylor) < arb(2) ** -170


def test_hessian_by_polarisation() -> None:
    rows = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])
    (softmax,) = operations("softmax")
    found = derivatives(softmax.truth, {"x": rows}, ["x"], {}, 256)
    jacobian = to_balls(found.jacobian, arb(2) ** -200).high
    hessian = to_balls(found.hessian, arb(2) ** -200).high
    assert np.allclose(jacobian, activations.softmax_jacobian(rows), atol=1e-15)
    eye = np.eye(3)
    for k in range(3):
        for m in range(3):
            hvp = activations.softmax_hvp(rows, np.tile(eye[k], (2, 1)), np.tile(eye[m], (2, 1)))
            assert np.allclose(hessian[:, k, :, m], hvp, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "order", "x", "parameters"),
    [
        ("softplus", 0, -7118.445522457185, {"beta": 0.1}),
        ("softplus", 0, -7.44e282, {"beta": 1e-280}),
        ("elu", 1, -738.5498, {"alpha": 100.0}),
        ("silu", 1, -714.0, {}),
        ("gelu", 1, -37.9, {}),
    ],
)
def test_no_factor_meets_a_subnormal(
    name: str, order: int, x: float, parameters: dict[str, Any]
) -> None:
    """Deep in a tail an exponential has lost digits that its multiple still has."""
    (record,) = operations(name)
    given = {**record.parameters, **parameters}
    truth = jets(record.truth, np.array([x]), **given).high[order, 0]
    function = (record.function, *record.derivatives.values())[order]
    assert abs(function(x, **given) - truth) <= 4 * max(np.spacing(abs(truth)), 5e-324)


@pytest.mark.parametrize("place", [1.125, -1.125, 1.9375, -1.9375])
def test_a_line_is_proved_over_the_whole_of_a_binade(place: float) -> None:
    """x/2 + x² − x³/(3z): the second coefficient changes its sign at z, inside of [1, 2]."""
    line = linear_expansion_at_zero(
        lambda x: x / 2 + x * x - x * x * x / (3 * arb(place)), 0, 1 if place > 0 else -1
    )
    assert line is not None
    assert (line.reach, line.side, line.power) == (1.0, 1, 2)
    assert line.bound == pytest.approx(1.0)
