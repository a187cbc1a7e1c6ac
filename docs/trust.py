"""docs/trust.md: what catches each planted mistake, the judge and the usual gates.

It takes some two minutes: every wrong kernel and every correct one is judged.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch
from mutants import MUTANTS, Mutant  # a package of the tests
from mutants.gates import GATES

from docs.tables import replace_between, table
from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.runs.check import cases, check
from gradref.runs.options import Options

INTRODUCTION = """# Who judges the judge?

Wrong kernels, each a mistake that was seen in the field, and what notices them: `gradref check`,
and the gates that kernels usually have to pass, on one draw of ordinary normal inputs. ✓ caught,
✗ missed, – does not apply, ? depends on what the memory held. Beside every wrong kernel stands a
correct one, written differently from ours; the last column is what the judge says of it. Made by
`python docs/build.py`; `tests/test_mutants.py` asserts the same, with the words.
"""

README = Path(__file__).parents[1] / "README.md"

BY_LUCK = (39, 41)
"""Their results are whatever memory held before: a gate may see them or not."""


def judged(mutant: Mutant, entry: dict[str, object]) -> list[str]:
    """Return what is said against a kernel."""
    kernel = Kernel.of("kernel", entry)
    options = Options("quick", conditions=mutant.mode == "full")
    verdicts = [
        verdict
        for _, case in cases([kernel], mutant.dtypes, "cpu")
        for verdict in check(kernel, case, InProcess([kernel]), options)
    ]
    return [words for verdict in verdicts if not verdict.passed for words in verdict.words]


def row(mutant: Mutant) -> list[str]:
    """Return a row of the matrix."""
    against = judged(mutant, mutant.kernel)
    correct = "fails" if judged(mutant, mutant.correct) else "passes"
    caught = "✓" if against else "✗"
    gates = [gate(mutant) for gate in GATES.values()]
    marks = ["–" if passed is None else "✗" if passed else "✓" for passed in gates]
    if mutant.number in BY_LUCK:
        marks = ["–" if passed is None else "?" for passed in gates]
    operation = f"`{mutant.kernel['operation']}`"
    words = next((text for text in against if re.search(mutant.words, text)), "").replace(
        "|", "\\|"
    )
    return [str(mutant.number), mutant.title, operation, caught, *marks, words, correct]


def made() -> dict[Path, str]:
    """Judge everything, and return the document."""
    torch.set_num_threads(1)
    header = ["#", "mistake", "in", "gradref", *GATES, "what gradref says", "correct kernel"]
    rows = [row(mutant) for mutant in MUTANTS]
    caught = [sum(r[column] == "✓" for r in rows) for column in range(3, 4 + len(GATES))]
    missed = [sum(r[column] == "✗" for r in rows) for column in range(3, 4 + len(GATES))]
    names = ["gradref", *GATES]
    summary = "; ".join(
        f"{name} catches {c} and misses {m}"
        for name, c, m in zip(names, caught, missed, strict=True)
    )
    lines = [
        INTRODUCTION,
        f"Of {len(rows)} wrong kernels {summary}. "
        f"Measured with torch {torch.__version__} on {platform.machine()}.",
        "",
        *table(header, rows),
    ]
    counts = table(
        ["gate", "caught", "passed"],
        [[f"`{name}`", str(c), str(m)] for name, c, m in zip(names, caught, missed, strict=True)],
    )
    return {
        Path(__file__).parent / "trust.md": "\n".join(lines) + "\n",
        README: replace_between(README.read_text(), "trust", counts),
    }
