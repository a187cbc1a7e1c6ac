"""The judge of ``gradref verify``, a test for every quantity: sigmoid-derivative-float32-cpu."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch

from conftest import devices, dtypes
from gradref.declare.operation import Operation, operations
from gradref.measure.elementwise import ORDERS
from gradref.measure.judge import judge, order_of
from gradref.measure.rows import draw_sample, quantities
from gradref.measure.verdict import Case, Row


def names(record: Operation, case: Case) -> list[str]:
    if record.kind == "elementwise":
        return list(ORDERS)
    return [q.name for q in quantities(record, draw_sample(record, case, 1, 1, 0))]


def parameters(config: pytest.Config) -> Iterator[object]:
    for dtype in dtypes(config):
        for device in devices(config):
            for record in operations():
                for given in record.cases:
                    case = Case(record.name, dict(given), dtype, device)
                    host = Case(record.name, dict(given), dtype, "cpu")
                    for name in names(record, host):
                        label = f"{case.label}-{name}-{dtype}-{device}"
                        group = pytest.mark.xdist_group(f"{case.label}-{dtype}-{device}")
                        yield pytest.param(case, name, id=label, marks=group)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("case", "name"), list(parameters(metafunc.config)))


@functools.lru_cache(maxsize=4)
def verdicts(label: str, dtype: str, device: str, seed: int) -> dict[str, list[Row]]:
    """All rows of a case; its quantities are tested one after the other in one process."""
    record = operations(label.split("(")[0])[0]
    cases = (Case(record.name, dict(given), dtype, device) for given in record.cases)
    (case,) = (case for case in cases if case.label == label)
    found: dict[str, list[Row]] = {}
    for row in judge(case, "quick", seed):
        found.setdefault(row.quantity, []).append(row)
    return found


def test_verdict(
    case: Case, name: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    rows = verdicts(case.label, case.dtype, case.device, seed)[name]
    for row in rows:
        if not row.region:
            order = "f" + "'" * order_of(name)
            record_property("verdict", (row.operation, order, row.dtype, row.ours.worst))
        assert row.passed, f"{row.failure} (seed {seed})"
        assert row.ours.count > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_was_judged(request: pytest.FixtureRequest) -> None:
    """Where there is a device, the verdicts above were also asked of it."""
    assert "cuda" in (request.config.getoption("--device") or ("cuda",))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_sixteen_bit_input_is_proved(name: str, seed: int) -> None:
    rows = judge(Case("sigmoid", {}, name, "cpu"), "quick", seed)
    assert [row.ours.count for row in rows] == [2**16] * 3
    assert {row.grade for row in rows} == {"proved"}
    assert all(row.undecided == 0 and row.ours.correctly_rounded == 1.0 for row in rows)


def test_enough_points(seed: int) -> None:
    for dtype, least in (("float32", 1_000_000), ("float64", 100_000)):
        rows = judge(Case("relu", {}, dtype, "cpu"), "quick", seed)
        assert all(row.ours.count >= least for row in rows)
    for operation in ("softmax", "kl_div", "mse_loss"):
        rows = judge(Case(operation, {}, "float32", "cpu"), "quick", seed)
        assert rows[0].ours.count >= 2000
