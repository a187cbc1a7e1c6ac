"""Rows of the tables that are shown of verdicts, on a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradref.judge.evidence import NORMAL, SPECIAL, SUBNORMAL
from gradref.judge.snippet import HEX
from gradref.judge.ulp import Errors
from gradref.judge.verdict import OURS, TORCH, Finding, Verdict, order_of
from gradref.report.summary import Line, Overview
from gradref.report.text import DECIMAL, PRIMES, brief_ulp, briefly, in_primes, shown, ulp
from gradref.runs.choices import SHORT

LINE_HEADER = ("order", "dtype", "points", "ours", "used", "torch", "same", "grade", "verdict")
"""Worst errors in ulp; ``used`` is the share of the bound that ours uses up."""

VERDICT_HEADER = (
    *("quantity", "dtype", "judged", "out", "normal", "subn.", "worst", "allowed"),
    *("ours", "torch", "verdict"),
)
VERDICT_LEGEND = (
    "Errors in ulp: the kernel's largest where the truth is a normal and a subnormal number; its"
    " worst beside the one allowed there, on which the verdict rests; the largest of ours and of"
    " torch at the same inputs. Out: left out, as undecided or for a reason that is given below."
)


def share(value: float | None) -> str:
    """Return a share in percent, rounded down: 100 % means all."""
    return "-" if value is None else f"{math.floor(value * 1000) / 10:.1f} %"


def used(value: float) -> str:
    """Return the share of a bound that is used up."""
    return f"{value:.2f}" if value < 10 else ">10"


def line_cells(line: Line) -> tuple[str, ...]:
    """Return a line of the table of our verdicts."""
    return (
        f"{line.order} {line.region}".rstrip(),
        line.dtype,
        f"{line.points:,}",
        ulp(line.ours),
        used(line.used),
        ulp(line.theirs),
        share(line.agreement),
        line.grade.split()[0],
        "pass" if line.passed else "FAIL",
    )


def line_title(line: Line) -> str:
    """Return what the lines of a section have in common."""
    return f"{line.operation} on {line.device}"


OVERVIEW_HEADER = ("", "nearest in", "elsewhere", "torch's worst, in ulp")
"""The dtypes in which ours is the nearest number at every input; what it uses of the bound else."""


def overview_cells(overview: Overview) -> tuple[str, ...]:
    """Return a line of the overview of our verdicts."""
    return (
        overview.operation if overview.passed else f"{WRONG} {overview.operation}",
        "all"
        if len(overview.nearest) == len(SHORT)
        else ",".join(SHORT[dtype] for dtype in overview.nearest) or "-",
        "-" if overview.closest is None else share_of_bound(overview.closest),
        "-" if overview.theirs is None else brief_finding(overview.theirs),
    )


def share_of_bound(verdict: Verdict) -> str:
    """Return how much of its bound a verdict uses; if nearly all, the error itself."""
    if verdict.used < 0.995:
        return f"{100 * verdict.used:.0f} % {SHORT[verdict.dtype]}"
    worst = max(verdict.worst.values())
    return f"{f'{worst:.5f}' if worst < 10 else brief_ulp(worst)} {SHORT[verdict.dtype]}"


def brief_finding(finding: Finding) -> str:
    """Return what torch is off by, where, in a few characters: ``2e7 f32 f″(16.562)``."""
    values = [DECIMAL.sub(briefly, HEX.sub("", v)) for _, v in shown(finding.place)]
    is_short = finding.quantity.split(" ")[0] in ("value", "derivative", "second_derivative")
    at = f"({', '.join(values)})" if is_short and len(", ".join(values)) < 12 else ""
    quantity = in_primes(finding.quantity.removesuffix(f" [{SPECIAL}]"))
    quantity = quantity.partition(" ")[0]
    dtype = SHORT[finding.dtype]
    return f"{brief_ulp(finding.ulp)} {dtype} {PRIMES.get(quantity, quantity)}{at}"


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    """Return a line of the table of verdicts on a kernel."""

    def worst(errors: Errors | None) -> str:
        return "-" if errors is None else brief_ulp(errors.worst)

    left_out, point = verdict.undecided + verdict.excluded, verdict.point
    return (
        in_primes(verdict.quantity),
        SHORT.get(verdict.dtype, verdict.dtype),
        f"{verdict.judged:,}" if verdict.judged else "-",
        f"{left_out:,}" if left_out else "-",
        brief_ulp(verdict.worst.get(NORMAL)),
        brief_ulp(verdict.worst.get(SUBNORMAL)),
        "-" if point is None else brief_ulp(point.ulp),
        "-" if point is None else brief_ulp(point.allowed),
        worst(verdict.others.get(OURS)),
        worst(verdict.others.get(TORCH)),
        verdict.status,
    )


WRONG = "✗"
"""What a failure is marked with, where colour may be missing."""


def matrix(verdicts: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Return a table of worst errors: a row for each quantity, a column for each dtype.

    Verdicts on special inputs and conditions have a row each: how many hold, of how many.
    """
    tried = [v for v in verdicts if v.status != "unsupported"]
    dtypes = list(dict.fromkeys(v.dtype for v in tried if v.dtype in SHORT))
    rows: dict[str, dict[str, list[Verdict]]] = {}
    for verdict in tried:
        name = in_primes(verdict.quantity)
        if verdict.errors is None and order_of(verdict.quantity) is None:
            name = "conditions"
        elif SPECIAL in verdict.quantity:
            name = "at ±inf, NaN, kinks"
        rows.setdefault(name, {}).setdefault(verdict.dtype, []).append(verdict)
    last = [name for name in ("at ±inf, NaN, kinks", "conditions") if name in rows]
    order = [*(name for name in rows if name not in last), *last]
    body = [[n, *(_cell(rows[n].get(d, []), n in last) for d in dtypes)] for n in order]
    known = {v.dtype: v.bound.replace("(n+6) u scale", "...") for v in verdicts if v.bound}
    bounds = [known.get(dtype, "-") for dtype in dtypes]
    return ["", *(SHORT[d] for d in dtypes)], [*body, ["allowed", *bounds]]


def _cell(verdicts: Sequence[Verdict], is_count: bool) -> str:
    mark = "" if all(v.passed for v in verdicts) else f" {WRONG}"
    if is_count:
        return f"{sum(v.passed for v in verdicts)} of {len(verdicts)}{mark}" if verdicts else "-"
    failed = [v.point.ulp for v in verdicts if v.point is not None and not v.passed]
    plain = [v.errors.worst for v in verdicts if v.errors is not None]  # where the bound is narrow
    worst = max(failed or plain, default=None)
    return f"{brief_ulp(worst)}{mark}".replace("- ", "")
