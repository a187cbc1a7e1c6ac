"""Verdicts, findings, coverage and four rows of README.md, from one ``gradref verify``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from docs import coverage
from docs.tables import replace_between, table
from gradref.judge.snippet import of_finding
from gradref.report.text import HEX, finding_line, telling_findings, ulp
from gradref.runs.run import Run, read

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MOST, SHOWN = 20, 4
"""Findings in docs/findings.md, and rows of the table in README.md."""

HEAD = """\
# What torch gets wrong

The worst ordinary input of each operation, as Python that prints our result and torch's; truth is
Arb ball arithmetic. An elementwise function is asked of 64 equal numbers, as torch computes vectors
and single numbers in different ways. Written by `docs/build.py`; `tests/test_documents.py` runs
them all.
"""


def made() -> dict[Path, str]:
    """Judge everything, and return the documents."""
    with tempfile.TemporaryDirectory() as folder:
        verdicts, markdown = Path(folder) / "verdicts.json", Path(folder) / "verdicts.md"
        command = [sys.executable, "-m", "gradref", "verify"]
        command += ["--json", str(verdicts), "--markdown", str(markdown)]
        subprocess.run(command, cwd=ROOT, check=True)
        environment = json.loads(verdicts.read_text())["environment"]
        measured = f"torch {environment['torch']} on {environment['cpu capability']}"
        run = read(verdicts)
        document = [HEAD, f"Measured with {measured}.", "", *snippets(run)]
        lines = rows(run, measured)
        return {
            ROOT / "docs" / "verdicts.md": markdown.read_text(),
            ROOT / "docs" / "findings.md": "\n".join(document),
            coverage.PATH: coverage.document(run),
            README: replace_between(README.read_text(), "findings", lines),
        }


def snippets(run: Run) -> list[str]:
    """Return a section for the worst ordinary input of each operation."""
    found = []
    for finding in telling_findings(run.findings, MOST):
        found += [f"## {finding_line(finding)}", "", "```python", of_finding(finding), "```", ""]
    return found


def rows(run: Run, measured: str) -> list[str]:
    """Return a table of float32 findings of elementwise functions, one each."""
    every = telling_findings(run.findings, len(run.findings))
    alone = [f for f in every if not f.place.shape and list(f.place.at) == ["x"]]
    one = [finding for finding in alone if finding.dtype == "float32"]
    cells = []
    for finding in one[:SHOWN]:
        name = f"`{finding.label}` {finding.quantity.replace('_', ' ')}"
        numbers = [f"{value:.6g}" for value in (finding.truth, finding.torch, finding.ours)]
        cells.append([name, HEX.sub("", finding.place.at["x"]), *numbers, ulp(finding.ulp)])
    header = [f"float32, {measured}", "x", "truth", "torch", "ours", "torch's error in ulp"]
    return table(header, cells)
