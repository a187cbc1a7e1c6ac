"""Many verdicts in a few lines: by operation, and by order and dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradref.judge.evidence import SPECIAL
from gradref.judge.ulp import Errors
from gradref.judge.verdict import (
    DTYPES,
    TORCH,
    Finding,
    Verdict,
    order_of,
    ordinariness,
    relative_error,
)

ORDERS = ("f", "f'", "f''")
OUTPUT = "_from_output"
"""How the quantities end that are computed from a rounded output, and are as far off as that is."""


@dataclass(frozen=True)
class Line:
    """The verdicts of one operation, order, dtype and device; special inputs by themselves."""

    operation: str
    order: str
    dtype: str
    device: str
    region: str
    points: int
    ours: float
    theirs: float | None
    agreement: float | None
    grade: str
    used: float
    passed: bool


def lines(verdicts: Iterable[Verdict]) -> list[Line]:
    """Return the worst of all cases and quantities of the same order in one line."""
    groups: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        key = (verdict.operation, _order(verdict), verdict.dtype, verdict.device, _region(verdict))
        groups.setdefault(key, []).append(verdict)
    return sorted((_line(key, group) for key, group in groups.items()), key=_position)


def _order(verdict: Verdict) -> str:
    return ORDERS[order_of(verdict.quantity) or 0]


def _region(verdict: Verdict) -> str:
    if OUTPUT in verdict.quantity:
        return "from output"
    return SPECIAL if SPECIAL in verdict.quantity else ""


def _line(key: tuple[str, ...], group: Sequence[Verdict]) -> Line:
    operation, order, dtype, device, region = key
    shares = [verdict.agreement for verdict in group if verdict.agreement is not None]
    return Line(
        operation,
        order,
        dtype,
        device,
        region,
        points=sum(verdict.points for verdict in group),
        ours=worst(verdict.errors for verdict in group) or 0.0,
        theirs=worst(verdict.others.get(TORCH) for verdict in group),
        agreement=float(np.mean(shares)) if shares else None,
        grade=group[0].grade,
        used=max(verdict.used for verdict in group),
        passed=all(verdict.passed for verdict in group),
    )


def worst(errors: Iterable[Errors | None]) -> float | None:
    """Return the largest of some errors, None where there are none."""
    return max((e.worst for e in errors if e is not None), default=None)


def _position(line: Line) -> tuple[str, str, str, int, str]:
    return line.operation, line.device, line.order, DTYPES.index(line.dtype), line.region


@dataclass(frozen=True)
class Overview:
    """One operation: the worst errors of ours and of torch's for f, f′, f″ over all dtypes."""

    operation: str
    ours: tuple[float | None, ...]
    theirs: tuple[float | None, ...]
    passed: bool


def overviews(verdicts: Iterable[Verdict]) -> list[Overview]:
    """Return a line for each operation; those that failed first.

    Of ordinary inputs: infinities, NaN and kinks are right or wrong, and forms from the output are
    as far off as the output is rounded.
    """
    by_operation: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_operation.setdefault(verdict.operation, []).append(verdict)
    found = []
    for operation, group in by_operation.items():
        plain = [[v for v in group if _order(v) == o and not _region(v)] for o in ORDERS]
        found.append(
            Overview(
                operation,
                tuple(worst(v.errors for v in part) for part in plain),
                tuple(worst(v.others.get(TORCH) for v in part) for part in plain),
                all(v.passed for v in group),
            )
        )
    return sorted(found, key=lambda overview: overview.passed)


def main_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return for every operation, order and kind of input the finding in which most is lost."""
    most: dict[tuple[str, int | None, bool], Finding] = {}
    for finding in findings:
        key = (finding.operation, order_of(finding.quantity), finding.region == SPECIAL)
        if key not in most or severity(finding) > severity(most[key]):
            most[key] = finding
    return list(most.values())


def severity(finding: Finding) -> tuple[float, float]:
    """Return how much of the number is lost, and how ordinary its size is."""
    lost = float(relative_error(finding.ulp, getattr(torch, finding.dtype)))
    return lost, float(ordinariness(finding.truth))
