"""The verdict on an elementwise function: value, first and second derivative at every input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gradref.arrays import reject
from gradref.declare.operation import Facts, Jet, Operation
from gradref.measure.inputs import HALVES, elementwise_inputs
from gradref.measure.ulp import errors, first_beyond, spacing, to_floats
from gradref.measure.verdict import NOTABLE_ULP, Case, Mask, Results, Row, number
from gradref.truth.jets import Balls, Floats, beyond_half, jets

ORDERS = ("value", "derivative", "second_derivative")

ULP_BOUND = {
    torch.float16: 0.5,
    torch.bfloat16: 0.5,
    torch.float32: 0.5001,
    torch.float64: 4.0,
}
"""What is promised away from isolated zeros of a derivative."""

NEAR = {torch.float32: 2.0**-8, torch.float64: 0.75}
"""How near, relative to the zero, float64's own error is visible in the output format."""

NEAR_FLOAT32_BOUND = 1.0
NEAR_BACKWARD = 6.0
"""Near a zero of f float64 is held to ½ ulp + 6 u times the size of x f′(x) there."""

SIZES = {
    "smoke": {torch.float32: 20_000, torch.float64: 10_000},
    "quick": {torch.float32: 1_010_000, torch.float64: 150_000},
    "full": {torch.float32: 4_000_000, torch.float64: 1_000_000},
}


def judge_elementwise(record: Operation, case: Case, mode: str, seed: int) -> list[Row]:
    """The rows of all three orders, the neighbourhood of a zero in a row of its own."""
    dtype, parameters = case.torch_dtype, {**record.parameters, **case.parameters}
    assert record.facts is not None  # an elementwise operation has facts
    facts = record.facts.at(**parameters)
    zeros = find_zeros(record, facts, parameters)
    x = elementwise_inputs(facts, zeros, dtype, SIZES[mode].get(dtype, 0), seed)
    points = to_floats(x)
    truth = elementwise_truth(record, facts, points, parameters)
    moved = x.to(case.device)
    theirs = torch_jets(record, moved, parameters)
    declared = {ORDERS[0]: record.function, **record.derivatives}
    rows = []
    for order, name in enumerate(ORDERS):
        if name not in declared:
            continue
        results = Results(
            case,
            name,
            truth[order],
            to_floats(declared[name](moved, **parameters)),
            theirs[order],
            lambda index: {"x": number(points[index], dtype)},
        )
        special = ~np.isfinite(points) | np.isin(points, list(facts.kinks))
        rows += _judge_order(record, parameters, results, points, special, zeros.get(order, []))
    return rows


def _judge_order(
    record: Operation,
    parameters: dict[str, Any],
    results: Results,
    points: Floats,
    special: Mask,
    zeros: list[float],
) -> list[Row]:
    dtype, truth = results.case.torch_dtype, results.truth
    near = near_zeros(points, zeros, NEAR.get(dtype, 0.0))
    order = ORDERS.index(results.quantity)
    ulp = errors(results.ours, truth, dtype)
    undecided = np.isnan(truth.high) & ~special
    if dtype in HALVES:
        settle_ties(ulp, record.truth, order, points, results.ours, truth, dtype, parameters)
    bound = ULP_BOUND[dtype]
    normal = np.abs(truth.high) >= torch.finfo(dtype).smallest_normal
    parts = {"normal": normal & ~special, "subnormal": ~normal & ~special, "special": special}
    rows = [
        results.row(
            "",
            ~near,
            ulp,
            used=np.where(undecided, np.nan, ulp / bound),
            notable=np.full(len(ulp), NOTABLE_ULP),
            bound=f"{bound:g} ulp",
            grade="proved" if dtype in HALVES else "sampled (>=)",
            parts=parts,
        )
    ]
    if near.any():
        allowed, text = _near_bound(truth, points, dtype, zeros)
        rows.append(
            results.row(
                "near zero",
                near,
                ulp,
                used=np.where(undecided, np.nan, ulp / allowed),
                notable=NOTABLE_ULP + backward_error(truth, points, dtype, zeros),
                bound=text,
                grade="sampled (>=)",
                parts={"near zero": near},
            )
        )
    return rows


def settle_ties(
    ulp: Floats,
    truth: Callable[..., Any],
    order: int,
    points: Floats,
    got: Floats,
    balls: Balls,
    dtype: torch.dtype,
    parameters: dict[str, Any],
) -> None:
    """Replace errors that twice float64 cannot tell from half an ulp by proved ones."""
    limit = first_beyond(dtype)
    for i in np.flatnonzero(np.abs(ulp - 0.5) < 2.0**-20):
        half = 0.5 * float(spacing(balls.high[i], dtype))
        finite = float(np.clip(got[i], -limit, limit))
        beyond = beyond_half(truth, points[i], order, finite, half, **parameters)
        ulp[i] = np.nextafter(0.5, 1.0) if beyond else 0.5


def near_zeros(points: Floats, zeros: list[float], width: float) -> Mask:
    """Which points are within ``width``, relative, of a zero."""
    near = np.zeros(len(points), dtype=bool)
    for zero in zeros:
        near |= (points >= zero - width * abs(zero)) & (points <= zero + width * abs(zero))
    return near


def _near_bound(
    truth: Balls, points: Floats, dtype: torch.dtype, zeros: list[float]
) -> tuple[Floats, str]:
    """What is promised around the isolated zeros, in ulp at every point."""
    if dtype is torch.float32:
        return np.full(len(points), NEAR_FLOAT32_BOUND), f"{NEAR_FLOAT32_BOUND:g} ulp"
    backward = 0.5 + backward_error(truth, points, dtype, zeros)
    return np.maximum(ULP_BOUND[dtype], backward), f"{NEAR_BACKWARD:g} u |x f'(x)|"


def backward_error(
    truth: Balls,
    points: Floats,
    dtype: torch.dtype,
    zeros: list[float],
    width: float | None = None,
    unit: float | None = None,
) -> Floats:
    """The error in ulp that a backward error of ``NEAR_BACKWARD`` u is, around each zero.

    ``unit`` is u, by default that of the dtype, and ``width`` says how far around a zero.
    """
    width = NEAR[dtype] if width is None else width
    unit = torch.finfo(dtype).eps / 2 if unit is None else unit
    size = np.zeros(len(points))
    for zero in zeros:
        distance = np.abs(np.nan_to_num(points, nan=np.inf, posinf=np.inf) - zero)
        secant = (distance > 1e-3 * abs(zero)) & (distance < 1e-1 * abs(zero))
        slope = np.median(np.abs(truth.high[secant]) / distance[secant]) if secant.any() else 0.0
        size[near_zeros(points, [zero], width)] = abs(zero) * slope
    return np.asarray(NEAR_BACKWARD * unit * size / spacing(truth.high, dtype))


def elementwise_truth(
    record: Operation, facts: Facts, points: Floats, parameters: dict[str, Any]
) -> Balls:
    """Arb at ordinary points; the declared limits and choices at infinities and kinks."""
    high, low = np.full((3, len(points)), np.nan), np.zeros((3, len(points)))
    for at, jet in declared_jets(facts).items():
        high[:, points == at] = np.asarray(jet)[:, None]
    ordinary = np.isfinite(points) & ~np.isin(points, list(facts.kinks))
    balls = jets(record.truth, points[ordinary], **parameters)
    high[:, ordinary], low[:, ordinary] = balls.high, balls.low
    return Balls(high, low)


def declared_jets(facts: Facts) -> dict[float, Jet]:
    """The jets at infinities and kinks, which are declared and not computed."""
    return {**facts.limits, **{at: kink.chosen for at, kink in facts.kinks.items()}}


def find_zeros(
    record: Operation, facts: Facts, parameters: dict[str, Any]
) -> dict[int, list[float]]:
    """The declared isolated zeros of every order, by bisection of their brackets with Arb."""
    return {
        order: [_bisect(record, order, bracket, parameters) for bracket in brackets]
        for order, brackets in facts.zeros.items()
    }


def _bisect(
    record: Operation, order: int, bracket: tuple[float, float], parameters: dict[str, Any]
) -> float:
    low, high = bracket

    def sign(x: float) -> float:
        return float(np.sign(jets(record.truth, np.array([x]), **parameters).high[order, 0]))

    start = sign(low)
    if start == sign(high):
        reject("zeros", f"{bracket} for order {order}", "a bracket in which the sign changes")
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if sign(middle) == start else (low, middle)
    return low


def torch_jets(
    record: Operation, x: torch.Tensor, parameters: dict[str, Any]
) -> list[Floats | None]:
    """torch's value, first and second derivative by autograd; None where it has none."""
    if record.torch is None:
        return [None, None, None]
    leaf = x.clone().requires_grad_()
    y = record.torch(leaf, **parameters)
    result: list[Floats | None] = [to_floats(y), None, None]
    try:
        for order in (1, 2):
            if y.requires_grad:
                (y,) = torch.autograd.grad(y.sum(), leaf, create_graph=True, materialize_grads=True)
            else:
                y = torch.zeros_like(leaf)
            result[order] = to_floats(y)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
    return result
