"""Gates: which kinds of failure count, and what is let pass since torch is no better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.judge.kinds import kinds, no_worse, out_of_range
from gradref.judge.verdict import Case, Verdict
from gradref.runs.check import check, range_of
from gradref.runs.choices import GateName
from gradref.runs.options import Options


def silu(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.sigmoid(wide)).to(x.dtype)


def silu_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    wide = x.float()
    s = torch.sigmoid(wide)
    return (grad_output.float() * s * (1 + wide * (1 - s))).to(x.dtype)


TEXTBOOK = {"forward": silu, "backward": silu_backward}
EXACT = {"forward": lambda x: torch.nn.functional.gelu(x.double()).to(x.dtype)}


def judged(
    operation: str, entry: dict[str, Any], dtype: str, gate: GateName = "standard"
) -> list[Verdict]:
    kernel = Kernel.of(operation, entry)
    case = Case(operation, {}, dtype, "cpu")
    return list(check(kernel, case, InProcess([kernel]), Options("quick", gate=gate)))


def failed(verdicts: list[Verdict]) -> dict[str, str | None]:
    return {v.quantity: v.kind for v in verdicts if not v.passed}


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_textbook_kernel_passes_the_standard_gate_with_warnings(half: str) -> None:
    verdicts = judged("silu", TEXTBOOK, half)
    assert failed(verdicts) == {}
    let_pass = {part.kind for verdict in verdicts for part in verdict.tolerated}
    assert "special" in let_pass, "NaN at -inf, as torch's"
    assert "wrong" not in let_pass


def test_the_strict_gate_fails_it_by_kind() -> None:
    strict = failed(judged("silu", TEXTBOOK, "bfloat16", "strict"))
    assert strict["value"] == "range", "0 for results near 1e-37"
    assert strict["value [special]"] == "special"


def test_a_wrong_number_at_an_ordinary_input_is_let_pass_by_the_gate_of_torch_alone() -> None:
    entry = {"forward": torch.nn.functional.gelu}  # 1 + erf
    assert failed(judged("gelu", entry, "float32")) == {"value": "wrong"}
    assert failed(judged("gelu", entry, "float32", "torch")) == {}


@pytest.mark.parametrize("gate", ["standard", "torch"])
def test_what_is_worse_than_torch_beyond_the_range_fails(gate: GateName) -> None:
    def softplus(x: Tensor) -> Tensor:
        return torch.log1p(torch.exp(x))

    assert failed(judged("softplus", {"forward": softplus}, "float32", gate))["value"] == "range"


def test_a_range_leaves_out_what_is_beyond_it() -> None:
    def softplus(x: Tensor) -> Tensor:
        return torch.log1p(torch.exp(x.double())).to(x.dtype)

    everything = judged("softplus", {"forward": softplus}, "float32")
    assert failed(everything)["value"] == "range"
    within = judged("softplus", {"forward": softplus, "range": [-80, 80]}, "float32")
    assert failed(within) == {}
    (value, *others) = within
    assert value.judged < next(v for v in everything if v.quantity == "value").judged
    assert "value [special]" not in {v.quantity for v in others}
    assert value.declared == ("range: -80, 80",)


def test_rows_are_drawn_within_a_range() -> None:
    def unshifted(x: Tensor, dim: int) -> Tensor:
        return x.double().exp().div(x.double().exp().sum(dim, keepdim=True)).to(x.dtype)

    assert failed(judged("softmax", {"forward": unshifted}, "float32"))
    assert failed(judged("softmax", {"forward": unshifted, "range": [-30, 30]}, "float32")) == {}


@pytest.mark.parametrize("text", ["5", "5:1", "a:b", "1:1", "nan:2"])
def test_what_is_no_range_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="range: got .* wants LOW:HIGH"):
        range_of(text)
    assert range_of("-1:") == (-1.0, float("inf"))


@pytest.mark.parametrize("value", [[1, 0], 3, "ab", [0], ["a", "b"]])
def test_what_is_declared_as_a_range_is_checked(value: object) -> None:
    with pytest.raises(ValueError, match="two numbers, the lower one first"):
        Kernel.of("relu", {"forward": torch.relu, "range": value})


def test_a_failure_is_of_one_kind() -> None:
    x = np.array([1.0, 1.0, 1e39, np.inf])
    truth = np.array([1.0, 1e-39, 1.0, 1.0])
    outside = out_of_range(x, truth, torch.float32)
    assert outside.tolist()[:3] == [False, True, True]
    everywhere = np.ones(4, dtype=bool)
    found = kinds(everywhere, everywhere, np.isinf(x), outside)
    assert sum(mask.astype(int) for mask in found.values()).tolist() == [1, 1, 1, 1]
    assert found["wrong"].tolist() == [True, False, False, False]
    assert found["special"].tolist() == [False, False, False, True]


def test_torch_errors_count_next_to_where_they_are() -> None:
    x = np.arange(100.0)
    theirs, mine = np.where(x == 50, 8.0, 0.0), np.full(100, 8.0)
    special = x == 40
    passed = no_worse(mine, theirs, x, special)
    assert passed[50]
    assert passed[45]
    assert not passed[10]
    assert not passed[40], "an infinity has no neighbours"
