"""The building blocks that keep digits: exact in rational arithmetic, and on the right side."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from flint import ctx
from torch._subclasses.fake_tensor import FakeTensorMode

import activations
from activations import _gated
from docs import coefficients
from gradref import arrays
from gradref.arrays import round_once
from gradref.declare.operation import Operation
from gradref.declare.registry import operations
from gradref.formula import float32
from gradref.formula.errorfree import (
    Exponential,
    may_hold,
    parts,
    sticky_sum,
    times_exp,
    two_product,
    two_sum,
)


def wide(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_sums_and_products_are_exact(kind: torch.dtype, seed: int) -> None:
    """A sum in float32 to the bits of float64."""
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-20, 20, (2, 200))
    a, b = torch.from_numpy(rng.normal(size=(2, 200)) * scale).to(kind)
    for x, y, s, e, p, f in zip(
        a.tolist(),
        b.tolist(),
        *(part.tolist() for part in (*two_sum(a, b), *two_product(a, b))),
        strict=True,
    ):
        lost = Fraction(s) + Fraction(e) - Fraction(x) - Fraction(y)
        assert lost == 0 or (kind is torch.float32 and abs(lost) <= 2**-52 * abs(Fraction(s)))
        assert Fraction(p) + Fraction(f) == Fraction(x) * Fraction(y)


def test_a_product_with_a_float_is_exact_in_float32() -> None:
    a = torch.tensor([3.1415927, 1e-3, 12345.678])
    b = float(torch.tensor(0.044715))
    for x, p, e in zip(a.tolist(), *(t.tolist() for t in two_product(a, b)), strict=True):
        assert Fraction(p) + Fraction(e) == Fraction(x) * Fraction(b)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_an_exponential_keeps_the_digits_of_a_tail(kind: torch.dtype) -> None:
    """c·exp(t) is a normal number where exp(t) is subnormal or 0."""
    info = torch.finfo(kind)
    t = torch.linspace(math.log(info.tiny) - 20, 0, 999, dtype=kind)
    c = 1e12
    exact = [mpmath.mpf(c) * mpmath.exp(mpmath.mpf(x)) for x in t.tolist()]
    got = times_exp(torch.full_like(t, c), t).tolist()
    assert max(abs(g / e - 1) for g, e in zip(got, exact, strict=True)) < 4 * info.eps
    ordinary = t[t > -40]
    torch.testing.assert_close(
        Exponential.of(ordinary).value, torch.exp(ordinary), rtol=2 * info.eps, atol=0
    )


def test_an_exponential_ends_where_it_should() -> None:
    t = torch.tensor([0.0, -math.inf, math.inf, math.nan, -1e30, 88.7, 89.0, -87.5, -103.9, -104.0])
    exact = torch.exp(t.double()).float()
    torch.testing.assert_close(float32.exp(t), exact, rtol=2**-23, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_a_small_error_of_an_exponent_is_put_back(kind: torch.dtype) -> None:
    t = torch.linspace(-90, 0, 999, dtype=kind)
    error = torch.full_like(t, 64 * torch.finfo(kind).eps)
    exact = [3 * mpmath.exp(mpmath.mpf(a) + mpmath.mpf(float(error[0]))) for a in t.tolist()]
    got = times_exp(3.0, t, error).tolist()
    assert max(abs(g / e - 1) for g, e in zip(got, exact, strict=True)) < 4 * torch.finfo(kind).eps


def test_a_constant_has_two_parts_in_every_dtype() -> None:
    high, low = math.pi, 1.2246467991473532e-16
    assert parts((high, low), torch.zeros((), dtype=torch.float64)) == (high, low)
    first, rest = parts((high, low), torch.zeros(()))
    assert first == float(np.float32(high))
    assert Fraction(first) + Fraction(rest) == Fraction(high)


ELEMENTWISE = [
    pytest.param(record, dict(case), id=f"{record.name}-{dict(case)}")
    for record in operations()
    if record.kind == "elementwise"
    for case in record.cases
]


@pytest.mark.parametrize(("record", "case"), ELEMENTWISE)
def test_formulas_hold_in_float32(record: Operation, case: dict[str, Any], seed: int) -> None:
    """Within 8 ulp of the wide result; of 1 where the terms of a derivative cancel."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.concatenate([rng.normal(0, 4, 4000), rng.uniform(-100, 100, 4000)]))
    x = torch.cat([x.float(), torch.tensor([0.0, math.inf, -math.inf, math.nan])])
    names = ("derivative", "second_derivative")
    for order, f in enumerate((record.function, *(record.derivatives[n] for n in names))):
        wide = f(x, **case)
        with arrays.native():
            native = f(x, **case)
        assert native.dtype == torch.float32
        cancels = record.facts is not None and order in record.facts.zeros
        size = wide.abs() if not cancels else torch.where(x.abs() < 4, 1.0, wide.abs())
        bound = 8 * torch.finfo(torch.float32).eps * size + 4 * 2.0**-149
        same = (native == wide) | (native.isnan() & wide.isnan())
        assert (same | ((native - wide).abs() <= bound)).all()


@pytest.mark.parametrize(("record", "case"), ELEMENTWISE)
def test_float64_never_comes_to_what_is_for_float32(
    record: Operation, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the digest of a certificate says, which leaves it out."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("float64 in gradref.formula.float32")

    for name, value in list(vars(float32).items()):
        if inspect.isfunction(value):
            monkeypatch.setattr(float32, name, refuse)
    x = torch.linspace(-60, 60, 999, dtype=torch.float64)
    for function in (record.function, *record.derivatives.values()):
        function(x, **case)
    with arrays.native(), pytest.raises(AssertionError, match="in gradref.formula.float32"):
        float32.exp(x.float())


@pytest.mark.parametrize(
    ("function", "low", "high", "exact"),
    [
        (float32.exp, -87.0, 88.0, mpmath.exp),
        (float32.tanh, 2**-20, 10.0, mpmath.tanh),
        (float32.log1p, 2**-30, 2.0, mpmath.log1p),
        (float32.log1p, 2.0, 2.0**20, mpmath.log1p),
        (_gated.UPPER_TAIL, 0.0, 15.0, lambda z: mpmath.ncdf(-z) * mpmath.exp(z**2 / 2)),
    ],
)
def test_polynomials_are_accurate(function: Any, low: float, high: float, exact: Any) -> None:
    x = torch.linspace(low, high, 5001)
    got = function(x).tolist()
    worst = max(abs(g / exact(mpmath.mpf(v)) - 1) for g, v in zip(got, x.tolist(), strict=True))
    assert worst < 6 * 2.0**-24
    assert function is not float32.tanh or float32.tanh(-x).tolist() == [-g for g in got]


def test_what_is_true_anywhere_is_looked_up_only_where_it_can_be() -> None:
    few = torch.tensor([False, True])
    assert may_hold(few)
    assert not may_hold(~few[1:])
    assert may_hold(few.to("meta"))
    assert torch.vmap(lambda c: c | may_hold(c))(few).all()
    with FakeTensorMode():
        assert may_hold(torch.zeros(2) > 0)
    x = torch.linspace(-50, 50, 12).reshape(3, 4)
    for f in (activations.gelu, activations.gelu_derivative, activations.silu):
        assert torch.equal(torch.vmap(f)(x), f(x))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_rounded_away_decides_a_tie(kind: torch.dtype) -> None:
    eps = torch.finfo(kind).eps
    above, below = sticky_sum(wide(1 + eps / 2, 1 + eps / 2), wide(2.0**-60, -(2.0**-60)))
    assert round_once(above, kind) == 1 + eps
    assert round_once(below, kind) == 1


@pytest.mark.parametrize("bits", [25, 26, 27, 40, 52])
def test_where_nothing_can_tie_a_sum_is_the_nearest(bits: int) -> None:
    high = wide(1 + 2.0**-bits, 1 + 2.0**-bits)
    low = wide(2.0**-60, -(2.0**-60))
    assert (sticky_sum(high, low) == high).all()
    assert (sticky_sum(high, wide(0.0, 0.0)) == high).all()


@pytest.mark.parametrize("name", [*coefficients.FITS, *coefficients.ROOTS])
def test_the_coefficients_are_those_that_the_script_fits(name: str) -> None:
    with ctx.workprec(coefficients.BITS):
        root = coefficients.ROOTS.get(name)
        fit = coefficients.FITS[name] if root is None else root.fit
        assert fit.coefficients() == pytest.approx(fit.present, rel=1e-5)
        if root is not None:
            assert root.high_and_low() == (root.present.high, root.present.low)
