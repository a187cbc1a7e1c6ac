"""docs/verdicts.md, and the findings in README.md, from one run of ``gradref verify``."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from docs.tables import replace_between, table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HEX = re.compile(r" \(-?0x[^)]*\)")


def made() -> dict[Path, str]:
    """Judge everything, and return both documents."""
    with tempfile.TemporaryDirectory() as folder:
        verdicts, markdown = Path(folder) / "verdicts.json", Path(folder) / "verdicts.md"
        command = [sys.executable, "-m", "gradref", "verify"]
        command += ["--json", str(verdicts), "--markdown", str(markdown)]
        subprocess.run(command, cwd=ROOT, check=True)
        content = json.loads(verdicts.read_text())
        environment = content["environment"]
        measured = f"Measured with torch {environment['torch']} on {environment['cpu capability']}."
        lines = [*findings(content), "", measured]
        return {
            ROOT / "docs" / "verdicts.md": markdown.read_text(),
            README: replace_between(README.read_text(), "findings", lines),
        }


def findings(verdicts: dict[str, Any]) -> list[str]:
    """Return a table of the ordinary input of each operation at which torch loses most."""
    from gradref.measure.verdict import Finding
    from gradref.report.summary import main_findings, severity
    from gradref.report.text import ulp

    everything = [Finding(**finding) for row in verdicts["rows"] for finding in row["findings"]]
    plain = (f for f in everything if f.label == f.operation and "[" not in f.quantity)
    ordinary = [f for f in plain if f.region != "special" and math.isfinite(f.ours)]
    rows, seen = [], set()
    for finding in sorted(main_findings(ordinary), key=severity, reverse=True):
        if finding.operation in seen:
            continue
        seen.add(finding.operation)
        at = ", ".join(f"{name} = {HEX.sub('', value)}" for name, value in finding.at.items())
        if len(at) > 72:
            continue
        numbers = [f"{value:.6g}" for value in (finding.truth, finding.torch, finding.ours)]
        name = f"`{finding.label}` {finding.quantity}"
        rows.append([name, finding.dtype, at, *numbers, ulp(finding.ulp)])
    header = ["function", "dtype", "at", "truth", "torch", "ours", "torch's error in ulp"]
    return table(header, rows)
