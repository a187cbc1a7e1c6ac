"""docs/verdicts.md, and the findings in README.md, from one run of ``gradref verify``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.tables import replace_between, table
from gradref.report.text import HEX, telling_findings, ulp
from gradref.runs.run import Run, read

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MOST = 20
"""Rows of the table in README.md."""


def made() -> dict[Path, str]:
    """Judge everything, and return both documents."""
    with tempfile.TemporaryDirectory() as folder:
        verdicts, markdown = Path(folder) / "verdicts.json", Path(folder) / "verdicts.md"
        command = [sys.executable, "-m", "gradref", "verify"]
        command += ["--json", str(verdicts), "--markdown", str(markdown)]
        subprocess.run(command, cwd=ROOT, check=True)
        environment = json.loads(verdicts.read_text())["environment"]
        measured = f"Measured with torch {environment['torch']} on {environment['cpu capability']}."
        lines = [*findings(read(verdicts)), "", measured]
        return {
            ROOT / "docs" / "verdicts.md": markdown.read_text(),
            README: replace_between(README.read_text(), "findings", lines),
        }


def findings(run: Run) -> list[str]:
    """Return a table of the ordinary input of each operation at which torch loses most."""
    rows = []
    for finding in telling_findings(run.findings, MOST):
        at = ", ".join(f"{name} = {HEX.sub('', value)}" for name, value in finding.place.at.items())
        numbers = [f"{value:.6g}" for value in (finding.truth, finding.torch, finding.ours)]
        name = f"`{finding.label}` {finding.quantity}"
        rows.append([name, finding.dtype, at, *numbers, ulp(finding.ulp)])
    header = ["function", "dtype", "at", "truth", "torch", "ours", "torch's error in ulp"]
    return table(header, rows)
