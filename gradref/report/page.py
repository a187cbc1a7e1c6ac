"""One page of everything: what is declared, and what JSON of verify, certify, check, bench says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from gradref.arrays import reject
from gradref.bench import results as bench
from gradref.bench.results import Result
from gradref.bench.subjects import BOUND, COMPILED, EAGER, OURS
from gradref.declare.operation import Facts, Operation, called
from gradref.declare.registry import operations
from gradref.environment import environment
from gradref.judge import snippet
from gradref.judge.evidence import SPECIAL
from gradref.judge.ulp import Errors
from gradref.judge.verdict import OURS as GRADREF
from gradref.judge.verdict import TORCH, Finding, Verdict, order_of
from gradref.report import declaration, documentation, tables, text
from gradref.report.curves import COLUMNS, PER_COLUMN, curves, error_lines, float32_axis, ulp_axis
from gradref.report.drawing import STYLE, Axis, chart
from gradref.report.summary import OUTPUT, Line, lines, main_findings
from gradref.runs import run as runs
from gradref.sweep import archive
from gradref.sweep.certificate import Certificate


@dataclass
class Measured:
    """What has been measured, from files; an empty list is shown as not measured."""

    verdicts: list[Verdict] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    checked: dict[str, list[Verdict]] = field(default_factory=dict)
    benchmarks: list[tuple[dict[str, Any], Result]] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        verdicts: Sequence[Path],
        checked: Sequence[Path],
        certificates: Sequence[Path],
        benchmarks: Sequence[Path],
    ) -> Measured:
        """What files of verify, check and bench say, and folders of certify."""
        measured = cls()
        for path in verdicts:
            measured.verdicts += _read(path, "gradref verify", runs.read).verdicts
        for path in checked:
            run = _read(path, "gradref check", runs.read)
            measured.checked.setdefault(run.subject, []).extend(run.verdicts)
        for folder in certificates:
            measured.certificates += _read(folder, "gradref certify", archive.read_folder)
        for path in benchmarks:
            measured.benchmarks += bench.latest(_read(path, "gradref bench", bench.read))
        return measured


T = TypeVar("T")


def _read(path: Path, command: str, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except (ValueError, KeyError, TypeError) as problem:
        return reject(str(path), f"{type(problem).__name__}: {problem}", f"JSON of {command}")


@dataclass(frozen=True)
class Figure:
    """A chart, and what it shows in words."""

    caption: str
    drawing: Markup


@dataclass(frozen=True)
class Bar:
    """A time beside others: how long, as a share of the longest and in words."""

    name: str
    share: float
    words: str


@dataclass(frozen=True)
class Cell:
    """A number of the matrix, and how it is coloured: as right, as a failure, as far off."""

    words: str
    state: str = ""


def _cell(found: Iterable[tuple[Errors | None, bool]]) -> Cell:
    """Return the worst of some errors; NaN, infinity and thousands of ulp are far off."""
    known = [(errors.worst, passed) for errors, passed in found if errors is not None]
    if not known:
        return Cell("")
    worst = max(ulp for ulp, _ in known)
    if not all(passed for _, passed in known):
        return Cell(text.brief_ulp(worst), "fail")
    return Cell(text.brief_ulp(worst), "far" if worst > FAR else "pass")


def _is_apart(verdict: Verdict) -> bool:
    """Whether a verdict is on special inputs, or on a form from the output."""
    return SPECIAL in verdict.quantity or OUTPUT in verdict.quantity


def _errors_of(verdict: Verdict, who: str) -> Errors | None:
    return verdict.errors if verdict.contender == who else verdict.others.get(who)


def _judged(verdicts: Sequence[Verdict], order: int) -> Cell:
    """Return the worst error of kernels; conditions that do not hold count with the value."""
    of_order = [v for v in verdicts if (order_of(v.quantity) or 0) == order]
    found = _cell((v.errors, v.passed) for v in of_order)
    if any(not v.passed for v in of_order):
        return Cell(found.words or "failed", "fail")
    return found


FAR = 16.0
"""An error in ulp from which on it is shown as far off."""


@dataclass(frozen=True)
class Failure:
    """What is wrong with somebody's kernel: in which set, a sentence, and Python to see it."""

    subject: str
    operation: str
    sentence: str
    snippet: str


def failures(measured: Measured) -> Iterator[Failure]:
    """Yield the failures of kernels by their causes."""
    for subject, verdicts in measured.checked.items():
        for _, judged in text.sections(verdicts):
            for together in text.by_cause([v for v in judged if not v.passed]):
                first = text.sentences(*together)[0]
                code = next(filter(None, map(snippet.of_verdict, together)), "")
                yield Failure(subject, together[0].operation, first, code)


class Card:
    """Everything about one operation."""

    def __init__(self, record: Operation, measured: Measured) -> None:
        self.record, self.name = record, record.name
        full_name = record.full_name
        self.verdicts = [v for v in measured.verdicts if v.operation == full_name]
        self.certificates = [c for c in measured.certificates if c.operation == full_name]
        self.benchmarks = [b for b in measured.benchmarks if b[1].operation == full_name]
        self.kernels = {
            subject: [v for v in verdicts if v.operation == full_name]
            for subject, verdicts in measured.checked.items()
        }

    @property
    def summary(self) -> str:
        """The first sentence of its documentation."""
        return documentation.summary(self.record.formula)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The function and its derivatives, as they are written."""
        return [self.record.formula, *map(inspect.unwrap, self.record.derivatives.values())]

    @property
    def snippet(self) -> str:
        """How to import it."""
        derivatives = (f.__name__ for f in self.record.derivatives.values())
        names = "".join(f"    {name},\n" for name in (self.name, *derivatives))
        return f"from {self.record.package} import (\n{names})"

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The parameters that it is drawn with: of an elementwise function all that are judged."""
        cases = self.record.cases if self.record.facts is not None else [{}]
        return [dict(case) for case in cases]

    def figures(self, alone: bool = False) -> Iterator[Figure]:
        """The function with its derivatives, for every setting."""
        for case in self.settings:
            along, series = curves(self.record, {**self.record.parameters, **case})
            label = called(self.name, case)
            names = ", ".join(line.name for line in series)
            caption = f"{label}: {names}" + (f" for {along}" if along else "")
            x = Axis.around(np.array([series[0].x.min(), series[0].x.max()]))
            y = Axis.around(np.concatenate([line.y for line in series]))
            yield Figure(caption, chart(series, x, y, label, caption, alone))

    def errors(self, alone: bool = False) -> Iterator[Figure]:
        """The errors of ours and torch's over all of float32."""
        for case in self.settings if self.record.facts is not None else ():
            parameters = {**self.record.parameters, **case}
            for order, series in error_lines(self.record, parameters).items():
                caption = f"{called(self.name, case)}: {order} in float32, worst error in ulp"
                axes = float32_axis(), ulp_axis()
                drawing = chart(series, *axes, f"{order}: error in ulp", caption, alone)
                yield Figure(caption, drawing)

    @property
    def facts(self) -> Facts | None:
        """What is declared of its default setting."""
        facts = self.record.facts
        return None if facts is None else facts.at(**self.record.parameters)

    @property
    def lines(self) -> list[Line]:
        """The verdicts on ours and torch's."""
        return lines(self.verdicts)

    @property
    def findings(self) -> list[Finding]:
        """Where torch is wrong, the worst for every order."""
        return main_findings(f for verdict in self.verdicts for f in verdict.findings)

    @property
    def verdict(self) -> str:
        """Whether our formulas passed, or how many verdicts failed."""
        if not self.verdicts:
            return ""
        failed = sum(not verdict.passed for verdict in self.verdicts)
        return f"{failed} failed" if failed else "pass"

    @property
    def is_right(self) -> bool:
        """Whether nothing failed, of ours or of a kernel."""
        return not self.failed

    @property
    def failed(self) -> int:
        """How many verdicts, on ours or on a kernel, are failures."""
        passed = [v.passed for v in self.verdicts] + [c.passed for c in self.certificates]
        passed += [v.passed for verdicts in self.kernels.values() for v in verdicts]
        return passed.count(False)

    @property
    def cells(self) -> list[Cell]:
        """The row of the matrix: f, f′ and f″ of ours, of torch and of each set of kernels."""
        every = self.verdicts or [v for verdicts in self.kernels.values() for v in verdicts]
        plain = [v for v in every if v.errors is not None and not _is_apart(v)]
        row = []
        for who in (GRADREF, TORCH):
            for order in range(3):
                of_order = [v for v in plain if order_of(v.quantity) == order]
                found = ((_errors_of(v, who), v.passed or v.contender != who) for v in of_order)
                row.append(_cell(found))
        for verdicts in self.kernels.values():
            row += [_judged(verdicts, order) for order in range(3)]
        return row

    @property
    def speeds(self) -> Iterator[tuple[str, list[Bar]]]:
        """The times of a value with its derivative, beside ours."""
        for about, result in self.benchmarks:
            shape = " × ".join(f"{n:,}" for n in result.shape)
            pages = ", huge pages" if about["huge pages"] else ""
            found = {n: result.ratios[n] for n in (EAGER, COMPILED, BOUND) if n in result.ratios}
            most = max(1.0, *(ratio.median for ratio in found.values()))
            bars = [
                Bar(NAMES[n], r.median / most, f"{r.median:.2f} ± {r.margin:.2f} × our time")
                for n, r in found.items()
            ]
            bars.insert(-1, Bar(NAMES[OURS], 1 / most, "1"))
            cpu = f"{about['cpu capability']}, {about['threads']} threads"
            on = f"{result.device}{pages}, torch {about['torch']}, {cpu}"
            yield f"{result.dtype}, {shape}, {on}", bars


NAMES = {
    EAGER: "torch autograd",
    COMPILED: "compiled autograd",
    OURS: "gradref.fuse",
    BOUND: "reads and writes alone",
}


def _all(checked: Mapping[str, list[Verdict]]) -> Iterator[Verdict]:
    for verdicts in checked.values():
        yield from verdicts


def write_checked(run: runs.Run, path: Path) -> None:
    """Write the page of a check: of the operations that were judged."""
    names = dict.fromkeys(verdict.operation for verdict in run.verdicts)
    records = [operations(name)[0] for name in names]
    write_page(records, Measured(checked={run.subject: run.verdicts}), path)


def write_page(records: Iterable[Operation], measured: Measured, path: Path) -> None:
    """One file that needs no other, and no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("gradref.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("page.html").render(
        cards=[Card(r, measured) for r in sorted(records, key=lambda r: (r.package, r.name))],
        measured=measured,
        failures=list(failures(measured)),
        devices=sorted({v.device for v in [*measured.verdicts, *_all(measured.checked)]}),
        environment=environment(),
        style=STYLE,
        documentation=documentation,
        tables=tables,
        text=text,
        declaration=declaration,
        snippet=snippet,
        columns=COLUMNS,
        per_column=PER_COLUMN,
    )
    path.write_text(page)
