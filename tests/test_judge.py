"""The metric, the inputs and the findings: what the judge is made of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from mpmath import mp

from gradref.contenders.witness import torch_jets
from gradref.declare.operation import Domain, Draw
from gradref.declare.registry import operations
from gradref.judge.elementwise import ElementwiseExam, times
from gradref.judge.gates import OURS
from gradref.judge.inputs import draw, elementwise_inputs
from gradref.judge.questions import Quantity
from gradref.judge.rows import Known, evidence_of
from gradref.judge.ulp import Errors, errors, spacing, to_floats
from gradref.judge.verdict import Case, Finding, Verdict, number
from gradref.runs.verify import verify
from gradref.truth.jets import Balls, jets


def balls(*high: float, rest: float = 0.0) -> Balls:
    return Balls(np.array(high), np.full(len(high), rest))


@pytest.mark.parametrize(
    ("got", "truth", "kind", "ulp"),
    [
        (1.0, 1.0, torch.float32, 0.0),
        (1.0, 1.0 + 2.0**-24, torch.float32, 0.5),
        (1.0, 1.0 - 2.0**-25, torch.float32, 0.5),
        (1.0 + 2.0**-7, 1.0, torch.bfloat16, 1.0),
        (0.0, 2.0**-24, torch.float16, 1.0),
        (0.0, 2.0**-149, torch.float32, 1.0),
        (2.0**-149, 0.0, torch.float32, 1.0),
        (2.0**-24, 0.0, torch.float16, 1.0),
        (-0.0, 0.0, torch.float32, 0.0),
        (2.0, 1.0, torch.float16, 1024.0),
        (math.inf, 65519.0, torch.float16, 0.53125),
        (math.inf, 65520.0, torch.float16, 0.5),
        (math.inf, 1e9, torch.float16, 0.0),
        (65504.0, 1e9, torch.float16, (1e9 - 65504) / 32),
        (math.inf, math.inf, torch.float32, 0.0),
        (math.nan, math.nan, torch.float32, 0.0),
        (math.nan, 1.0, torch.float32, math.inf),
        (1.0, math.nan, torch.float32, math.inf),
        (1.0, math.inf, torch.float32, math.inf),
        (math.inf, -math.inf, torch.float32, math.inf),
        (-math.inf, math.inf, torch.float32, math.inf),
        (-math.inf, -math.inf, torch.float32, 0.0),
        (-math.inf, 1.0, torch.float64, math.inf),
        (-math.inf, 1.0, torch.float16, 67109888.0),
    ],
)
def test_ulp(got: float, truth: float, kind: torch.dtype, ulp: float) -> None:
    assert errors(np.array([got]), balls(truth), kind)[0] == ulp


def test_low_part_counts() -> None:
    assert errors(np.array([1.0]), balls(1.0, rest=0.25), torch.float64)[0] == 0.25
    assert errors(np.array([1.0]), balls(1.0, rest=0.25), torch.float32)[0] == 0.25 * 2.0**-29


def test_the_rest_of_a_subnormal_number_counts() -> None:
    """elu′(−709.72) is 0.608 ulp off: the remainder of its truth is no float64 itself."""
    (elu,) = operations("elu")
    truth = jets(elu.truth, np.array([-709.72, -744.4]), alpha=1.0)[1]
    with mp.workdps(60):
        for i, x in enumerate((-709.72, -744.4)):
            exact = mp.exp(mp.mpf(x))
            ulp = mp.mpf(float(spacing(truth.high, torch.float64)[i]))
            rest = float((exact - mp.mpf(float(truth.high[i]))) / ulp)
            assert truth.rest[i] == pytest.approx(rest, rel=1e-9)
            assert abs(truth.rest[i]) > 0.01


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_spacing_is_the_distance_to_the_next_number(name: str) -> None:
    kind = getattr(torch, name)
    info = torch.finfo(kind)
    for value in (1.0, 1.5, info.smallest_normal, info.smallest_normal / 4, info.max):
        step = float(spacing(np.array([value]), kind)[0])
        here = torch.tensor(value, dtype=kind)
        assert float((here - step).double()) == value - step


def test_a_product_with_an_exact_number_keeps_the_remainder() -> None:
    high, rest = np.array([0.1, 3.0, -0.7, 1e-3]), np.array([0.4, -0.25, 0.0, 0.49])
    vector = np.array([3.7, -0.11, 1.3, 5e5])
    product = times(Balls(high, rest), vector)
    for i, v in enumerate(vector):
        ulp = Fraction(math.ulp(high[i]))
        exact = (Fraction(high[i]) + Fraction(rest[i]) * ulp) * Fraction(v)
        ball = Fraction(product.high[i]) + Fraction(product.rest[i]) * Fraction(
            math.ulp(product.high[i])
        )
        assert abs(ball - exact) <= abs(exact) * Fraction(1, 2**100)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["gelu", "relu", "silu"])
def test_every_result_is_in_one_region(name: str, kind: torch.dtype) -> None:
    case = Case(name, {}, str(kind).removeprefix("torch."), "cpu")
    exam = ElementwiseExam(case, {kind: 2000}, 0, (case.dtype,))
    for order in range(3):
        truth = exam.jets[order]
        regions = np.stack(list(exam.regions(order, truth, kind).values()))
        assert (regions.sum(0) == 1).all()


def test_a_product_may_be_off_by_what_its_factor_is_and_half_an_ulp() -> None:
    case = Case("silu", {}, "float64", "cpu")
    exam = ElementwiseExam(case, {torch.float64: 200}, 0, ("float64",))
    ones = torch.ones_like(exam.sample.grad_output)
    by_1 = replace(exam.sample, grad_output=ones)
    exam.__dict__["sample"] = by_1
    allowed = np.full(len(exam.points), 4.0)
    found = exam.of_the_product(allowed, 1, exam.jets[1])
    assert (found[exam.jets[1].high != 0] == 4.5).all()


def test_summary() -> None:
    got, truth = np.array([1.0, 0.0, math.nan, -1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    ulp = errors(got, balls(*truth), torch.float32)
    summary = Errors.of(ulp, got, truth, np.ones(4, dtype=bool))
    assert summary.count == 4
    assert summary.worst_index == 2
    assert summary.correctly_rounded == 0.25
    assert (summary.wrong_nonfinite, summary.lost_to_zero, summary.wrong_sign) == (1, 1, 1)
    assert sum(summary.histogram) == 4


def test_summary_of_losses_and_signs() -> None:
    got = np.array([0.0, 0, 0, 1, 1, -1, math.nan, 2, -2])
    truth = np.array([-1.0, 1, 1e-46, -1, -2, 1, 1, 2, -2])
    ulp = np.array([5.0, 5, 0.3, 2, 3, 9, math.inf, 0, 0.25])
    summary = Errors.of(ulp, got, truth, np.ones(9, dtype=bool))
    assert (summary.wrong_nonfinite, summary.lost_to_zero, summary.wrong_sign) == (1, 2, 3)
    assert summary.median == 3.0


def test_histogram() -> None:
    ulp = np.array([0, 0.5, 0.50005, 0.75, 1.5, 3, 15.5, 16, 100, 1000, 1e6, math.inf])
    summary = Errors.of(ulp, ulp, ulp, np.ones(len(ulp), dtype=bool))
    assert summary.histogram == (2, 1, 1, 1, 1, 2, 1, 1, 2)
    assert summary.correctly_rounded == 2 / 12
    assert summary.wrong_sign == 0
    nothing = Errors.of(ulp, ulp, ulp, np.zeros(len(ulp), dtype=bool))
    assert nothing == Errors(0, 0.0, -1, 0.0, 0.0, 1.0, (0,) * 9, 0, 0, 0)


def test_signs_of_zeros_are_counted() -> None:
    got = np.array([0.0, -0.0, -0.0, 0.0, 1.0])
    sign = np.array([1.0, 1.0, -1.0, 0.0, -1.0])
    ulp = np.zeros(5)
    found = Errors.of(ulp, got, np.zeros(5), np.ones(5, dtype=bool), sign)
    assert found.wrong_zero_sign == 1


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_inputs_reach_every_region(name: str, seed: int) -> None:
    kind = getattr(torch, name)
    for record in operations():
        if record.kind != "elementwise" or record.facts is None:
            continue
        facts = record.facts.at(**record.parameters)
        zeros = facts.roots
        x = to_floats(elementwise_inputs(facts, zeros, kind, 10_000, seed, [0.3]))
        for landmark in (3.0, -20.0, 6.5, 2.0**40, 1e6, 0.3, -0.3):
            at = torch.tensor([landmark], dtype=kind)
            beside = (at, at.nextafter(at * 0), at.nextafter(at * 2))
            assert all(float(value) in x for value in beside), landmark
        info = torch.finfo(kind)
        assert np.isnan(x).any()
        for value in (0.0, math.inf, -math.inf, info.tiny, info.max, -info.max):
            assert (x == value).any()
        assert ((np.abs(x) < info.smallest_normal) & (x != 0)).any()
        for at in (*facts.kinks, *(z for roots in zeros.values() for z in roots)):
            step = float(spacing(np.array([at]), kind)[0])
            assert (np.abs(x - at) <= step).sum() >= 2
            for near in (x[(x < at) & (x > at - 64 * step)], x[(x > at) & (x < at + 64 * step)]):
                assert len(np.unique(near)) > 30
        assert len(np.unique(x[np.isfinite(x)])) > 9_000
        other = to_floats(elementwise_inputs(facts, zeros, kind, 10_000, seed + 1))
        again = to_floats(elementwise_inputs(facts, zeros, kind, 10_000, seed, [0.3]))
        assert np.array_equal(x, again, equal_nan=True)
        assert not np.array_equal(x, other, equal_nan=True)


STYLES: dict[tuple[Draw, str], tuple[float, Callable[[Any], Any]]] = {
    ("real", "ties of a whole row"): (0.18, lambda x: (x == x[:, :1]).all(1)),
    ("real", "some ties"): (0.21, lambda x: (np.diff(np.sort(x), axis=1) == 0).any(1)),
    ("real", "one leads"): (0.25, lambda x: gap(x) > 4 * np.sort(np.abs(x))[:, -2]),
    ("real", "one leads far"): (0.095, lambda x: (gap(x) > 60) & (np.abs(x).max(1) < 100)),
    ("real", "tiny"): (0.1, lambda x: np.abs(x).max(1) < 1e-4),
    ("real", "halves around 10"): (0.12, lambda x: (x * 2 % 1 == 0).all(1) & (x < 10).any(1)),
    ("real", "large"): (0.12, lambda x: np.abs(x).max(1) > 1e3),
    ("real", "ordinary"): (0.11, lambda x: (np.abs(x).max(1) > 0.5) & (np.abs(x).max(1) < 4)),
    ("unit", "0"): (0.082, lambda x: x == 0),
    ("unit", "1"): (0.083, lambda x: x == 1),
    ("unit", "close to 0"): (0.085, lambda x: (x > 0) & (x < 1e-9)),
    ("unit", "close to 1"): (0.077, lambda x: (x > 1 - 1e-4) & (x < 1)),
    ("unit", "below a half"): (0.084, lambda x: (x >= 0.496) & (x < 0.5)),
    ("unit", "above a half"): (0.084, lambda x: (x > 0.5) & (x <= 0.504)),
    ("unit", "ordinary"): (0.288, lambda x: (x > 0.1) & (x < 0.9) & (np.abs(x - 0.5) > 2**-8)),
    ("weight", "0"): (0.252, lambda x: x == 0),
    ("weight", "no power of 2"): (0.127, lambda x: np.frexp(x)[0] == 0.7 * 1.25),
    ("weight", "tiny"): (0.247, lambda x: (x > 0) & (x < 1e-5)),
    ("distribution", "a zero"): (0.05, lambda x: (x == 0).sum(1) == 1),
    ("distribution", "certain"): (0.05, lambda x: x.max(1) == 1),
    ("distribution", "concentrated"): (0.026, lambda x: (x.max(1) > 0.9) & (x > 0).all(1)),
    ("distribution", "even"): (0.3, lambda x: (x.max(1) < 0.3) & (x > 0).all(1)),
}
"""How large a share of the rows, or numbers, each style is to have about, and what it is."""


def gap(x: Any) -> Any:
    """How far the largest of a row is above the others."""
    ordered = np.sort(x)
    return ordered[:, -1] - ordered[:, -2]


@pytest.mark.parametrize(("domain", "style"), STYLES)
def test_draws_have_rows_of_every_style(domain: Draw, style: str, seed: int) -> None:
    x = draw(Domain("", draw=domain), (2000, 5), np.random.default_rng(seed), 3e38)
    share, has_style = STYLES[domain, style]
    assert share / 2 < np.mean(has_style(x)) < 1.5 * share


@pytest.mark.parametrize("domain", ["distribution", "log_probability"])
def test_probabilities_sum_to_one(domain: Draw, seed: int) -> None:
    x = draw(Domain("", draw=domain), (2000, 5), np.random.default_rng(seed), 3e38)
    p = x if domain == "distribution" else np.exp(x) - 1e-3
    whole = (p[:, 0] > 1e-15) | (p.max(1) == 1)  # the first may have been set to 0
    assert np.allclose(p[whole].sum(1), 1.0)
    assert np.all(p > -1e-15)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_sixteen_bit_format_is_tried_in_whole(half: torch.dtype) -> None:
    record = operations("silu")[0]
    assert record.facts is not None
    x = elementwise_inputs(record.facts, {}, half, 0, 0)
    assert x.dtype == half
    assert len(x.view(torch.int16).unique()) == len(x) == 2**16


def test_a_number_can_be_pasted() -> None:
    text = number(float(np.float32(-5.9614873)), torch.float32)
    decimal, hexadecimal = text.rstrip(")").split(" (")
    assert np.float32(decimal) == float.fromhex(hexadecimal) == np.float32(-5.9614873)


TRAPS: list[tuple[int, str, str, str, str]] = [
    (1, "log_softmax", "value", "bfloat16", ""),
    (2, "cross_entropy", "value", "bfloat16", ""),
    (3, "cross_entropy", "gradient(input)", "float16", ""),
    (4, "log_softmax", "jacobian", "float16", ""),
    (7, "binary_cross_entropy", "gradient(input)", "float32", ""),
    (8, "binary_cross_entropy", "gradient(input)", "float64", ""),
    (8, "binary_cross_entropy", "hessian_diagonal(input)", "float64", ""),
    (5, "soft_margin_loss", "value", "float32", ""),
    (10, "mish", "second_derivative", "float64", "normal"),
    (10, "mish", "second_derivative", "float32", "normal"),
    (10, "mish", "second_derivative", "float16", "normal"),
    (21, "gelu", "value", "float32", "normal"),
    (22, "gelu", "value", "float64", "normal"),
    (23, "gelu", "derivative", "float32", "normal"),
    (23, "gelu", "derivative", "float64", "normal"),
    (24, "gelu(approximate='tanh')", "value", "float32", "normal"),
    (26, "gelu(approximate='tanh')", "derivative", "float32", "normal"),
    (29, "gelu", "value", "float32", "special"),
    (30, "silu", "value", "float32", "special"),
    (30, "gelu", "value", "float64", "special"),
    (30, "mish", "value", "float32", "special"),
    (30, "hardswish", "value", "float32", "special"),
    (44, "sigmoid", "derivative", "float32", "normal"),
    (44, "sigmoid", "derivative", "float64", "normal"),
    (44, "sigmoid", "derivative", "float16", "normal"),
    (45, "tanh", "derivative", "float64", "normal"),
    (45, "tanh", "derivative", "bfloat16", "normal"),
    (47, "sigmoid", "second_derivative", "float32", "normal"),
    (48, "silu", "second_derivative", "float64", "normal"),
    (50, "softplus", "value", "float64", "normal"),
    (51, "softplus", "derivative", "float64", "normal"),
    (53, "logsigmoid", "second_derivative", "float32", "normal"),
    (54, "binary_cross_entropy_with_logits", "value", "float32", ""),
    (55, "binary_cross_entropy_with_logits", "gradient(input)", "float32", ""),
    (58, "glu", "jacobian", "float32", ""),
    (59, "softsign", "derivative", "float32", "normal"),
    (61, "tanhshrink", "value", "float32", "normal"),
    (61, "tanhshrink", "derivative", "float32", "normal"),
    (65, "silu", "derivative", "float32", "normal"),
    (69, "relu", "derivative", "float32", "special"),
    (69, "relu6", "derivative", "float32", "special"),
]
"""Rows of the field's measured failures that concern a function we have.

Not among them, as the inputs that a declaration gives do not reach them: what stands in
tests/test_traps.py, reductions of thousands of elements (20), one value alone and in a vector
(28, 111), KL of two equal distributions (68), and degenerate probabilities at which the truth is
infinite (70, 72, 97).
"""


@functools.cache
def _verdicts(operation: str, label: str, dtype: str) -> list[Verdict]:
    record = operations(operation)[0]
    cases = (Case(record.name, dict(given), dtype, "cpu") for given in record.cases)
    (case,) = (case for case in cases if case.label == label)
    return list(verify(case, "smoke", 0))


def verdicts_of(case: Case) -> list[Verdict]:
    return _verdicts(case.operation, case.label, case.dtype)


@pytest.mark.parametrize(
    ("row", "label", "quantity", "dtype_name", "region"),
    [pytest.param(*trap, id="-".join(map(str, trap[:4]))) for trap in TRAPS],
)
def test_known_failures_of_torch_are_found(
    row: int, label: str, quantity: str, dtype_name: str, region: str
) -> None:
    """From the declarations alone: the inputs reach the region, and the finding is reported."""
    record = operations(label.split("(")[0])[0]
    cases = (Case(record.name, dict(given), dtype_name, "cpu") for given in record.cases)
    (case,) = (case for case in cases if case.label == label)
    found: list[Finding] = [
        finding
        for verdict in verdicts_of(case)
        for finding in verdict.findings
        if finding.quantity.removesuffix(" [special]") == quantity and region in finding.region
    ]
    assert found, f"row {row} of the known failures"
    assert all(finding.ulp > 4 for finding in found)


def test_torch_without_a_derivative_is_no_error() -> None:
    (heaviside,) = operations("heaviside")
    jets: list[Any] = torch_jets(heaviside, torch.linspace(-1, 1, 5), {"values": 0.5})
    assert jets[0] is not None
    assert jets[1:] == [None, None]


def test_a_rounded_output_may_take_a_result_beyond_a_power_of_2() -> None:
    """There the rounding of the result counts twice as many ulp of the truth."""
    power = 2.0**-5
    truth, half = power * (1 - 2.0**-14), power * 2.0**-8
    known = Known(balls(truth), np.zeros(1), np.zeros(1), power - truth + half)
    case, quantity = Case("softmax", {}, "bfloat16", "cpu"), Quantity("jacobian_from_output")
    got = np.array([power * (1 + 2.0**-7)])
    found = evidence_of(case, quantity, torch.bfloat16, "ours", [got], [known], OURS)
    error = errors(got, known.truth, torch.bfloat16)
    assert 2 < error[0] <= found.allowed[0] < 2.1
