"""Write the verdicts on real kernels into README.md, one of each kind of examples/kernels.

    python docs/kernels.py

A kind whose library is not installed keeps the line that it has.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from gradref.report.text import ulp
from gradref.runs.check import check_subject
from gradref.runs.options import Options

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

SHOWN = (
    ("torch_ops", "torch", "silu", "bfloat16"),
    ("numpy_textbook", "numpy", "softplus", "float32"),
    ("triton_kernels", "triton", "softmax", "float32"),
    ("jax_nn", "jax", "silu", "float32"),
    ("compiled", "torch", "elu_compiled", "float32"),
)
"""File, the library it needs, kernel, dtype."""


def line(file: str, name: str, dtype: str) -> str:
    """The worst verdict on a kernel at ordinary inputs, in a row of a table."""
    path = ROOT / "examples" / "kernels" / f"{file}.py"
    judged = check_subject(str(path), name, [dtype], Options("link")).verdicts
    mine = [v for v in judged if v.errors is not None and not v.quantity.endswith("[special]")]
    worst = max((v for v in mine if v.kernel == name), key=lambda v: v.used)
    assert worst.errors is not None  # chosen so
    words = worst.words[0] if worst.words else f"within {worst.bound}"
    cells = (
        f"[{file}](examples/kernels/{file}.py)",
        f"`{name}` {worst.quantity.replace('_', ' ')}",
        dtype,
        ulp(worst.errors.worst),
        worst.status,
        words.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Judge, and write."""
    readme = README.read_text()
    known = {row.split("]")[0].removeprefix("| ["): row for row in readme.splitlines()}
    rows = [
        line(file, name, dtype) if find_spec(library) else known.get(file, "")
        for file, library, name, dtype in SHOWN
    ]
    header = ("kernels", "quantity", "dtype", "worst ulp", "verdict", "what is probably wrong")
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *filter(None, rows)]
    replace_between = runpy.run_path(str(ROOT / "docs" / "build.py"))["replace_between"]
    README.write_text(replace_between(readme, "kernels", lines))


if __name__ == "__main__":
    sys.exit(main())
