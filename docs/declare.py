"""docs/declare.md: what a declaration is made of, from the example and the docstrings."""

from __future__ import annotations

import inspect
from pathlib import Path

from flint import arb_series

from docs.tables import table
from gradref.report.documentation import summary
from gradref.truth import series

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_operations" / "smooth.py"
NOT_MATHEMATICS = {"coeffs", "degree", "find_roots", "length", "repr", "str", "valuation"}

HEAD = """\
# Declare an operation of your own

A module in the working directory is enough:

```sh
gradref verify smooth            # or smooth:elliott
gradref check kernels.py --op smooth:elliott
gradref show smooth:elliott
gradref report smooth --out page.html
```

`smooth.py`, which `tests/test_own_operations.py` runs:
"""

PARTS = """\
A package with an entry point in the group `gradref.operations`, as the
[example](../examples/own_operations/pyproject.toml) has one, is known to every command without its
name. `@rowwise` and `@loss` declare functions of rows: `activations/_rowwise.py` and
`losses/_regression.py` are examples; `@batch_loss` one whose rows share a matrix or have lengths of
their own, as in `losses/_linear.py`. What is missing or wrong is an error by name: a docstring, a
truth that raises, a limit that the truth does not tend to, a kink where nothing jumps, a loss
without its gradient. A second derivative may be left out.

- The **formula** takes float64 tensors; its public form takes any dtype and array library.
- `torch` is torch's counterpart, or None; it is a witness.
- `truth` is the function for Arb. It gets a power series of balls, of which the constant term
  `x[0]` is an exact number: it may branch on that, and write |x| as `-x if x[0] < 0 else x`.
- `facts`: f, f′ and f″ at ±inf (`limits`), where one of them jumps and which side is taken there
  (`kinks`), brackets of the irrational roots of f′ and f″ (`zeros`).

## What a truth may use

Arithmetic, the methods of `flint.arb_series`, and these, which keep every digit:
"""


def made() -> dict[Path, str]:
    """Return the document."""
    functions = [f for _, f in inspect.getmembers(series, inspect.isfunction)]
    ours = [f for f in functions if f.__module__ == series.__name__ and f.__name__[0] != "_"]
    rows = [
        [f"`series.{f.__name__}({', '.join(inspect.signature(f).parameters)})`", summary(f)]
        for f in ours
    ]
    methods = [m for m in dir(arb_series) if not m.startswith("_") and m not in NOT_MATHEMATICS]
    lines = [
        HEAD,
        "```python",
        EXAMPLE.read_text().rstrip(),
        "```",
        "",
        PARTS,
        *table(["of `gradref.truth`", ""], rows),
        "",
        f"Methods of `flint.arb_series`: {', '.join(f'`{name}`' for name in methods)}.",
    ]
    return {ROOT / "docs" / "declare.md": "\n".join(lines) + "\n"}
