"""A wrong sign, factor, branch or default, planted in a copy of every formula, must fail.

And the gates are shown to fail for what passes the gates of the field: zeros, the identity, and
accumulation in half precision.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gradref.contenders.ours import Ours
from gradref.declare.operation import Domain, Operation
from gradref.declare.registry import operations
from gradref.judge import gates
from gradref.judge.evidence import NORMAL
from gradref.judge.trial import Trial
from gradref.judge.verdict import ORDER_OF, Case, Verdict
from gradref.runs.verify import exam_of

Mutation = Callable[[Callable[..., Any]], Callable[..., Any]]


def flat(y: Tensor) -> Tensor:
    return y.reshape(-1)


def on_result(change: Callable[[Tensor], Tensor]) -> Mutation:
    def mutate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def planted(*args: Any, **kwargs: Any) -> Any:
            return change(function(*args, **kwargs))

        return planted

    return mutate


def on_first(change: Callable[[Tensor], Tensor]) -> Mutation:
    """The formula of another branch: what it gives for a changed argument."""

    def mutate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def planted(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            return function(change(x), *args, **kwargs)

        return planted

    return mutate


def without(name: str) -> Mutation:
    """The argument is ignored: its default is used whatever is given."""

    def mutate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def planted(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **{k: v for k, v in kwargs.items() if k != name})

        return planted

    return mutate


def exchanged_reductions(function: Callable[..., Any]) -> Callable[..., Any]:
    other = {"mean": "sum", "sum": "mean", "none": "none", "batchmean": "mean"}

    @functools.wraps(function)
    def planted(*args: Any, reduction: str, **kwargs: Any) -> Any:
        return function(*args, reduction=other[reduction], **kwargs)

    return planted


COMMON: dict[str, Mutation] = {
    "sign": on_result(lambda y: -y),
    "factor": on_result(lambda y: y * (1 + 2.0**-9)),
    "offset": on_result(lambda y: y + torch.finfo(y.dtype).eps * 8),
    "zeros": on_result(torch.zeros_like),
    "half precision": on_result(lambda y: y.to(torch.bfloat16).to(y.dtype)),
    "last element": on_result(
        lambda y: flat(y).index_fill(0, torch.tensor([y.numel() - 1]), 3.5).reshape(y.shape)
    ),
}
BRANCHES: dict[str, Mutation] = {
    "branch left": on_first(lambda x: torch.where(x < 0, x * 1.25, x)),
    "branch right": on_first(lambda x: torch.where(x > 0, x * 1.25, x)),
}


def judged(record: Operation, case: Case, *roles: str) -> list[Verdict]:
    """The verdicts on a record in place of the declared one, of the orders of some roles."""
    (declared,) = operations(record.name)
    exam = exam_of(case, "smoke", 0, (case.dtype,))
    exam = dataclasses.replace(exam, declared=declared)
    orders = {ORDER_OF[role] for role in roles} or (0, 1, 2)
    return list(Trial(Ours(record), gates.OURS, [], tuple(orders)).verdicts(exam))


def changed(verdicts: list[Verdict]) -> bool:
    return any(not verdict.passed for verdict in verdicts)


def differs(a: Any, b: Any) -> bool:
    return not torch.equal(torch.nan_to_num(a, nan=7.0), torch.nan_to_num(b, nan=7.0))


def with_role(record: Operation, role: str, function: Callable[..., Any]) -> Operation:
    if role == "value":
        return dataclasses.replace(record, function=function)
    return dataclasses.replace(record, derivatives={**record.derivatives, role: function})


def function_of(record: Operation, role: str) -> Callable[..., Any]:
    return record.function if role == "value" else record.derivatives[role]


def elementwise_cases() -> Iterator[Any]:
    for record in operations():
        if record.kind == "elementwise":
            for role in ("value", "derivative", "second_derivative"):
                yield pytest.param(record, role, id=f"{record.name}-{role}")


@pytest.mark.parametrize(("record", "role"), list(elementwise_cases()))
def test_mistakes_in_elementwise_formulas(record: Operation, role: str) -> None:
    function = function_of(record, role)
    case = Case(record.name, {}, "float32", "cpu")
    x = torch.linspace(-8, 8, 400)
    assert not changed(judged(record, case, role))
    planted = 0
    for name, mutate in {**COMMON, **BRANCHES}.items():
        mutant = mutate(function)
        if differs(mutant(x), function(x)):  # a mistake that shows nowhere is none
            planted += 1
            assert changed(judged(with_role(record, role, mutant), case, role)), name
    for parameter, value in record.parameters.items():
        for given in record.cases:
            if given.get(parameter, value) == value:
                continue
            other = Case(record.name, dict(given), "float32", "cpu")
            mutant = without(parameter)(function)
            if differs(mutant(x, **given), function(x, **given)):
                planted += 1
                assert changed(judged(with_role(record, role, mutant), other, role)), parameter
    assert planted >= 2


def row_cases() -> Iterator[Any]:
    for record in operations():
        if record.kind != "elementwise":
            for role in ("value", *record.derivatives):
                yield pytest.param(record, role, id=f"{record.name}-{role}")


@pytest.mark.parametrize(("record", "role"), list(row_cases()))
def test_mistakes_in_row_wise_formulas_and_losses(record: Operation, role: str) -> None:
    function = function_of(record, role)
    case = Case(record.name, {}, "float32", "cpu")
    plain = [v for v in judged(record, case, role) if v.quantity.startswith(role)]
    if not any(NORMAL in verdict.worst for verdict in plain):
        names = ["offset", "last element"]  # the truth is 0 everywhere
    else:
        names = ["sign", "factor", "offset", "zeros", "half precision", "last element"]
    for name in names:
        mutant = COMMON[name](function)
        assert changed(judged(with_role(record, role, mutant), case, role)), name


def ignored_arguments() -> Iterator[Any]:
    for record in operations():
        if record.kind != "loss":
            continue
        for given in record.cases:
            for parameter in given:
                if parameter in record.arguments:
                    continue
                is_added = (record.name, parameter) == ("gaussian_nll_loss", "full")
                for role in ("value",) if is_added else ("value", "gradient"):
                    yield pytest.param(
                        record, dict(given), role, parameter, id=f"{record.name}-{role}-{parameter}"
                    )
        yield pytest.param(record, {}, "gradient", "grad_output", id=f"{record.name}-grad_output")
        for role in ("value", "gradient") if record.reductions else ():
            yield pytest.param(record, {}, role, "reduction", id=f"{record.name}-{role}-reduction")
        if len(record.differentiable) > 1:
            yield pytest.param(record, {}, "gradient", "wrt", id=f"{record.name}-wrt")


@pytest.mark.parametrize(("record", "given", "role", "parameter"), list(ignored_arguments()))
def test_ignored_arguments(
    record: Operation, given: dict[str, Any], role: str, parameter: str
) -> None:
    """weight, ignore_index, label_smoothing, reduction, wrt or grad_output without effect."""
    if record.name in ("nll_loss", "cross_entropy") and parameter == "wrt":
        given = {"target": record.domains["target"][1]} if record.name == "cross_entropy" else {}  # type: ignore[index]
        if not given:
            return  # class indices have no gradient
    mutate = exchanged_reductions if parameter == "reduction" else without(parameter)
    mutant = mutate(function_of(record, role))
    case = Case(record.name, given, "float32", "cpu")
    if parameter == "log_target":
        with pytest.raises(ValueError, match="target: .* wants probabilities"):
            judged(with_role(record, role, mutant), case, role)
        return
    rows = judged(with_role(record, role, mutant), case, role)
    assert changed(rows)
    words = {"reduction": "[", "wrt": "gradient("}.get(parameter, "")
    assert any(words in row.quantity for row in rows if not row.passed)


def test_a_mean_that_counts_the_ignored_rows() -> None:
    (record,) = operations("cross_entropy")
    given = next(dict(case) for case in record.cases if "ignore_index" in case)
    assert isinstance(given["weight"], Domain)
    miscounting = dataclasses.replace(record, mass=None)
    honest = record.function

    def mean_over_all(*args: Any, reduction: str = "mean", **kwargs: Any) -> Any:
        if reduction != "mean":
            return honest(*args, reduction=reduction, **kwargs)
        return honest(*args, reduction="none", **kwargs).mean()

    planted = dataclasses.replace(miscounting, function=mean_over_all)
    rows = judged(planted, Case(record.name, given, "float32", "cpu"))
    assert {row.quantity for row in rows if not row.passed} == {"value [mean]"}


@pytest.mark.parametrize("name", ["softmax", "cross_entropy", "mse_loss", "kl_divergence"])
def test_what_passes_elsewhere_fails_here(name: str) -> None:
    """Zeros, the identity, and accumulation in half precision exceed every gate."""
    (record,) = operations(name)
    case = Case(name, {}, "float32", "cpu")

    def low(*args: Any, **kwargs: Any) -> Any:
        def narrow(v: Any) -> Any:
            return v.to(torch.bfloat16) if isinstance(v, Tensor) and v.is_floating_point() else v

        result = record.function(*map(narrow, args), **{k: narrow(v) for k, v in kwargs.items()})
        return result.to(torch.float32)

    def identity(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()))
        result = record.function(*args, **kwargs)
        return first if first.shape == result.shape else first.reshape(-1)[0].expand(result.shape)

    for wrong in (low, identity, COMMON["zeros"](record.function)):
        assert changed(judged(with_role(record, "value", wrong), case, "value"))
