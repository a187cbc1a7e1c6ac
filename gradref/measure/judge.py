"""Cases and their verdicts, one after the other or over the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import torch

from gradref.declare.operation import Operation
from gradref.measure.elementwise import judge_elementwise
from gradref.measure.rows import judge_rows
from gradref.measure.verdict import Case, Row

DTYPES = ("float64", "float32", "float16", "bfloat16")

ORDER_OF = {
    "value": 0,
    "derivative": 1,
    "gradient": 1,
    "jacobian": 1,
    "vjp": 1,
    "jvp": 1,
    "second_derivative": 2,
    "hvp": 2,
    "hessian_diagonal": 2,
}
"""How often a quantity is differentiated."""


def order_of(quantity: str) -> int:
    """The order of a quantity by the name it has in a verdict, like ``gradient(input) [mean]``."""
    return ORDER_OF[quantity.split("(")[0].split(" ")[0]]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its rows, or why it could not run."""

    case: Case
    rows: tuple[Row, ...]
    error: str


def cases(
    records: Iterable[Operation], dtypes: Sequence[str], devices: Sequence[str]
) -> list[Case]:
    """Every operation with every setting of its parameters, dtype and device."""
    return [
        Case(record.name, dict(parameters), dtype, device, record.package)
        for record in records
        for parameters in record.cases
        for dtype in dtypes
        for device in devices
    ]


def judge(case: Case, mode: str = "quick", seed: int = 0) -> list[Row]:
    """The verdicts on a case."""
    record = case.record
    if record.kind == "elementwise":
        return judge_elementwise(record, case, mode, seed)
    return judge_rows(record, case, mode, seed)


def judge_all(selected: Sequence[Case], mode: str, seed: int) -> Iterator[Outcome]:
    """The outcomes of many cases as they are done, a process to a core, longest cases first."""
    longest_first = sorted(selected, key=lambda case: case.dtype != "float32")
    workers = min(os.cpu_count() or 1, len(selected))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _prepare) as pool:
        try:
            futures = [pool.submit(_outcome, case, mode, seed) for case in longest_first]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _prepare() -> None:
    """A worker has one thread, and leaves an interrupt to the process that started it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _outcome(case: Case, mode: str, seed: int) -> Outcome:
    try:
        return Outcome(case, tuple(judge(case, mode, seed)), "")
    except Exception as problem:
        return Outcome(case, (), f"{type(problem).__name__}: {problem}")
