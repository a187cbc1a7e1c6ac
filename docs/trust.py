"""docs/trust.md: what catches each planted mistake, the judge and the usual gates.

It takes some ten minutes: every wrong kernel and every correct one is judged.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch
from mutants import CONDITIONS, MUTANTS, Mutant  # a package of the tests
from mutants.gates import GATES

from docs.tables import replace_between, table
from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.runs.check import cases, check
from gradref.runs.choices import GateName, Mode
from gradref.runs.options import Options

INTRODUCTION = """# Who judges the judge?

Wrong kernels, each a mistake that was seen in the field or planted between the lines of an earlier
judge, and what notices them: `gradref check` in its two modes and with `--gate torch`, and the
gates that kernels usually have to pass, on one draw of ordinary normal inputs. ✓ caught, ✗ missed,
– does not apply (most of those of number 46 and above are right at the one shape that these gates
draw), ? depends on what the memory held. Of more than 2²⁴ elements mode full is asked here only
where they show the mistake. The gate is `standard` where no other is named; `--gate strict` fails
all that it fails. Beside every wrong kernel stands a correct one, written differently from ours;
the last columns are what mode full says of it under the standard and the strict gate. Made by
`python docs/build.py`; `tests/test_mutants.py` asserts the same, with the words.
"""

README = Path(__file__).parents[1] / "README.md"

BY_LUCK = (39, 41)
"""Their results are whatever memory held before: a gate may see them or not."""


def judged(
    entry: dict[str, object], mutant: Mutant, mode: Mode, gate: GateName = "standard"
) -> list[str]:
    """Return what is said against a kernel of a mutant."""
    kernel = Kernel.of("kernel", entry)
    conditions = None if mode == "quick" else {*CONDITIONS, mutant.condition}
    options = Options(mode, conditions=conditions, gate=gate)
    verdicts = [
        verdict
        for _, case in cases([kernel], mutant.dtypes, "cpu")
        for verdict in check(kernel, case, InProcess([kernel]), options)
    ]
    return [words for verdict in verdicts if not verdict.passed for words in verdict.words]


class Neighbours:
    """What the judge says of the correct kernels, of which several mutants may share one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], str] = {}

    def verdict(self, mutant: Mutant, gate: GateName) -> str:
        """Return whether the kernel without the mistake passes mode full, or why it does not."""
        key = (*map(id, mutant.correct.values()), mutant.condition in CONDITIONS, gate)
        if key not in self._known:
            failures = judged(mutant.correct, mutant, "full", gate)
            self._known[key] = _in_a_cell(failures[0]) if failures else "passes"
        return self._known[key]


def row(mutant: Mutant, neighbours: Neighbours) -> list[str]:
    """Return a row of the matrix."""
    quick = judged(mutant.kernel, mutant, "quick")
    full = judged(mutant.kernel, mutant, "full")
    beside_torch = judged(mutant.kernel, mutant, "full", "torch")
    marks = ["–" if passed is None else "✗" if passed else "✓" for passed in usual(mutant)]
    if mutant.number in BY_LUCK:
        marks = [mark if mark == "–" else "?" for mark in marks]
    operation = f"`{mutant.kernel['operation']}`"
    words = next((text for text in (*quick, *full) if re.search(mutant.words, text)), "")
    return [
        str(mutant.number),
        mutant.title,
        operation,
        "✓" if full else "✗",
        "✓" if quick else "✗",
        "✓" if beside_torch else "✗",
        *marks,
        _in_a_cell(words),
        neighbours.verdict(mutant, "standard"),
        neighbours.verdict(mutant, "strict"),
    ]


def _in_a_cell(words: str) -> str:
    return words.replace("|", "\\|")


def usual(mutant: Mutant) -> list[bool | None]:
    """Return what the usual gates let pass; None where one does not apply."""
    if mutant.condition:
        return [None] * len(GATES)  # right at the one shape that they draw
    return [gate(mutant) for gate in GATES.values()]


def made() -> dict[Path, str]:
    """Judge everything, and return the document."""
    torch.set_num_threads(1)
    names = ["gradref, full", "gradref, quick", "gradref, full, gate torch", *GATES]
    header = ["#", "mistake", "in", *names, "what gradref says", "correct kernel", "strict"]
    neighbours = Neighbours()
    rows = [row(mutant, neighbours) for mutant in MUTANTS]
    caught = [sum(r[column] == "✓" for r in rows) for column in range(3, 3 + len(names))]
    missed = [sum(r[column] == "✗" for r in rows) for column in range(3, 3 + len(names))]
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
