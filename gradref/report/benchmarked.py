"""Benchmarks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gradref.bench.contest import Ratio
from gradref.bench.run import Result, append, run_all
from gradref.bench.subjects import BOUND, COMPILED, EAGER, FRESH, PLAIN, Subject
from gradref.report.terminal import progress

HEADER = ("operation", "dtype", "shape", EAGER, COMPILED, FRESH, PLAIN, "of bound", "GB/s")


def follow(console: Console, subjects: Sequence[Subject], rounds: int) -> list[Result]:
    """The results, behind a progress bar that names what is timed."""
    with progress(console, len(subjects), "timing") as bar:
        task = bar.task_ids[0]

        def on_subject(subject: Subject) -> None:
            label = f"{subject.record.name} {subject.dtype} {subject.size:,}"
            bar.update(task, description=f"{label:48.48}")

        found = []
        for result in run_all(subjects, rounds, on_subject):
            found.append(result)
            bar.advance(task)
        return found


def cells(result: Result) -> tuple[str, ...]:
    """A row of the table: times as multiples of ours, and ours as a share of the bound."""
    ratios = result.ratios

    def times(name: str) -> str:
        return _with_interval(ratios[name]) if name in ratios else "not measured"

    bound = ratios[BOUND]
    return (
        result.operation,
        result.dtype,
        " x ".join(f"{n:,}" for n in result.shape),
        times(EAGER),
        times(COMPILED),
        times(FRESH),
        times(PLAIN),
        f"{bound.median:.2f}",
        f"{result.gigabytes_per_second:.1f}",
    )


def _with_interval(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ±{max(ratio.high - ratio.median, ratio.median - ratio.low):.2f}"


def show(console: Console, results: Sequence[Result], out: Path | None) -> None:
    """The table, and where the raw results went."""
    console.print("Times of others as multiples of ours: value and derivative by one fused kernel")
    console.print("into given buffers; medians of paired rounds (95 % of a bootstrap)\n")
    table = Table(*HEADER, box=None, pad_edge=False)
    for result in results:
        table.add_row(*cells(result))
    console.print(table)
    if out is not None:
        append(results, out)
        console.print(f"\n{len(results)} results appended to {out}")
