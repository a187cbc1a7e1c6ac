"""Devices: every public function on fake CUDA tensors, of which torch knows all but the numbers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import activations
import losses
from gradref.declare.operation import REAL, Domain, Operation, choices, formula_of
from gradref.declare.registry import batch_losses
from gradref.environment import environment

ROWS, CLASSES = 3, 6
PUBLIC = [
    getattr(package, name) for package in (activations, losses) for name in sorted(package.__all__)
]
FUNCTIONS = [function for function in PUBLIC if function.operation.kind != "batch"]


def array(domains: tuple[Domain, ...], wants_float: bool, dtype: torch.dtype) -> Tensor:
    """An argument as its domain wants it; its numbers do not matter."""
    domain = next((d for d in domains if not (wants_float and d.integer)), REAL)
    shape = {"row": (ROWS,), "class": (CLASSES,)}.get(domain.extent, (ROWS, CLASSES))
    return torch.zeros(shape, device="cuda", dtype=torch.int64 if domain.integer else dtype)


def result_shape(
    function: Any, record: Operation, reduction: str = "none", wrt: str = "", **_: str
) -> tuple[int, ...]:
    if record.kind == "loss" and function is record.function:
        row = (ROWS, CLASSES) if record.coupled is None else (ROWS,)
        return row if reduction == "none" else ()
    output = (ROWS, CLASSES // record.parts)
    if function.__name__.endswith(("_jacobian", "_jacobian_from_output")):
        return (*output, CLASSES)
    if function is record.function or function.__name__.endswith(("_jvp", "_diagonal")):
        return output
    return (CLASSES,) if wrt in record.shared else (ROWS, CLASSES)


def calls(function: Any, record: Operation) -> Iterator[dict[str, Any]]:
    """The defaults, and every choice of a parameter; of ``wrt`` what can be differentiated."""
    domains = record.array_domains(record.parameters)
    yield {}
    for name, values in choices(formula_of(function)).items():
        for value in values:
            if not all(d.integer for d in domains.get(value, (REAL,))):
                yield {name: value}


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_results_are_where_the_arguments_are(function: Any, kind: torch.dtype) -> None:
    record: Operation = function.operation
    signature = inspect.signature(formula_of(function)).parameters
    domains = record.array_domains(record.parameters)
    with FakeTensorMode():
        for chosen in calls(function, record):
            given = {
                name: array(domains.get(name, (REAL,)), name in chosen.values(), kind)
                for name, parameter in signature.items()
                if parameter.default is parameter.empty
            }
            made = {"reduction": record.parameters.get("reduction", "none"), **chosen}
            output = result_shape(record.function, record, made["reduction"])
            vector = torch.ones(output, device="cuda", dtype=kind)
            backward = {}
            if "grad_output" in given:
                given["grad_output"] = vector
            elif "grad_output" in signature:
                backward["grad_output"] = vector
            if chosen.get("along") in record.shared:
                given["tangent"] = torch.ones(CLASSES, device="cuda", dtype=kind)
            result = function(*given.values(), **chosen, **backward)
            assert result.device == torch.device("cuda", 0), chosen
            assert result.dtype == kind, chosen
            assert tuple(result.shape) == result_shape(function, record, **made), chosen


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("record", batch_losses(), ids=lambda r: r.name)
def test_results_of_a_batch_are_where_the_arguments_are(
    record: Operation, kind: torch.dtype
) -> None:
    if record.name == "ctc_loss":
        pytest.skip("its lattice is as long as the labels, whose numbers a fake tensor has not")
    if record.name == "linear_cross_entropy" and torch.version.cuda is None:
        pytest.skip("torch built without CUDA cannot index a fake CUDA tensor")
    for case in record.cases:
        assert record.draw is not None
        drawn = record.draw(np.random.default_rng(0), case, False)
        options = {name: v for name, v in case.items() if name not in drawn}
        with FakeTensorMode():
            arrays = {
                n: torch.zeros(a.shape, device="cuda", dtype=kind if a.dtype == float else int)
                for n, a in drawn.items()
            }
            results = {"": record.function(**arrays, **options)}
            for wrt in (name for name in record.differentiable if name in drawn):
                for role in ("gradient", "hessian_diagonal"):
                    results[wrt] = record.derivatives[role](**arrays, **options, wrt=wrt)
                    assert results[wrt].shape == arrays[wrt].shape
            for result in results.values():
                assert (result.device, result.dtype) == (torch.device("cuda", 0), kind)


def test_the_environment_says_which_build_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.15.0+cu132")
    assert environment()["torch"] == "2.15.0+cu132"
