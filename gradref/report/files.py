"""Verdicts in files: JSON for programs, JUnit for CI, Markdown and HTML for people."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gradref.judge.verdict import OURS
from gradref.report.summary import lines, main_findings
from gradref.report.tables import (
    LINE_HEADER,
    VERDICT_HEADER,
    VERDICT_LEGEND,
    line_cells,
    line_title,
    verdict_cells,
)
from gradref.report.text import (
    by_cause,
    finding_sentence,
    held,
    sections,
    sentences,
)
from gradref.runs.run import Run


def write_json(run: Run, path: Path) -> None:
    """Write every verdict with its histogram and its findings.

    JSON has no infinities and no NaN: they are written as strings.
    """
    content = _finite(run.as_dict())
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """Return the same with strings for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_junit(run: Run, path: Path) -> None:
    """Write a test case for every verdict, and for every case that could not run."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"gradref {run.subject}",
        tests=str(len(run.verdicts) + len(run.problems)),
        failures=str(len(run.failures)),
        errors=str(len(run.problems)),
        skipped=str(len(run.verdicts) - len(run.judged)),
    )
    for verdict in run.verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname=verdict.contender, name=verdict.name
        )
        if verdict.status == "unsupported":
            ElementTree.SubElement(case, "skipped", message="; ".join(verdict.words))
        elif not verdict.passed:
            ElementTree.SubElement(case, "failure", message="; ".join(sentences(verdict)))
    for problem in run.problems:
        case = ElementTree.SubElement(suite, "testcase", classname=run.subject, name=problem)
        ElementTree.SubElement(case, "error", message=problem)
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def write_markdown(run: Run, path: Path) -> None:
    """Write the tables of verdicts with the findings, or with what is probably wrong."""
    text = _of_ours(run) if run.subject == OURS else _of_kernels(run)
    path.write_text("\n".join(text).rstrip() + "\n")


def _of_ours(run: Run) -> list[str]:
    text = ["# Verdicts", "", "Worst errors in ulp, and the share of the bound that ours uses.", ""]
    for name, section in itertools.groupby(lines(run.verdicts), key=line_title):
        text += [f"## {name}", "", _row(LINE_HEADER), _row(["---"] * len(LINE_HEADER))]
        text += [*(_row(line_cells(line)) for line in section), ""]
    text += ["# Findings: where torch is wrong", ""]
    text += [
        f"- `{finding.label}` {finding.quantity} {finding.dtype}: {finding_sentence(finding)}"
        for finding in main_findings(run.findings)
    ]
    return [*text, "", *(f"Skipped {device}: {reason}" for device, reason in run.skipped.items())]


def _of_kernels(run: Run) -> list[str]:
    text = [f"# {run.subject}", "", VERDICT_LEGEND, ""]
    for title, verdicts in sections(run.verdicts):
        text += [f"## {title}", "", _row(VERDICT_HEADER), _row(["---"] * len(VERDICT_HEADER))]
        text += [_row(verdict_cells(v)) for v in verdicts if v.errors is not None]
        text += ["", *(f"- holds {line}" for line in held(verdicts))]
        text += [*(f"- {'; '.join(sentences(*of))}" for of in by_cause(verdicts)), ""]
    return text


def _row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def write_html(run: Run, path: Path) -> None:
    """Write the page of a check, which needs nothing else."""
    from gradref.report.page import write_checked  # with all that draws

    write_checked(run, path)


WRITERS = {
    "json": write_json,
    "junit": write_junit,
    "markdown": write_markdown,
    "html": write_html,
}


def write(run: Run, **paths: Path | None) -> None:
    """Write a run in each form that has a path."""
    for form, path in paths.items():
        if path is not None:
            WRITERS[form](run, path)
