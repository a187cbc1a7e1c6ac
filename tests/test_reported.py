"""What a check says: the point it rests on, a paragraph for each cause, JSON for others."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.judge.verdict import Case, Verdict
from gradref.report import files, terminal
from gradref.report.tables import VERDICT_HEADER, verdict_cells
from gradref.report.text import by_cause, sentences
from gradref.runs import check as checks
from gradref.runs.check import check
from gradref.runs.options import Options
from gradref.runs.run import Run, read


def judged(
    entry: Any, operation: str, *dtypes: str, mode: Any = "link", conditions: Any = None
) -> list[Verdict]:
    kernel = Kernel.of(operation, entry)
    options = Options(mode, conditions=conditions)
    cases = (Case(operation, {}, dtype, "cpu") for dtype in dtypes)
    return [v for case in cases for v in check(kernel, case, InProcess([kernel]), options)]


def words(verdicts: list[Verdict], quantity: str) -> str:
    return "; ".join(w for v in verdicts if v.quantity == quantity for w in v.words)


def overflowing_softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def mean_over_zero(input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return torch.nn.functional.cross_entropy(input.double(), target, weight).to(input.dtype)


# --- what a verdict rests on ---------------------------------------------------------------------


def test_a_row_of_the_table_shows_what_the_verdict_rests_on() -> None:
    def off_at_one(x: Tensor) -> Tensor:
        y = torch.sigmoid(x.double())
        return torch.where(x == 1, y * (1 + 2.0**-10), y).to(x.dtype)

    (value, special) = judged({"forward": off_at_one}, "sigmoid", "float32")
    cells = dict(zip(VERDICT_HEADER, verdict_cells(value), strict=True))
    assert value.point is not None
    assert value.point.place.at == {"x": "1 (0x1.0000000000000p+0)"}
    assert cells["verdict"] == "fail"
    assert float(cells["worst"]) > float(cells["allowed"]) == 4.0
    assert cells["normal"] == cells["worst"]
    assert float(cells["subn."]) <= 0.5
    assert cells["out"] == "-"
    assert value.judged == value.points
    assert special.passed


def test_what_is_left_out_is_counted() -> None:
    entry = {"function": torch.relu, "nan": "torch"}
    found = {v.quantity: v for v in judged(entry, "relu", "bfloat16")}
    special = found["derivative [special]"]
    cells = dict(zip(VERDICT_HEADER, verdict_cells(special), strict=True))
    assert special.excluded == int(cells["out"]) > 0
    assert special.judged > 0
    (note,) = special.notes
    assert note == f"at NaN, what torch gives, as declared: {special.excluded}"


def test_a_place_is_an_element_of_what_a_call_returns() -> None:
    def off(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return torch.nn.functional.mse_loss(input, target, reduction=reduction) * 1.5

    for verdict in judged({"function": off}, "mse_loss", "float32"):
        assert verdict.point is not None
        place = verdict.point.place
        arrays = {name: without_hex(values) for name, values in place.at.items()}
        (reduction,) = re.findall(r"\[(.*)\]", verdict.quantity) or ["none"]
        leaf = arrays["input"].requires_grad_()
        result = off(leaf, arrays["target"], reduction)
        if verdict.quantity.startswith("gradient(input)"):
            result.backward(arrays["grad_output"].reshape(result.shape))
            assert leaf.grad is not None
            result = leaf.grad
        elif not verdict.quantity.startswith("value"):
            continue
        assert result.reshape(place.shape)[place.index].item() == pytest.approx(verdict.point.got)


def without_hex(values: str) -> Tensor:
    return torch.tensor(json.loads(re.sub(r" \([^)]*\)", "", values)))


# --- in a few words ------------------------------------------------------------------------------


def test_one_cause_is_one_paragraph() -> None:
    verdicts = judged({"function": overflowing_softplus}, "softplus", "float32", "bfloat16")
    failed = [v for v in verdicts if not v.passed]
    groups = by_cause(failed)
    assert sum(map(len, groups)) == len(failed)
    together = next(group for group in groups if "exp overflows" in group[0].words[0])
    first, second = sentences(*together)
    assert first.startswith("f f32, bf16: infinity for x >= 88.")
    assert second.startswith("f f32: got inf, truth ")


def test_the_command_shows_as_much_as_is_wanted() -> None:
    verdicts = judged({"function": overflowing_softplus}, "softplus", "float32")
    run = Run("mine", {"mode": "link", "seed": 0}, verdicts=verdicts, finished=True)

    def shown(how: terminal.How) -> str:
        console = Console(width=100, record=True, file=io.StringIO())
        terminal.show_kernels(console, run, how)
        return console.export_text()

    assert "quantity" in shown("in whole")
    brief = shown("in brief")
    assert len(brief.splitlines()) <= 25
    assert "exp overflows" in brief
    assert "4e43 ✗" in brief
    summary = shown("summary")
    assert "quantity" not in summary
    assert [line.split()[:3] for line in summary.splitlines() if "softplus" in line] == [
        ["softplus", str(len(verdicts)), str(len(run.failures))]
    ]
    failures = shown("failures")
    assert "exp overflows" in failures
    assert " pass " not in failures


@pytest.mark.parametrize(
    ("operation", "function", "words"),
    [
        ("silu", lambda x: x.nosuch(), "raises AttributeError"),
        ("cross_entropy", torch.nn.functional.cross_entropy, "unsupported"),
    ],
)
def test_a_screen_shows_what_has_no_result(operation: str, function: Any, words: str) -> None:
    kernel = Kernel.of(operation, {"function": function})
    found = [
        verdict
        for _, case in checks.cases([kernel], ["float32"], "cpu")
        for verdict in check(kernel, case, InProcess([kernel]), Options("link"))
    ]
    run = Run("mine", {"mode": "link", "seed": 0}, verdicts=found, finished=True)
    console = Console(width=100, record=True, file=io.StringIO())
    terminal.show_kernels(console, run, "in brief")
    assert words in console.export_text()


# --- files ---------------------------------------------------------------------------------------


def test_json_is_valid_and_comes_back(tmp_path: Path) -> None:
    entry = {"function": overflowing_softplus, "subnormals": "flush"}
    verdicts = judged(entry, "softplus", "float32", mode="quick")
    run = Run("mine", {"mode": "quick", "seed": 0}, verdicts=verdicts, finished=True)
    path = tmp_path / "run.json"
    files.write_json(run, path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert [v["name"] for v in content["verdicts"]] == [v.name for v in verdicts]
    vjp = next(v for v in content["verdicts"] if v["quantity"] == "vjp")
    assert set(vjp["point"]["place"]["at"]) == {"x", "grad_output"}
    assert vjp["point"]["got"] == "nan" or np.isfinite(vjp["point"]["got"])
    assert {"right tail", "normal truth"} <= set(vjp["worst"])
    assert vjp["judged"] > 0
    again = read(path).verdicts
    assert [repr(v) for v in again] == [repr(v) for v in verdicts]


# --- words ---------------------------------------------------------------------------------------


def test_a_float64_kernel_that_computes_in_float32_is_told_so() -> None:
    def narrow(x: Tensor) -> Tensor:
        return torch.tanh(x.float()).to(x.dtype)

    assert "computed in float32" in words(judged({"forward": narrow}, "tanh", "float64"), "value")


def test_a_vector_body_that_differs_is_told_so() -> None:
    def with_a_vector_body(x: Tensor) -> Tensor:
        y = torch.sigmoid(x.double())
        flat = y.reshape(-1).clone()
        body = x.numel() // 32 * 32
        flat[:body] *= 1.001
        return flat.reshape(x.shape).to(x.dtype)

    found = judged(
        {"forward": with_a_vector_body}, "sigmoid", "float32", mode="quick", conditions=["lengths"]
    )
    assert "differs from the call alone for N >= 33 (vector body)" in words(found, "lengths")
