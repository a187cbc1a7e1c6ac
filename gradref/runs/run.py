"""A run as a whole: what was asked, and every verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradref.environment import environment
from gradref.judge.pool import Outcome
from gradref.judge.snippet import of_finding, of_verdict
from gradref.judge.ulp import HISTOGRAM_EDGES
from gradref.judge.verdict import Finding, Verdict, order_of


@dataclass
class Run:
    """Verdicts with what is needed to read and to repeat them.

    ``problems`` are cases that could not run, ``skipped`` devices that are not there, ``unused``
    patterns of expected failures that matched nothing.
    """

    subject: str
    settings: Mapping[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unused: Sequence[str] = ()
    finished: bool = False

    @property
    def failures(self) -> list[Verdict]:
        """The verdicts that count against the contender."""
        return [verdict for verdict in self.verdicts if not verdict.passed]

    @property
    def judged(self) -> list[Verdict]:
        """The verdicts that are not a mere record of what is unsupported."""
        return [verdict for verdict in self.verdicts if verdict.status != "unsupported"]

    @property
    def findings(self) -> list[Finding]:
        """Where torch is wrong."""
        return [finding for verdict in self.verdicts for finding in verdict.findings]

    @property
    def points(self) -> int:
        """How many results were measured."""
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 could not run."""
        if self.failures or self.unused:
            return 1
        return 0 if self.finished and self.judged and not self.problems else 3

    def add(self, outcome: Outcome) -> None:
        """Take in what became of a job."""
        self.verdicts += outcome.verdicts
        if outcome.problem:
            self.problems.append(f"{outcome.label}: {outcome.problem}")

    def sort(self) -> None:
        """Put the verdicts into the order of operations, settings, orders and quantities."""
        self.verdicts.sort(
            key=lambda v: (v.operation, v.label, order_of(v.quantity) or 0, v.quantity)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "environment": environment(),
            "subject": self.subject,
            "settings": dict(self.settings),
            "finished": self.finished,
            "exit_code": self.exit_code,
            "skipped": dict(self.skipped),
            "problems": self.problems,
            "histogram_edges_ulp": HISTOGRAM_EDGES,
            "verdicts": [_as_dict(verdict) for verdict in self.verdicts],
        }


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for JSON, with its name, and failures and findings as Python to run."""
    findings = [{**asdict(f), "snippet": of_finding(f)} for f in verdict.findings]
    shown = "" if verdict.passed else of_verdict(verdict)
    return {"name": verdict.name, **asdict(verdict), "findings": findings, "snippet": shown}


def read(path: Path) -> Run:
    """Return the run that a file of JSON is of."""
    content = json.loads(path.read_text())
    return Run(
        content["subject"],
        content["settings"],
        content["skipped"],
        [Verdict.of_json(verdict) for verdict in content["verdicts"]],
        content["problems"],
        finished=content["finished"],
    )
