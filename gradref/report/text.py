"""Numbers and lines as a person reads them, the same in the terminal and in Markdown."""

from __future__ import annotations

import math

from gradref.measure.verdict import Finding
from gradref.report.summary import Line

HEADER = ("order", "dtype", "points", "ours", "used", "torch", "same", "grade", "verdict")
"""Worst errors in ulp; ``used`` is the share of the bound that ours uses up."""


def ulp(value: float | None) -> str:
    """An error in ulp: exact where it is small, its magnitude where it is large."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf"
    return (
        f"{value:.4f}"
        if value < 10
        else f"{value:.2f}"
        if value < 1000
        else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    )


def share(value: float | None) -> str:
    """A share in percent, rounded down: 100 % means all."""
    return "-" if value is None else f"{math.floor(value * 1000) / 10:.1f} %"


def cells(line: Line) -> tuple[str, ...]:
    """A line of the table of verdicts."""
    return (
        f"{line.order} {line.region}".rstrip(),
        line.dtype,
        f"{line.points:,}",
        ulp(line.ours),
        f"{line.used:.2f}" if line.used < 10 else ">10",
        ulp(line.theirs),
        share(line.agreement),
        line.grade.split()[0],
        "pass" if line.passed else "FAIL",
    )


def title(line: Line) -> str:
    """What the lines of a section have in common."""
    return f"{line.operation} on {line.device}"


def sentence(finding: Finding) -> str:
    """A finding in one line: what torch says, what is true, and at which input."""
    at = ", ".join(f"{name} = {_shortened(value)}" for name, value in finding.at.items())
    return (
        f"torch gives {finding.torch:.6g} where the truth is {finding.truth:.6g}"
        f" ({ulp(finding.ulp)} ulp) at {at}"
    )


def _shortened(value: str) -> str:
    return value if len(value) <= 160 else value[:157] + "..."
