"""Every failure and every finding is Python to run, and gives what it says."""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import redirect_stdout

import pytest
from torch.nn import functional as F

from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.declare.registry import operations
from gradref.judge.snippet import of_finding, of_verdict
from gradref.judge.verdict import Case, Finding, Verdict
from gradref.runs.check import check
from gradref.runs.options import Options
from gradref.runs.verify import jobs, verify_all


def printed(snippet: str) -> list[float]:
    """The numbers that a snippet prints."""
    shown = io.StringIO()
    with redirect_stdout(shown), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(snippet, {})
    return [float(number) for number in shown.getvalue().split()]


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


NAMES = ("gelu", "softplus", "softmax", "prelu", "cross_entropy", "huber_loss", "kl_divergence")


@pytest.fixture(scope="module")
def findings() -> dict[tuple[str, str, bool], Finding]:
    """The worst finding of every quantity of some operations, special inputs apart."""
    selected = jobs(operations(*NAMES), ["float32", "bfloat16"], ["cpu"], "smoke", 0, (0, 1, 2))
    found: dict[tuple[str, str, bool], Finding] = {}
    for outcome in verify_all(selected):
        for verdict in outcome.verdicts:
            for finding in verdict.findings:
                role = re.split(r"[( ]", finding.quantity)[0]
                found.setdefault((finding.operation, role, "[" in finding.quantity), finding)
    return found


def test_findings_about_torch_reproduce(findings: dict[tuple[str, str, bool], Finding]) -> None:
    assert {operation for operation, _, _ in findings} > {"gelu", "softmax", "cross_entropy"}
    for finding in findings.values():
        snippet = of_finding(finding)
        ours, theirs = printed(snippet)
        assert same(ours, finding.ours), snippet
        assert same(theirs, finding.torch), snippet


@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("softplus", lambda x, beta=1.0, threshold=20.0: (x.exp() + 1).log()),
        ("softmax", lambda x, dim=-1: x.exp() / x.exp().sum(dim, keepdim=True)),
        ("glu", lambda x, dim=-1: F.glu(x, dim=dim) * 1.5),
        (
            "cross_entropy",
            lambda input, target, reduction="mean": (
                F.cross_entropy(input, target, reduction=reduction) * 1.5
            ),
        ),
        (
            "mse_loss",
            lambda input, target, reduction="mean": (
                F.mse_loss(input, target, reduction=reduction) * 1.5
            ),
        ),
    ],
)
def test_failures_of_a_kernel_reproduce(operation: str, function: object) -> None:
    kernel = Kernel.of(operation, {"function": function})
    case = Case(operation, {}, "float32", "cpu")
    failed = [
        verdict
        for verdict in check(kernel, case, InProcess([kernel]), Options("link"))
        if not verdict.passed and verdict.point is not None
    ]
    assert len(failed) >= 2
    for verdict in failed:
        agrees_with_the_truth(verdict)


def agrees_with_the_truth(verdict: Verdict) -> None:
    """Test that ours, on the input that is shown, is the truth that is shown."""
    assert verdict.point is not None
    snippet = of_verdict(verdict)
    ours, _ = printed(snippet)
    assert f"the kernel gave {verdict.point.got:.9g}, truth {verdict.point.truth:.9g}" in snippet
    truth = verdict.point.truth
    assert same(ours, truth) or abs(ours - truth) <= 2.0**-23 * abs(truth) + 2.0**-149, snippet
