"""The verdict in README.md, and those on real kernels in docs/check.md, one of each kind.

A kind whose library is not installed keeps the line that it has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from docs.tables import between, replace_between, table
from gradref.report.text import ulp
from gradref.runs.run import Run, read

ROOT = Path(__file__).parents[1]
README, CHECK = ROOT / "README.md", ROOT / "docs" / "check.md"

SHOWN = (
    ("torch_ops", "torch", "silu", "bfloat16"),
    ("numpy_textbook", "numpy", "softplus", "float32"),
    ("triton_kernels", "triton", "softmax", "float32"),
    ("jax_nn", "jax", "silu", "float32"),
    ("compiled", "torch", "elu_compiled", "float32"),
)
"""File, the library it needs, kernel, dtype."""

FOLDER = ROOT / "examples" / "kernels"
FILES = tuple(FOLDER / f"{file}.py" for file, *_ in SHOWN)
HEADER = ("kernels", "quantity", "dtype", "worst ulp", "verdict", "what is probably wrong")


def checked(path: Path, *options: str) -> Run:
    """Return what ``gradref check`` says, in a process that has imported no library of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        json = Path(folder) / "run.json"
        command = ["check", str(path), *options, "--mode", "link", "--json", str(json)]
        subprocess.run([sys.executable, "-m", "gradref", *command], stdout=subprocess.PIPE)
        return read(json)


def row(file: str, name: str, dtype: str) -> list[str]:
    """Return the worst verdict on a kernel at ordinary inputs, as a row of the table."""
    judged = checked(FOLDER / f"{file}.py", "--op", name, "--dtype", dtype).verdicts
    mine = [v for v in judged if v.errors is not None and not v.quantity.endswith("[special]")]
    worst = max((v for v in mine if v.contender == name), key=lambda v: v.used)
    assert worst.point is not None  # it has errors
    words = worst.words[0] if worst.words else f"within {worst.bound}"
    return [
        f"[{file}](../examples/kernels/{file}.py)",
        f"`{name}` {worst.quantity.replace('_', ' ')}",
        dtype,
        ulp(worst.point.ulp),
        worst.status,
        words.replace("|", "\\|"),
    ]


def verdict(readme: str) -> list[str]:
    """Return what the command in README.md shows of the kernel there."""
    found = re.search(r"```python\n# mine.py\n(.*?)```\n.*?\n\$ gradref (.*?)\n", readme, re.S)
    assert found is not None  # the document has both
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(found[1])
        command = [sys.executable, "-m", "gradref", *found[2].split()]
        environment = {**os.environ, "COLUMNS": "80"}
        shown = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ).stdout
    asked = f"$ gradref {found[2]}"
    return [
        "```text",
        asked,
        *(line.rstrip() for line in shown.splitlines() if line.strip()),
        "```",
    ]


def made() -> dict[Path, str]:
    """Judge the kernels, and return both documents."""
    text, readme = CHECK.read_text(), README.read_text()
    known = {line.split("]")[0].removeprefix("| ["): line for line in between(text, "kernels")}
    header = table(HEADER, [])
    lines = [
        table(HEADER, [row(file, name, dtype)])[-1] if find_spec(library) else known.get(file, "")
        for file, library, name, dtype in SHOWN
    ]
    return {
        CHECK: replace_between(text, "kernels", [*header, *filter(None, lines)]),
        README: replace_between(readme, "verdict", verdict(readme)),
    }
