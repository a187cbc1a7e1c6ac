"""A run as a whole: what was judged, on what, and the short form of its verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradref.environment import environment
from gradref.measure.judge import DTYPES, Outcome, order_of
from gradref.measure.ulp import Errors
from gradref.measure.verdict import Finding, Row, ordinary, relative_error

ORDERS = ("f", "f'", "f''")


@dataclass
class Run:
    """Outcomes with what is needed to read and to repeat them."""

    mode: str
    seed: int
    skipped: dict[str, str]
    orders: tuple[int, ...] = (0, 1, 2)
    outcomes: list[Outcome] = field(default_factory=list)
    finished: bool = False

    @property
    def rows(self) -> list[Row]:
        """The verdicts of the chosen orders, by operation."""
        rows = [row for outcome in self.outcomes for row in outcome.rows]
        return sorted(
            (row for row in rows if order_of(row.quantity) in self.orders),
            key=lambda row: (row.operation, row.label, order_of(row.quantity), row.quantity),
        )

    @property
    def failures(self) -> list[Row]:
        """The verdicts that are against us."""
        return [row for row in self.rows if not row.passed]

    @property
    def errors(self) -> list[Outcome]:
        """The cases that could not run."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def findings(self) -> list[Finding]:
        """Where torch is wrong."""
        return [finding for row in self.rows for finding in row.findings]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 could not run."""
        if self.failures:
            return 1
        return 3 if self.errors or not self.finished or not self.rows else 0

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "environment": environment(),
            "mode": self.mode,
            "seed": self.seed,
            "finished": self.finished,
            "exit_code": self.exit_code,
            "skipped": self.skipped,
            "errors": [{"case": o.case.label, "error": o.error} for o in self.errors],
            "rows": [asdict(row) for row in self.rows],
        }


def read(path: Path) -> list[Row]:
    """The rows in a file of verdicts."""
    return [_row(row) for row in json.loads(path.read_text())["rows"]]


def _row(content: dict[str, Any]) -> Row:
    theirs = content["theirs"]
    return Row(
        **{
            **content,
            "ours": Errors.of_json(content["ours"]),
            "theirs": None if theirs is None else Errors.of_json(theirs),
            "regions": {name: Errors.of_json(part) for name, part in content["regions"].items()},
            "findings": tuple(Finding(**finding) for finding in content["findings"]),
        }
    )


@dataclass(frozen=True)
class Line:
    """A line of the table: all rows of one operation, order, dtype, device and region."""

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


def lines(rows: Iterable[Row]) -> list[Line]:
    """The rows, with the worst of all cases and quantities of the same order in one line."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        order = ORDERS[order_of(row.quantity)]
        key = (row.operation, order, row.dtype, row.device, row.region)
        groups.setdefault(key, []).append(row)
    result = []
    for (operation, order, dtype, device, region), group in groups.items():
        theirs = [row.theirs.worst for row in group if row.theirs is not None]
        shares = [row.agreement for row in group if row.agreement is not None]
        result.append(
            Line(
                operation,
                order,
                dtype,
                device,
                region,
                points=sum(row.ours.count for row in group),
                ours=max(row.ours.worst for row in group),
                theirs=max(theirs, default=None),
                agreement=float(np.mean(shares)) if shares else None,
                grade=group[0].grade,
                used=max(row.used for row in group),
                passed=all(row.passed for row in group),
            )
        )
    return sorted(result, key=_position)


def _position(line: Line) -> tuple[str, str, str, int, str]:
    return line.operation, line.device, line.order, DTYPES.index(line.dtype), line.region


def main_findings(findings: Iterable[Finding]) -> list[Finding]:
    """For every operation, order and kind of input the finding in which most is lost."""
    worst: dict[tuple[str, int, bool], Finding] = {}
    for finding in findings:
        key = (finding.operation, order_of(finding.quantity), finding.region == "special")
        if key not in worst or severity(finding) > severity(worst[key]):
            worst[key] = finding
    return list(worst.values())


def severity(finding: Finding) -> tuple[float, float]:
    """How much of the number is lost, and how ordinary its size is."""
    lost = float(relative_error(finding.ulp, getattr(torch, finding.dtype)))
    return lost, float(ordinary(finding.truth))
