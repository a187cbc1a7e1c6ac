"""Numbers, lines and sentences as a person reads them, the same wherever they are shown."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from gradref.judge.evidence import SPECIAL
from gradref.judge.gates import Kind
from gradref.judge.snippet import HEX
from gradref.judge.verdict import TORCH, Finding, Place, Tolerated, Verdict
from gradref.report.summary import ORDERS, severity
from gradref.runs.choices import SHORT

DECIMAL = re.compile(r"-?\d+\.\d+(?:e[+-]\d+)?")

PRIMES = {"f": "f", "f'": "f′", "f''": "f″"}

RANGE = re.compile(r"(?:(?:for|at|in) x (?:in \[[^]]*\]|[<>]?= \S+)(?:,? and )?)+|[0-9]\S*")
"""The inputs and the numbers in a sentence, in which two of one cause may differ."""


def ulp(value: float | None) -> str:
    """Return an error in ulp: exact where it is small, its magnitude where it is large."""
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


def brief_ulp(value: float | None) -> str:
    """Return an error in ulp in at most six characters."""
    if value is None or value < 100 or math.isinf(value):
        return ulp(value)[: 4 if value is not None and value < 100 else 6]
    if value < 10_000:
        return f"{value:.0f}"
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def briefly(number: re.Match[str]) -> str:
    """Return a number with five digits."""
    return f"{float(number[0]):.5g}"


def unsupported(verdicts: Iterable[Verdict]) -> list[str]:
    """Return what is not there, a line for each quantity or condition, with the first reason."""
    found: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.status == "unsupported":
            found.setdefault(in_primes(verdict.quantity), "; ".join(verdict.words))
    lines = (f"{name}: {words}" for name, words in found.items())
    return [textwrap.shorten(line, 66, placeholder=" ...") for line in lines]


def by_kernel(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Return the verdicts by kernel, in the order of their first."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.contender, []).append(verdict)
    return list(found.items())


def notes(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], list[str]]:
    """Return the quantities of which the same is noted in a dtype."""
    found: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        undecided = [f"undecided: {verdict.undecided:,}"] if verdict.undecided else []
        for note in (*verdict.notes, *undecided):
            found.setdefault((note, verdict.dtype), []).append(in_primes(verdict.quantity))
    return found


def held(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the conditions under which a kernel holds, a line for each list of dtypes."""
    by_dtype: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.errors is None and verdict.status == "pass":
            dtype = SHORT.get(verdict.dtype, verdict.dtype)
            by_dtype.setdefault(dtype, []).append(verdict.quantity)
    return [f"{', '.join(dtypes)}: {names}" for names, dtypes in _with_the_same(by_dtype).items()]


def _with_the_same(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the keys of the same list together, by what is in it."""
    found: dict[str, list[str]] = {}
    for key, names in lists.items():
        found.setdefault(", ".join(names), []).append(key)
    return found


def in_primes(quantity: str) -> str:
    """Return values and derivatives as f, f' and f''; other quantities as they are called."""
    for order, name in zip(ORDERS, ("value", "derivative", "second_derivative"), strict=True):
        if quantity.split(" ")[0] == name:
            return quantity.replace(name, order, 1)
    return quantity


def sections(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Return the verdicts by kernel, setting and device."""

    def title(verdict: Verdict) -> str:
        named = "" if verdict.label.startswith(verdict.contender) else f"{verdict.contender}: "
        return f"{named}{verdict.label} on {verdict.device}"

    return [(name, list(group)) for name, group in itertools.groupby(verdicts, key=title)]


def sentences(verdict: Verdict, *others: Verdict) -> list[str]:
    """Return what is probably wrong with it, and with ``others``, and an input to see it at."""
    lines = [f"{_together((verdict, *others))}: {'; '.join(verdict.words)}"]
    if verdict.status == "fail" and verdict.point is not None:
        point = verdict.point
        at = ", ".join(f"{name} = {value}" for name, value in shown(point.place))
        where = f" ({point.where})" if point.where else ""
        digits = 17 if verdict.dtype == "float64" else 9
        numbers = f"got {point.got:.{digits}g}, truth {point.truth:.{digits}g}"
        of = f"{_together((verdict,))}: " if others else ""
        lines.append(f"{of}{numbers}{where} at {textwrap.shorten(at, 240, placeholder=' ...')}")
    return lines


def torch_too(verdicts: Iterable[Verdict]) -> str:
    """Return by how much torch is off where that is at least half as much as the failures are."""
    beyond = [
        theirs.worst
        for verdict in verdicts
        if (theirs := verdict.others.get(TORCH)) is not None
        and verdict.point is not None
        and 2 * theirs.worst >= verdict.point.ulp
    ]
    return f" (torch: up to {brief_ulp(max(beyond))} ulp)" if beyond else ""


def let_pass(verdicts: Iterable[Verdict]) -> list[str]:
    """Return a line for each kind of failure that the gate let pass, with its worst input."""
    found: dict[Kind, list[tuple[Verdict, Tolerated]]] = {}
    for verdict in verdicts:
        for part in verdict.tolerated:
            found.setdefault(part.kind, []).append((verdict, part))
    lines = []
    for kind, those in found.items():
        verdict, part = max(those, key=lambda one: one[1].point.ulp)
        at = ", ".join(HEX.sub("", value) for _, value in shown(part.point.place))
        values = DECIMAL.sub(briefly, at)
        what = in_primes(verdict.quantity.removesuffix(f" [{SPECIAL}]"))
        count = f"{sum(p.count for _, p in those):,}"
        than = "" if kind == "zero's sign" else " no worse than torch"
        where = f"{what}({textwrap.shorten(values, 24, placeholder='...')}) {SHORT[verdict.dtype]}"
        numbers = f"is {part.point.got:.3g}, truth {part.point.truth:.3g}"
        if kind == "zero's sign":
            numbers = "is -0, wants 0" if math.copysign(1, part.point.got) < 0 else "is 0, wants -0"
        lines.append(f"{kind}: {count}{than}: {where} {numbers}")
    return lines


def by_cause(verdicts: Iterable[Verdict]) -> list[list[Verdict]]:
    """Return the verdicts that have words, those with one cause together."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.words:
            cause = RANGE.sub("#", verdict.words[0].replace(verdict.dtype, "#"))
            found.setdefault((verdict.status, cause), []).append(verdict)
    return list(found.values())


def _together(verdicts: Iterable[Verdict]) -> str:
    """Return quantities with their dtypes: ``f, vjp f32, bf16``; by dtype where they differ."""
    by_dtype: dict[str, list[str]] = {}
    for verdict in verdicts:
        quantity, dtype = in_primes(verdict.quantity), SHORT.get(verdict.dtype, verdict.dtype)
        by_dtype.setdefault(dtype, []).append(quantity)
    return "; ".join(f"{what} {', '.join(of)}" for what, of in _with_the_same(by_dtype).items())


def failure(verdict: Verdict) -> str:
    """Return a failure in one line: what, in which dtype, why, at which input."""
    return f"{verdict.label} {verdict.device} {'; '.join(sentences(verdict))}"


def finding_sentence(finding: Finding) -> str:
    """Return a finding in words: what torch says, what is true, and at which input."""
    at = ", ".join(f"{name} = {_shortened(value)}" for name, value in shown(finding.place))
    return (
        f"torch gives {finding.torch:.6g} where the truth is {finding.truth:.6g}"
        f" ({ulp(finding.ulp)} ulp) at {at}"
    )


WIDTH = 72
"""What a finding may take on a line of 80 columns."""


def finding_line(finding: Finding) -> str:
    """Return a finding in as few words as possible."""
    values = [HEX.sub("", value) for _, value in shown(finding.place)]
    prime = PRIMES.get(in_primes(finding.quantity))
    what = f"{finding.operation}{prime[1:]}" if prime else f"{finding.operation} {finding.quantity}"
    digits = _that_differ(finding.torch, finding.truth)
    numbers = f"torch {finding.torch:.{digits}g}, truth {finding.truth:.{digits}g}"
    at = f"{what}({', '.join(values)}) {SHORT[finding.dtype]}"
    return f"{at}: {numbers}"


def _that_differ(a: float, b: float) -> int:
    """Return how many digits two numbers have to be written with, to tell one from the other."""
    return next((n for n in range(4, 17) if f"{a:.{n}g}" != f"{b:.{n}g}"), 17)


def telling_findings(findings: Iterable[Finding], count: int) -> list[Finding]:
    """Return the worst finding of each operation at an ordinary input, if it fits a line.

    Those in float32 first, in which most people would see them themselves.
    """
    short = (
        f
        for f in findings
        if f.region != SPECIAL
        and f.label == f.operation
        and math.isfinite(f.ours)
        and len(finding_line(f)) <= WIDTH
    )
    ranked = sorted(short, key=lambda f: (f.dtype == "float32", *severity(f)), reverse=True)
    by_operation: dict[str, Finding] = {}
    for finding in ranked:
        by_operation.setdefault(finding.operation, finding)
    return list(by_operation.values())[:count]


def shown(place: Place) -> Iterator[tuple[str, str]]:
    """Yield the arrays of a place; of a single row its elements."""
    for name, value in place.at.items():
        is_a_row = value.startswith("[[") and value.count("[") == 2
        yield name, value[1:-1] if is_a_row else value


def _shortened(value: str) -> str:
    return value if len(value) <= 160 else value[:157] + "..."
