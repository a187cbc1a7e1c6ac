"""What every declared function promises: torch's signature, a full docstring, a declared kind."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import activations
import gradref.declare
import losses
from gradref.contenders.ours import Ours
from gradref.contenders.witness import Torch
from gradref.declare import elementwise
from gradref.declare.operation import Facts, Operation, operation
from gradref.declare.registry import batch_losses, declared, operations
from gradref.judge import gates
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.trial import Trial
from gradref.judge.verdict import Case

RECORDS = operations()
NOT_OURS = {"inplace", "size_average", "reduce", "_stacklevel", "dtype", "out"}
"""torch's arguments that we have no use for: deprecated, private, or what ``out=`` does."""

UNREADABLE = {
    "logsigmoid": {},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "gelu": {"approximate": "none"},
    "prelu": {},
    "hardshrink": {"lambd": 0.5},
    "softshrink": {"lambd": 0.5},
    "pairwise_distance": {"p": 2.0, "eps": 1e-6, "keepdim": False},
    "cosine_similarity": {"dim": 1, "eps": 1e-8},
}
"""Builtins of torch without a signature; from their docstrings."""


def torch_parameters(record: Operation) -> dict[str, Any] | None:
    """Return torch's arguments with a default, and those that have one of ours."""
    function = getattr(F, record.name, None)
    if function is None:
        return None
    if record.name in UNREADABLE:
        return dict(UNREADABLE[record.name])
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.name not in NOT_OURS
        and (p.default is not inspect.Parameter.empty or p.name in record.parameters)
    }


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_signature_is_torchs(record: Operation) -> None:
    theirs = torch_parameters(record)
    if theirs is None:
        assert record.torch is not None
        return
    ours = record.parameters
    added = [name for name in ours if name not in theirs]
    assert list(ours) == [*(name for name in theirs if name in ours), *added]
    different = {name for name in theirs if name not in ours or ours[name] != theirs[name]}
    different |= set(added)
    assert different == set(record.differs), "a difference is declared with its reason, or none"


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_derivatives_take_the_parameters_of_the_function(record: Operation) -> None:
    added = {"wrt", "along", "grad_output"}
    for role, function in record.derivatives.items():
        if role.endswith("from_output"):
            continue
        parameters = inspect.signature(function).parameters
        defaults = {
            name: p.default
            for name, p in parameters.items()
            if p.default is not inspect.Parameter.empty and name not in added
        }
        assert defaults == record.parameters
        if record.kind == "elementwise":
            known = inspect.signature(record.function).parameters
            assert {n: p.kind for n, p in parameters.items()} == {
                n: p.kind for n, p in known.items()
            }


def functions() -> list[Callable[..., Any]]:
    every = (*RECORDS, *batch_losses())
    return [f for r in every for f in (r.function, *r.derivatives.values())]


@pytest.mark.parametrize("function", functions(), ids=lambda f: f.__name__)
def test_docstring(function: Callable[..., Any]) -> None:
    text = function.__doc__ or ""
    assert ":math:" in text or ".. math::" in text
    assert ">>>" in text
    record: Operation = function.operation  # type: ignore[attr-defined]  # all are declared
    if function is not record.function:
        return
    for word in ("Domain", "float64", "Source:"):
        assert word in text, word
    if record.domains:
        assert "Raises" in text
    if record.kind == "elementwise":
        assert "NaN" in text
        assert "inf" in text


@pytest.mark.parametrize("package", [activations, losses])
def test_everything_public_is_declared(package: Any) -> None:
    for name in package.__all__:
        record = getattr(package, name).operation
        known = (record.function, *record.derivatives.values())
        assert getattr(package, name) in known
        assert name.startswith(record.name)
    names = {
        f.__name__
        for r in declared(package.__name__)
        for f in (r.function, *r.derivatives.values())
    }
    assert names == set(package.__all__)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_names_say_what_a_function_is(record: Operation) -> None:
    for role, function in record.derivatives.items():
        assert function.__name__ == f"{record.name}_{role}"


def test_operations_are_found_by_name_and_package() -> None:
    assert [r.name for r in operations("gelu")] == ["gelu"]
    assert {r.module.split(".")[0] for r in operations("losses")} == {"losses"}
    with pytest.raises(ValueError, match=r"got 'gleu' \(did you mean glu or gelu\?\), wants a"):
        operations("gleu")
    with pytest.raises(TypeError, match="function: got"):
        operation(torch.sigmoid)


def test_a_function_of_ones_own() -> None:
    """Adding a function takes one declaration; what it does not declare is not judged."""
    infinities = {-torch.inf: (torch.inf, -torch.inf, 2.0), torch.inf: (torch.inf, torch.inf, 2.0)}

    @elementwise(
        torch=lambda x: x * x,
        truth=lambda x: x * x,
        facts=Facts(infinities),
    )
    def square(x: torch.Tensor, /) -> torch.Tensor:
        return x * x

    assert square(3.0) == 9.0
    record = square.operation
    case = Case("square", {}, "bfloat16", "cpu")
    exam = ElementwiseExam(case, {}, 0, ("bfloat16",), declared=record)
    found = list(Trial(Ours(), gates.OURS, [Torch()]).verdicts(exam))
    assert [verdict.quantity for verdict in found] == ["value", "value [special]"]
    assert all(verdict.passed for verdict in found)


def test_a_bracket_without_a_zero_is_refused() -> None:
    (silu,) = operations("silu")
    assert silu.facts is not None
    wrong = dataclasses.replace(silu.facts.at(), zeros={1: [(5.0, 6.0)]})
    with pytest.raises(ValueError, match="zeros: got .* wants a bracket in which the sign changes"):
        assert wrong.roots


def test_a_package_declares_only_what_is_its_own() -> None:
    names = {record.name for record in declared("losses")}
    assert "softplus" not in names  # which its modules import
    assert "softplus" in {record.name for record in declared("activations")}


def test_the_vocabulary_names_no_parameter_of_an_operation() -> None:
    known = {name for record in RECORDS for name in record.parameters if len(name) > 1}
    shared = {"dim", "reduction", "weight", "value", "values"}  # words of the vocabulary
    shared |= {"lower"}  # of str
    for path in Path(gradref.declare.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words = {getattr(node, field, None) for field in ("id", "arg", "attr", "value")}
            assert not {w for w in words if isinstance(w, str)} & (known - shared), path.name


def test_annotations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return input - target

    record = dataclasses.replace(operations("huber_loss")[0], formula=unread)
    reads = []
    monkeypatch.setattr(typing, "get_type_hints", lambda f: reads.append(f) or {})
    for _ in range(3):
        assert record.reductions == ()
    assert len(reads) == 1


def test_the_readme_and_the_docstrings_have_no_todo() -> None:
    for function in functions():
        assert not re.search(r"TODO|FIXME|XXX", inspect.getsource(function))
