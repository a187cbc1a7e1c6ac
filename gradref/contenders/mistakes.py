"""Mistakes that have a name, with the results that a kernel gives which makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.ours import Ours
from gradref.contenders.witness import answered
from gradref.declare.operation import Operation
from gradref.declare.registry import operations
from gradref.judge.evidence import Mistake
from gradref.judge.questions import ELEMENTWISE, Quantity, Question, Sample, quantities
from gradref.judge.ulp import to_floats
from gradref.judge.verdict import Case
from gradref.truth.jets import Floats

Mistaken = Callable[[Quantity, Sample], Floats]


def mistakes(asked: list[Question]) -> Iterator[Mistake]:
    """Yield every mistake with its results, in float64, for the questions of one quantity."""
    case, q = asked[0].case, asked[0].quantity
    record = asked[0].record
    of = _elementwise if record.kind == "elementwise" else _of_rows
    for words, mistaken in of(record, case, q):
        try:
            found = [mistaken(q, question.sample.wide()) for question in asked]
        except (ValueError, TypeError, IndexError, KeyError):
            continue  # the mistake is outside of the domain
        yield words, np.concatenate([results.reshape(-1) for results in found])


def _ours(record: Operation, q: Quantity, s: Sample) -> Floats:
    """Return what our formula gives for a quantity of another operation or sample."""
    case = Case(record.full_name, {}, "float64", str(s.grad_output.device))
    found = Ours().answer(Question(record, case, q, s), "").result
    assert found is not None  # ours has what is asked for
    return to_floats(found)


# --- elementwise ---------------------------------------------------------------------------------


def _elementwise(record: Operation, case: Case, q: Quantity) -> Iterator[tuple[str, Mistaken]]:
    own = {**record.parameters, **case.parameters}
    vector = {"vjp": "grad_output", "jvp": "tangent"}.get(q.role)
    if vector is not None:
        yield f"{vector} is ignored", lambda q, s: _slope(record, s)
        first = f"{vector}[0] is used for every element"
        yield first, lambda q, s: _slope(record, s) * float(s.grad_output[0])
        passed = f"{vector} is passed on: the derivative is missing"
        yield passed, lambda q, s: to_floats(s.grad_output)
    for name, default in record.parameters.items():
        if own[name] != default:
            words = f"{name} is ignored: these are the results for {name}={default!r}"
            yield words, _with(record, {name: default})
    for given in record.cases:
        other = {**record.parameters, **given}
        if other != own:
            setting = ", ".join(f"{k}={v!r}" for k, v in given.items()) or "the default"
            yield f"computes {record.name} with {setting}", _with(record, other)
    if q.role == "vjp":
        yield "x is taken for grad_output, and grad_output for x", partial(_swapped, record)
    if q.order == 0:
        yield "returns its input", lambda q, s: to_floats(s.arrays["x"])
    if q.order == 1:
        yield "f(x)/x: the second term of the product rule is missing", partial(_quotient, record)
    for other_q in ELEMENTWISE:
        if vector is None and other_q.role in _PLAIN and other_q.order != q.order:
            words = f"returns the {other_q.role.replace('_', ' ')}"
            yield words, partial(_another_quantity, record, other_q)
    for other_record in operations():
        if other_record.kind == "elementwise" and other_record.name != record.name:
            yield f"these are the results of {other_record.name}", partial(_of_other, other_record)


_PLAIN = ("value", "derivative", "second_derivative")


def _another_quantity(record: Operation, other: Quantity, q: Quantity, s: Sample) -> Floats:
    return _ours(record, other, s)


def _slope(record: Operation, s: Sample) -> Floats:
    return _ours(record, ELEMENTWISE[1], s)


def _with(record: Operation, parameters: dict[str, Any]) -> Mistaken:
    return lambda q, s: _ours(record, q, replace(s, parameters={**s.parameters, **parameters}))


def _swapped(record: Operation, q: Quantity, s: Sample) -> Floats:
    x = s.arrays["x"]
    return _ours(record, q, replace(s, arrays={"x": s.grad_output}, grad_output=x))


def _quotient(record: Operation, q: Quantity, s: Sample) -> Floats:
    with np.errstate(all="ignore"):
        quotient = _ours(record, ELEMENTWISE[0], s) / to_floats(s.arrays["x"])
    return quotient * to_floats(s.grad_output) if q.role in ("vjp", "jvp") else quotient


def _of_other(other: Operation, q: Quantity, s: Sample) -> Floats:
    """Return the results of another operation, with its default parameters."""
    return _ours(other, q, replace(s, parameters=dict(other.parameters)))


# --- rows ----------------------------------------------------------------------------------------


def _of_rows(record: Operation, case: Case, q: Quantity) -> Iterator[tuple[str, Mistaken]]:
    """Yield what goes wrong with gradients, parameters and denominators."""
    if q.role in ("gradient", "vjp"):
        yield "grad_output is ignored", _with_grad_output(record, torch.ones_like)
        yield (
            "grad_output[0] is used for every row",
            _with_grad_output(record, lambda g: g[:1].expand_as(g)),
        )
    for words, computed in record.mistakes.items():
        yield words, partial(_by_autograd, replace(record, torch=computed))
    for name in case.parameters:
        if name in record.arguments:
            continue
        default = record.parameters[name]
        words = f"{name} is ignored: these are the results for {name}={default!r}"
        yield words, partial(_with_default, record, name)
    if record.reductions and q.reduction != "none":
        for other in record.reductions:
            if other != q.reduction:
                words = f"the reduction is {other!r}, not {q.reduction!r}"
                yield words, partial(_with_reduction, record, other)
        by = "all rows, not by the non-ignored ones"
        if record.kind == "batch" and "ignore_index" not in record.parameters:
            by = "the number of losses alone"
        yield f"mean divides by {by}", partial(_divided, record, _count)
        if record.coupled is None:
            yield (
                "mean divides by the number of rows, not of elements",
                partial(_divided, record, partial(_rows, record)),
            )
        if record.mass is not None:
            yield (
                "mean divides by the number of rows that count, not by their weights",
                partial(_divided, record, partial(_counted, record)),
            )
    form = (record.kind, record.coupled, record.arguments)
    for other_record in operations():
        same = (other_record.kind, other_record.coupled, other_record.arguments) == form
        if same and other_record.name != record.name:
            words = f"these are the results of {other_record.name}"
            yield words, partial(_of_another, other_record)


def _with_grad_output(record: Operation, change: Callable[[Tensor], Tensor]) -> Mistaken:
    return lambda q, s: _ours(record, q, replace(s, grad_output=change(s.grad_output)))


def _with_default(record: Operation, name: str, q: Quantity, s: Sample) -> Floats:
    """Return the results with a parameter at its default."""
    if name in s.arrays:
        arrays = {n: a for n, a in s.arrays.items() if n != name}
        return _ours(record, q, replace(s, arrays=arrays))
    other = replace(s, parameters={**s.parameters, name: record.parameters[name]})
    try:
        return _ours(record, q, other)
    except ValueError:  # what the default does to these arrays is outside of its domain
        return _by_autograd(record, q, other)


def _by_autograd(record: Operation, q: Quantity, s: Sample) -> Floats:
    """Return what autograd gives for a quantity of torch's counterpart."""
    case = Case(record.full_name, {}, "float64", str(s.grad_output.device))
    found = answered(Question(record, case, q, s)).result
    if found is None:
        raise ValueError(f"{record.name}: torch has no {q.name}")
    return to_floats(found)


def _with_reduction(record: Operation, reduction: str, q: Quantity, s: Sample) -> Floats:
    return _ours(record, _reduced(record, q, s, reduction), s)


def _reduced(record: Operation, q: Quantity, s: Sample, reduction: str) -> Quantity:
    """Return the same quantity under another reduction."""
    known = {(o.role, o.wrt, o.along, o.reduction): o for o in quantities(record, s)}
    return known[q.role, q.wrt, q.along, reduction]


def _divided(
    record: Operation, denominator: Callable[[Sample], float], q: Quantity, s: Sample
) -> Floats:
    """Return a mean that divides the sum by something else."""
    results = _ours(record, _reduced(record, q, s, "sum"), s)
    by_chunk = [denominator(chunk) for chunk in s.chunks()]
    divisors = np.repeat(by_chunk, results.size // len(by_chunk)).reshape(results.shape)
    quotient: Floats = results / divisors
    return quotient


def _count(s: Sample) -> float:
    return float(len(s.grad_output))


def _rows(record: Operation, s: Sample) -> float:
    return float(len(s.arrays[record.arguments[0]]))


def _counted(record: Operation, s: Sample) -> float:
    """Return the number of rows that are not ignored."""
    for name, domains in record.array_domains(s.parameters).items():
        index, ignored = s.arrays.get(name), s.parameters.get(domains[0].ignored)
        if index is not None and ignored is not None and not index.is_floating_point():
            return float((index != ignored).sum()) or math.nan
    return _count(s)


def _of_another(other: Operation, q: Quantity, s: Sample) -> Floats:
    """Return another operation of the same arrays, its numbers in the order of ours."""
    numbers = [v for v in s.parameters.values() if isinstance(v, float)]
    names = [n for n, v in other.parameters.items() if isinstance(v, float)]
    known = {n: v for n, v in s.parameters.items() if n in other.parameters}
    given = {**known, **dict(zip(names, numbers, strict=False))}
    arrays = {n: a for n, a in s.arrays.items() if n in (*other.arguments, *other.parameters)}
    sample = replace(s, arrays=arrays, parameters=given)
    return _ours(other, _reduced(other, q, sample, q.reduction), sample)
