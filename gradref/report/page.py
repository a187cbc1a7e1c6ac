"""One page of everything: what is declared, and what JSON of verify, certify, check, bench says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from gradref.environment import environment
from gradref.judge import snippet
from gradref.judge.verdict import Finding, Verdict
from gradref.report import declaration, documentation, text
from gradref.report.curves import COLUMNS, PER_COLUMN, curves, error_lines, float32_axis, ulp_axis
from gradref.report.drawing import STYLE, Axis, chart
from gradref.report.summary import Line, lines, main_findings
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


class Card:
    """Everything about one operation."""

    def __init__(self, record: Operation, measured: Measured) -> None:
        self.record, self.name = record, record.name
        full_name = record.full_name
        self.verdicts = [v for v in measured.verdicts if v.operation == full_name]
        self.certificates = [
            c for c in measured.certificates if c.operation == self.record.full_name
        ]
        self.benchmarks = [
            b for b in measured.benchmarks if b[1].operation == self.record.full_name
        ]
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
            return "not measured"
        failed = sum(not verdict.passed for verdict in self.verdicts)
        return f"{failed} failed" if failed else "pass"

    @property
    def failed(self) -> int:
        """How many verdicts, on ours or on a kernel, are failures."""
        passed = [v.passed for v in self.verdicts] + [c.passed for c in self.certificates]
        passed += [v.passed for verdicts in self.kernels.values() for v in verdicts]
        return passed.count(False)

    @property
    def speeds(self) -> Iterator[tuple[str, list[Bar]]]:
        """The times of a value with its derivative, beside ours."""
        for about, result in self.benchmarks:
            shape = " × ".join(f"{n:,}" for n in result.shape)
            pages = ", huge pages" if about["huge pages"] else ""
            times = {
                name: result.ratios[name].median
                for name in (EAGER, COMPILED)
                if name in result.ratios
            }
            times |= {OURS: 1.0, BOUND: result.ratios[BOUND].median}
            most = max(times.values())
            bars = [Bar(NAMES[n], t / most, f"{t:.2f}×") for n, t in times.items()]
            yield f"{result.dtype}, {shape}, {result.device}{pages}", bars


NAMES = {
    EAGER: "torch autograd",
    COMPILED: "compiled autograd",
    OURS: "gradref.fuse",
    BOUND: "reads and writes alone",
}


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
        environment=environment(),
        style=STYLE,
        documentation=documentation,
        text=text,
        declaration=declaration,
        snippet=snippet,
        columns=COLUMNS,
        per_column=PER_COLUMN,
    )
    path.write_text(page)
