"""The verdicts in files: JSON for programs, JUnit for CI, Markdown for pages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from gradref.measure.verdict import Row
from gradref.report.summary import Run, lines, main_findings
from gradref.report.text import HEADER, cells, sentence, title


def write_json(run: Run, path: Path) -> None:
    """Every row with its histogram and its findings."""
    path.write_text(json.dumps(run.as_dict(), indent=1) + "\n")


def write_junit(run: Run, path: Path) -> None:
    """A test case for every row."""
    suite = ElementTree.Element(
        "testsuite",
        name="gradref verify",
        tests=str(len(run.rows) + len(run.errors)),
        failures=str(len(run.failures)),
        errors=str(len(run.errors)),
    )
    for row in run.rows:
        case = ElementTree.SubElement(suite, "testcase", classname=row.operation, name=_name(row))
        if not row.passed:
            ElementTree.SubElement(case, "failure", message=row.failure)
    for outcome in run.errors:
        name = f"{outcome.case.label}-{outcome.case.dtype}-{outcome.case.device}"
        case = ElementTree.SubElement(
            suite, "testcase", classname=outcome.case.operation, name=name
        )
        ElementTree.SubElement(case, "error", message=outcome.error)
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _name(row: Row) -> str:
    parts = (row.label, row.quantity, row.dtype, row.device, row.region)
    return "-".join(part for part in parts if part)


def write_markdown(run: Run, path: Path) -> None:
    """The table of verdicts and the findings."""
    text = ["# Verdicts", "", "Worst errors in ulp, and the share of the bound that ours uses.", ""]
    for name, section in itertools.groupby(lines(run.rows), key=title):
        text += [f"## {name}", "", _table_row(HEADER), _table_row(["---"] * len(HEADER))]
        text += [*(_table_row(cells(line)) for line in section), ""]
    text += ["# Findings: where torch is wrong", ""]
    text += [
        f"- `{finding.label}` {finding.quantity} {finding.dtype}: {sentence(finding)}"
        for finding in main_findings(run.findings)
    ]
    text += ["", *(f"Skipped {device}: {reason}" for device, reason in run.skipped.items())]
    path.write_text("\n".join(text).rstrip() + "\n")


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
