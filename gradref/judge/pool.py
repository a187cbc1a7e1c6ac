"""Jobs over the cores, a process to each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import torch

from gradref.judge.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its verdicts, or why it could not run."""

    label: str
    verdicts: list[Verdict]
    problem: str = ""


def run_all(
    jobs: Sequence[Callable[[], list[Verdict]]], labels: Sequence[str]
) -> Iterator[Outcome]:
    """Yield the outcomes as they come, in the order in which the jobs are done."""
    workers = min(os.cpu_count() or 1, len(jobs))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _prepare) as pool:
        try:
            futures = [pool.submit(_run, *job) for job in zip(jobs, labels, strict=True)]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _prepare() -> None:
    """Give a worker one thread, and leave an interrupt to the process that started it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(job: Callable[[], list[Verdict]], label: str) -> Outcome:
    try:
        return Outcome(label, job())
    except Exception as problem:
        return Outcome(label, [], f"{type(problem).__name__}: {problem}")
