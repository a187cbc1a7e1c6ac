"""Our own functions before the judge, with torch as a witness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from gradref.contenders.ours import Ours
from gradref.contenders.witness import Torch
from gradref.declare.operation import Operation
from gradref.judge import gates
from gradref.judge.batches import BatchExam
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.pool import Outcome, run_all
from gradref.judge.rows import RowsExam
from gradref.judge.trial import Exam, Trial
from gradref.judge.verdict import DTYPES, Case, Verdict

Mode = Literal["smoke", "quick", "full"]

SIZES = {
    "smoke": {torch.float32: 20_000, torch.float64: 10_000},
    "quick": {torch.float32: 20_000, torch.float64: 32_000},
    "full": {torch.float32: 400_000, torch.float64: 400_000},
}
"""Inputs of an elementwise function drawn for a dtype, besides all those of 16 bits.

Every float32 input is in a certificate; float64 is also asked about the inputs of the others.
"""

LENGTHS = {"smoke": (1, 3, 5), "quick": (1, 2, 3, 6), "full": (1, 2, 3, 4, 5, 8, 13)}
ROWS = {"smoke": (48, 16), "quick": (400, 104), "full": (1200, 304)}
"""Rows of every length: of numbers that all formats hold, and of the dtype's own."""

CALLS = {"smoke": 2, "quick": 5, "full": 40}
"""Calls of a loss of a batch."""

CHUNKS = {"smoke": 15, "quick": 6, "full": 30}
"""Groups of rows that are reduced, or at least one for every length."""


@dataclass(frozen=True)
class Job:
    """A setting of an operation in several dtypes, which share one table of truths."""

    case: Case
    dtypes: tuple[str, ...]
    mode: Mode
    seed: int
    orders: tuple[int, ...]

    @property
    def label(self) -> str:
        """What is shown while it runs."""
        return self.case.label

    def __call__(self) -> list[Verdict]:
        """Return the verdicts in every dtype."""
        return [
            verdict
            for dtype in self.dtypes
            for verdict in verify(
                replace(self.case, dtype=dtype), self.mode, self.seed, self.dtypes, self.orders
            )
        ]


def verify(
    case: Case,
    mode: Mode = "quick",
    seed: int = 0,
    dtypes: tuple[str, ...] = (),
    orders: Sequence[int] = (0, 1, 2),
) -> Iterator[Verdict]:
    """Yield the verdicts on our functions in one case; ``dtypes`` are those of the same run."""
    exam = exam_of(case, mode, seed, dtypes or (case.dtype,))
    yield from Trial(Ours(), gates.OURS, [Torch()], orders).verdicts(exam)


def exam_of(case: Case, mode: Mode, seed: int, dtypes: tuple[str, ...]) -> Exam:
    """Return the questions of a mode."""
    if case.record.kind == "elementwise":
        return ElementwiseExam(case, SIZES[mode], seed, dtypes)
    if case.record.kind == "batch":
        return BatchExam(case, CALLS[mode], seed)
    rows, own = ROWS[mode]
    return RowsExam(case, LENGTHS[mode], rows, own, seed, CHUNKS[mode])


def jobs(
    records: Iterable[Operation],
    dtypes: Sequence[str],
    devices: Sequence[str],
    mode: Mode,
    seed: int,
    orders: Sequence[int],
) -> list[Job]:
    """Return every operation with every setting of its parameters, on every device."""
    return [
        Job(
            Case(record.full_name, dict(parameters), DTYPES[0], device),
            tuple(dtypes),
            mode,
            seed,
            tuple(orders),
        )
        for record in records
        for parameters in record.cases
        for device in devices
    ]


def verify_all(selected: Sequence[Job]) -> Iterator[Outcome]:
    """Yield the outcomes of many jobs as they are done, elementwise ones first: they are long."""
    longest_first = sorted(selected, key=lambda job: job.case.record.kind != "elementwise")
    return run_all([partial(job) for job in longest_first], [job.label for job in longest_first])
