"""The judge of ``gradref verify``, a test for every quantity: sigmoid-derivative-float32-cpu."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from conftest import devices, dtypes
from gradref.contenders.ours import Ours
from gradref.declare.operation import Operation
from gradref.declare.registry import batch_losses, operations
from gradref.judge.batches import BatchExam
from gradref.judge.evidence import SPECIAL
from gradref.judge.questions import draw_sample, quantities
from gradref.judge.verdict import DTYPES, Case, Verdict, order_of
from gradref.report.text import failure
from gradref.runs.verify import verify


def names(record: Operation, case: Case) -> list[str]:
    """The quantities that are declared, each of which has to be judged."""
    is_batch = record.kind == "batch"
    (sample,) = BatchExam(case, 1, 0).samples if is_batch else [draw_sample(record, case, 1, 1, 0)]
    return [q.name for q in quantities(record, sample) if Ours().ways(record, q)]


def parameters(config: pytest.Config) -> Iterator[object]:
    for dtype in dtypes(config):
        for device in devices(config):
            for record in (*operations(), *batch_losses()):
                for given in record.cases:
                    case = Case(record.name, dict(given), dtype, device)
                    host = Case(record.name, dict(given), dtype, "cpu")
                    for name in names(record, host):
                        label = f"{case.label}-{name}-{dtype}-{device}"
                        group = pytest.mark.xdist_group(f"{case.label}-{device}")
                        yield pytest.param(case, name, id=label, marks=group)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("case", "name"), list(parameters(metafunc.config)))


@functools.lru_cache(maxsize=8)
def verdicts(label: str, dtype: str, device: str, seed: int) -> dict[str, list[Verdict]]:
    """All verdicts of a case; its quantities are tested one after the other in one process."""
    record = operations(label.split("(")[0])[0]
    cases = (Case(record.name, dict(given), dtype, device) for given in record.cases)
    (case,) = (case for case in cases if case.label == label)
    found: dict[str, list[Verdict]] = {}
    for verdict in verify(case, "quick", seed, DTYPES):
        found.setdefault(verdict.quantity.removesuffix(f" [{SPECIAL}]"), []).append(verdict)
    return found


def test_verdict(
    case: Case, name: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    for verdict in verdicts(case.label, case.dtype, case.device, seed)[name]:
        assert verdict.errors is not None
        if verdict.quantity == name and "from_output" not in name:
            order = "f" + "'" * (order_of(name) or 0)
            worst = (verdict.operation, order, verdict.dtype, verdict.errors.worst)
            record_property("verdict", worst)
        assert verdict.passed, f"{failure(verdict)} (seed {seed})"
        assert verdict.points > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_was_judged(request: pytest.FixtureRequest) -> None:
    """Where there is a device, the verdicts above were also asked of it."""
    assert "cuda" in (request.config.getoption("--device") or ("cuda",))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_sixteen_bit_input_is_proved(name: str, seed: int) -> None:
    found = list(verify(Case("sigmoid", {}, name, "cpu"), "quick", seed, orders=(0, 1, 2)))
    ordinary = [v for v in found if SPECIAL not in v.quantity]
    special = [v for v in found if SPECIAL in v.quantity]
    assert len(ordinary) == len(special) == 6
    for a, b in zip(ordinary, special, strict=True):
        assert a.quantity == b.quantity.removesuffix(f" [{SPECIAL}]")
        assert a.undecided == b.undecided == 0
        assert a.grade == "proved"
        if a.quantity != "derivative_from_output":  # where little is left of the output
            assert a.points + b.points == 2**16
            assert a.errors is not None
            assert a.errors.correctly_rounded == 1.0


def test_enough_points(seed: int) -> None:
    """float64, of which no input is certified, also at the inputs of the others."""
    for dtype, least in (("float32", 20_000), ("float64", 180_000)):
        found = list(verify(Case("relu", {}, dtype, "cpu"), "quick", seed, DTYPES))
        assert all(v.points >= least for v in found if SPECIAL not in v.quantity)
    for operation in ("softmax", "kl_div", "mse_loss"):
        found = list(verify(Case(operation, {}, "float32", "cpu"), "quick", seed, DTYPES))
        assert found[0].points >= 2000


@pytest.mark.parametrize(
    ("operation", "given", "drawn"),
    [
        ("pairwise_distance", {"p": 1.0, "eps": 0.25}, 2),
        ("triplet_margin_loss", {"p": 3.0}, 2),
        ("cosine_similarity", {}, 1),
        ("cosine_embedding_loss", {}, 4),
        ("rms_norm", {}, 1),
    ],
)
def test_numbers_at_corners_and_right_angles(
    operation: str, given: dict[str, Any], drawn: int
) -> None:
    """Seeds that draw an element of 0, a margin that is just reached, and small mixed Hessians."""
    found = list(verify(Case(operation, given, "float64", "cpu"), "quick", drawn, DTYPES))
    assert [failure(verdict) for verdict in found if not verdict.passed] == []


def test_what_a_judge_can_see_all_see(seed: int) -> None:
    """Reduced second derivatives, gradients of every argument, forms from the output."""
    mse = [v.quantity for v in verify(Case("mse_loss", {}, "float32", "cpu"), "smoke", seed)]
    for name in (
        "gradient(target) [mean]",
        "hvp(input, target) [sum]",
        "hessian_diagonal(target) [mean]",
    ):
        assert name in mse
    sigmoid = [v.quantity for v in verify(Case("sigmoid", {}, "float32", "cpu"), "smoke", seed)]
    assert {"derivative_from_output", "vjp", "jvp"} <= set(sigmoid)
    softmax = [v.quantity for v in verify(Case("softmax", {}, "float32", "cpu"), "smoke", seed)]
    assert "jacobian_diagonal" in softmax
