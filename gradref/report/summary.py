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
HALF = 0.5 + 2.0**-17
"""The error in ulp that the nearest number of a format has at most, as far as float64 can tell."""

OUTPUT = "_from_output"
"""How the quantities end that are computed from a rounded output, and are as far off as that is."""

FROM_OUTPUT = "from output"
"""The region of a line of them."""


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
        return FROM_OUTPUT
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
    """One operation: where ours is nearest to the truth, what it uses elsewhere, torch's worst.

    ``nearest`` has the dtypes in which every result is, ``closest`` the verdict of others that uses
    most of its bound.
    """

    operation: str
    nearest: tuple[str, ...]
    closest: Verdict | None
    theirs: Finding | None
    passed: bool

    @property
    def used(self) -> float:
        """The largest share of a bound, where ours is not the nearest number."""
        return 0.0 if self.closest is None else self.closest.used


def overviews(verdicts: Iterable[Verdict]) -> list[Overview]:
    """Return a line for each operation; those that failed first.

    Forms from the output are left out: they are as far off as the output is rounded.
    """
    by_operation: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_operation.setdefault(verdict.operation, []).append(verdict)
    found = [_overview(operation, group) for operation, group in by_operation.items()]
    return sorted(found, key=lambda overview: (overview.passed, overview.operation))


def _overview(operation: str, group: Sequence[Verdict]) -> Overview:
    plain = [v for v in group if OUTPUT not in v.quantity]
    further = [v for v in plain if max(v.worst.values(), default=0.0) > HALF]
    beyond = {v.dtype for v in further}
    findings = [finding for verdict in plain for finding in verdict.findings]
    return Overview(
        operation,
        nearest=tuple(d for d in DTYPES if d in {v.dtype for v in plain} - beyond),
        closest=max(further, key=lambda v: v.used, default=None),
        theirs=max(findings, key=lambda f: (f.region != SPECIAL, *severity(f)), default=None),
        passed=all(v.passed for v in group),
    )


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
