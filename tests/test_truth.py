"""The oracle: balls that hold the value, Ziv's loop, ties, and the refusal to guess."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_series, ctx
from mpmath import mp

import activations
from gradref.declare.registry import operations
from gradref.judge import table
from gradref.truth import series
from gradref.truth.hessians import derivatives, rounded_to_balls
from gradref.truth.jets import Balls, beyond_half, exactly, jets, linear_expansion_at_zero

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
                got = mp.mpf(float(balls.high[order, i])) + mp.mpf(
                    float(balls.rest[order, i])
                ) * mp.mpf(math.ulp(balls.high[order, i]))
                assert abs(got - want) <= abs(want) * mp.mpf(2) ** -70 + mp.mpf(10) ** -60


@pytest.mark.parametrize("x", [-1e300, -1e4, -1e-300, 5e-324, 1e-300, 1e4, 1e300])
def test_extreme_arguments_are_decided(x: float) -> None:
    for record in operations("activations"):
        if record.kind == "elementwise":
            balls = jets(record.truth, np.array([x]), **record.parameters)
            assert not np.isnan(balls.high).any(), record.name


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


def test_derivatives_of_rows() -> None:
    rows = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])
    (softmax,) = operations("softmax")
    found = derivatives(softmax.truth, {"x": rows}, ["x"], {})
    jacobian = rounded_to_balls(found.jacobian).high
    hessian = rounded_to_balls(found.hessian).high
    assert np.allclose(jacobian, activations.softmax_jacobian(rows), atol=1e-15)
    eye = np.eye(3)
    for k in range(3):
        for m in range(3):
            hvp = activations.softmax_hvp(rows, np.tile(eye[k], (2, 1)), np.tile(eye[m], (2, 1)))
            assert np.allclose(hessian[:, k, :, m], hvp, atol=1e-15)


LOSSES = [r for r in operations("losses") if r.coupled is None or r.coupled == "dim"]


@pytest.mark.parametrize("record", LOSSES, ids=lambda record: record.name)
def test_expansions_are_power_series_along_any_direction(record: Any, seed: int) -> None:
    """By python-flint's own series along a random line: g't and t'Ht, without polarisation."""
    rng = np.random.default_rng(seed)
    unseen = ("dim", "reduction")
    parameters = {n: v for n, v in record.parameters.items() if n not in unseen}
    shape = (3,) if record.coupled is None else (3, 4)
    arrays = {name: rng.uniform(0.1, 0.9, shape) for name in record.arguments}
    line = {name: rng.normal(size=shape) for name in record.arguments}
    found = derivatives(record.truth, arrays, record.arguments, parameters)
    t = np.concatenate([line[n].reshape(3, -1) for n in record.arguments], axis=1)
    with ctx.workprec(300):
        along = np.frompyfunc(lambda x, d: arb_series([x, d], prec=3), 2, 1)
        with_through = np.frompyfunc(_Along, 1, 1)
        moving = {n: with_through(along(arrays[n], line[n])) for n in record.arguments}
        outputs = record.truth(**moving, **exactly(parameters)).reshape(3, -1)
        for row, k in np.ndindex(outputs.shape):
            series = outputs[row, k].series
            slope = sum(found.jacobian[row, k] * t[row])
            bend = sum(found.hessian[row, k] @ t[row] * t[row])
            assert abs(series[1] - slope) < arb(2) ** -200
            assert abs(2 * series[2] - bend) < arb(2) ** -200


class _Along:
    """A power series with the little that truths of rows ask of a number besides arithmetic."""

    def __init__(self, series: Any) -> None:
        self.series, self.gradient, self.hessian = series, {0: 1}, {}
        self.value = series[0]

    def through(self, function: Any) -> _Along:
        return _Along(function(self.series))

    def __getitem__(self, order: int) -> Any:
        return self.series[order]

    def __getattr__(self, name: str) -> Any:
        return lambda: self.through(lambda series: getattr(series, name)())

    def _with(self, other: Any, of: Any) -> _Along:
        return _Along(of(self.series, getattr(other, "series", other)))

    def __add__(self, other: Any) -> _Along:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> _Along:
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> _Along:
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> _Along:
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: Any) -> _Along:
        return self._with(other, lambda a, b: a / b)

    def __neg__(self) -> _Along:
        return self * -1

    __radd__, __rmul__ = __add__, __mul__


# --- the table -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADREF_CACHE", str(tmp_path))
    table._jets_at.cache_clear()
    return tmp_path


def jets_of_tanh(x: Any) -> Balls:
    (tanh,) = operations("tanh")
    points = np.asarray(x, dtype=float)
    return table.jets_table(tanh, {}, points, points)


def test_a_table_is_kept_and_found_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = jets_of_tanh([3.0, -1.0])
    assert len(list(cache.glob("*.npz"))) == 1
    table._jets_at.cache_clear()
    monkeypatch.setattr(table, "jets", lambda *_, **__: pytest.fail("computed again"))
    again = jets_of_tanh([3.0, -1.0])
    assert np.array_equal(first.high, again.high)
    assert np.array_equal(first.rest, again.rest)
    assert first.high[0] == pytest.approx(np.tanh([3.0, -1.0]))


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_table_is_computed_again(cache: Path, damage: str) -> None:
    first = jets_of_tanh([0.25, 0.5])
    (path,) = cache.glob("*.npz")
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content[: {"truncated": 100, "empty": 0}.get(damage, len(content))]))
    table._jets_at.cache_clear()
    assert np.array_equal(jets_of_tanh([0.25, 0.5]).high, first.high)


def test_tables_of_other_inputs_parameters_and_sources_are_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jets_of_tanh([0.25])
    jets_of_tanh([0.5])
    table._jets_at.cache_clear()
    monkeypatch.setattr(table, "_sources", lambda package: "an edited source")
    jets_of_tanh([0.25])
    assert len(list(cache.glob("*.npz"))) == 3


def test_tables_are_bounded_in_size(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_BYTES", 1500)
    monkeypatch.setattr(table, "TABLES_BETWEEN_LOOKS", 1)
    for x in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        jets_of_tanh([x])
    assert 1 <= len(list(cache.glob("*.npz"))) <= 5
    assert sum(path.stat().st_size for path in cache.glob("*.npz")) <= 1500


def test_nothing_is_kept_where_nothing_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("", "/proc/nowhere"):
        monkeypatch.setenv("GRADREF_CACHE", folder)
        table._jets_at.cache_clear()
        assert jets_of_tanh([1.0]).high[0, 0] == pytest.approx(math.tanh(1.0))


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
