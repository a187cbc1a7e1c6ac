"""What a kernel may declare of its arguments and results: it is judged by it, and it is listed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from mutants import CONDITIONS
from torch import Tensor

from gradref.contenders.contract import Contract
from gradref.contenders.kernel import Kernel
from gradref.contenders.load import load
from gradref.contenders.sandbox import InProcess
from gradref.judge.verdict import Case, Verdict
from gradref.runs.check import check
from gradref.runs.options import Options
from gradref.testing.conforms import assert_kernel_conforms


def judged(entry: Any, operation: str, dtype: str = "float32", **given: Any) -> list[Verdict]:
    kernel = Kernel.of(operation, entry)
    options = Options("quick", conditions=CONDITIONS)
    return list(check(kernel, Case(operation, given, dtype, "cpu"), InProcess([kernel]), options))


def failed(verdicts: list[Verdict]) -> dict[str, str]:
    return {v.quantity: "; ".join(v.words) for v in verdicts if not v.passed}


# --- each of them --------------------------------------------------------------------------------


def of_rank(rank: int, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def kernel(x: Tensor, *others: Tensor) -> Tensor:
        if x.dim() != rank:
            raise ValueError(f"wants rank {rank}")
        return function(x, *others)

    return kernel


def contiguous_relu(x: Tensor) -> Tensor:
    return torch.relu(torch.as_strided(x, x.shape, torch.empty(x.shape).stride()))


def exact_sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x.double()).to(torch.float32)


def exact_softmax(x: Tensor) -> Tensor:
    return torch.softmax(x.double(), -1).to(x.dtype)


def clamped_relu(x: Tensor) -> Tensor:
    """ReLU of finite numbers: NaN gives 0, and an infinity the largest number."""
    return torch.nan_to_num(x, nan=0.0).clamp(min=0)


def cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    loss = torch.nn.functional.cross_entropy(input.double(), target, reduction="none")
    return loss.to(input.dtype)


RELU = {"operation": "relu", "nan": "torch"}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "result_dtype": (
        "sigmoid",
        "bfloat16",
        {"forward": exact_sigmoid},
        {"result_dtype": "float32"},
    ),
    "ranks, elementwise": (
        "relu",
        "float32",
        {"function": of_rank(1, torch.relu), "nan": "torch"},
        {"ranks": [1]},
    ),
    "ranks, of rows": (
        "softmax",
        "float32",
        {"function": of_rank(3, exact_softmax)},
        {"ranks": [3]},
    ),
    "ranks, of classes": (
        "cross_entropy",
        "float32",
        {"function": of_rank(3, cross_entropy), "reduction": "none"},
        {"ranks": [3]},
    ),
    "contiguous": ("relu", "float32", {"forward": contiguous_relu}, {"contiguous": True}),
    "in_place": ("relu", "float32", {"forward": torch.relu_}, {"in_place": ["x"]}),
    "in_place, differentiated": (
        "relu",
        "float32",
        {"function": torch.relu_, "nan": "torch"},
        {"in_place": ["x"]},
    ),
    "nan": ("relu", "float32", {"function": torch.relu}, {"nan": "torch"}),
    "anything at special inputs": (
        "relu",
        "float32",
        {"forward": clamped_relu},
        {"nan": "any", "inf": "any"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_passes_with_what_it_declares_and_fails_without(name: str) -> None:
    operation, dtype, entry, declared = CASES[name]
    assert failed(judged(entry, operation, dtype))
    verdicts = judged({**entry, **declared}, operation, dtype)
    assert failed(verdicts) == {}
    (key, *_) = declared
    assert any(key in words for words in verdicts[0].declared)


def test_a_declared_kernel_is_still_judged() -> None:
    def too_large(x: Tensor) -> Tensor:
        return exact_sigmoid(x) * (1 + 2.0**-20)

    entry = {"forward": too_large, "result_dtype": "float32"}
    assert "value" in failed(judged(entry, "sigmoid", "bfloat16"))

    def next_to_it(x: Tensor) -> Tensor:
        memory = torch.as_strided(x, (1,), (1,), x.storage_offset() + x.numel())
        memory.fill_(1.0)
        return x.relu_()

    found = failed(judged({"forward": next_to_it, "in_place": ["x"]}, "relu"))
    assert found["arguments untouched"] == "forward, value: writes into x, or next to it"

    def another_number(x: Tensor) -> Tensor:
        return torch.where(x.isnan(), 7.0, torch.relu(x))

    entry = {"forward": another_number, "nan": "torch"}
    assert list(failed(judged(entry, "relu"))) == ["value [special]"]


# --- what takes any arguments --------------------------------------------------------------------


class Scaled(torch.autograd.Function):
    """LeakyReLU with a slope of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.leaky_relu(x, 0.25)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, grad_output, 0.25 * grad_output)


def test_modules_and_functions_are_asked_without_what_they_do_not_take() -> None:
    (kernel,) = load("torch.nn:SmoothL1Loss", "smooth_l1_loss")
    assert kernel.settings == {"reduction": "mean", "beta": 1.0}
    assert not kernel.accepts("function", "beta")
    assert failed(judged(torch.nn.SmoothL1Loss(beta=2.0), "smooth_l1_loss", beta=2.0)) == {}
    entry = {"function": Scaled, "negative_slope": 0.25, "nan": "torch"}
    assert failed(judged(entry, "leaky_relu", negative_slope=0.25)) == {}


def test_parameters_behind_any_keywords_are_named() -> None:
    def any_keywords(x: Tensor, **keywords: Any) -> Tensor:
        return torch.nn.functional.leaky_relu(x, **keywords)

    of = Kernel.of("leaky_relu", {"forward": any_keywords, "accepts": []})
    assert of.missing == ["negative_slope"]
    of = Kernel.of("leaky_relu", {"forward": any_keywords, "accepts": ["negative_slope"]})
    assert of.keywords("forward", {"negative_slope": 0.5}) == {"negative_slope": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "wants"),
    [
        ("result_dtype", "f32", "one of float64, float32, float16, bfloat16"),
        ("ranks", [0], "a list of 1, 2,"),
        ("ranks", 2, "a list of 1, 2,"),
        ("contiguous", "yes", "one of True, False"),
        ("in_place", ["input"], "a list of x, grad_output, tangent"),
        ("subnormals", "drop", "one of keep, flush"),
        ("nan", "zero", "one of truth, torch, any"),
        ("accepts", ["slope"], "a list of negative_slope"),
    ],
)
def test_a_contract_that_is_none_says_what_it_wants(key: str, value: Any, wants: str) -> None:
    with pytest.raises(ValueError, match=rf"KERNELS\['leaky_relu'\]\['{key}'\]: got .*{wants}"):
        Kernel.of("leaky_relu", {"forward": torch.relu, key: value})


def test_words_list_what_differs_from_the_usual() -> None:
    assert Contract().words == ()
    assert Contract(ranks=(1, 2), contiguous=True).words == ("ranks: 1, 2", "contiguous: True")


# --- other libraries -----------------------------------------------------------------------------


def test_numpy_has_the_bfloat16_of_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    def relu(x: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return np.where(x < 0, np.zeros((), x.dtype), x)

    entry = {"forward": relu, "library": "numpy"}
    assert failed(judged(entry, "relu", "bfloat16")) == {}
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    (only,) = judged(entry, "relu", "bfloat16")
    assert only.status == "unsupported"
    assert only.words == ("NumPy has no bfloat16 without the package ml_dtypes",)


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_differentiates_a_function() -> None:
    from jax import numpy as jnp  # pyright: ignore[reportMissingImports]  # where it is installed

    def square(input: Any, target: Any) -> Any:
        return (input - target) ** 2

    entry = {"function": square, "library": "jax", "reduction": "none"}
    verdicts = judged(entry, "mse_loss")
    assert {"value", "gradient(input)", "gradient(target)"} <= {v.quantity for v in verdicts}
    assert not [name for name in failed(verdicts) if name.startswith(("value", "gradient"))]

    def relu(x: Any) -> Any:
        return jnp.where(x < 0, 0.0, x)

    verdicts = judged({"function": relu, "library": "jax", "subnormals": "flush"}, "relu")
    assert {"derivative", "second_derivative"} <= {v.quantity for v in verdicts}
    others = judged({"function": relu, "library": "jax"}, "relu", "float64")
    assert {v.words for v in others} == {("JAX has 64 bits with jax_enable_x64 alone",)}


# --- gradients that are asked for ----------------------------------------------------------------


def test_a_kernel_without_a_gradient_does_not_conform_where_one_is_asked_for() -> None:
    def detached(x: Tensor) -> Tensor:
        return torch.relu(x.detach())

    with pytest.raises(AssertionError, match="no gradient of relu to judge: its result carries no"):
        assert_kernel_conforms(detached, "relu", grad=True)
    assert_kernel_conforms(detached, "relu")
