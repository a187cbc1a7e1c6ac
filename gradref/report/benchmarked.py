"""Benchmarks on a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gradref.bench.results import OnSubject, Result
from gradref.bench.subjects import BOUND, COMPILED, EAGER, FRESH, PLAIN, STANDARD, Subject
from gradref.report.terminal import progress

HEADER = ("shape", EAGER, "compiled", "fused", "plain", "bound", "GB/s")


def follow(
    console: Console, total: int, benchmark: Callable[[OnSubject], Iterable[Result]]
) -> list[Result]:
    """The results of a benchmark, behind a bar that names what is timed."""
    with progress(console, total, "timing") as bar:
        task = bar.task_ids[0]

        def on_subject(subject: Subject) -> None:
            label = f"{subject.record.name} {subject.dtype} {subject.size:,}"
            bar.update(task, description=f"{label:48.48}")

        found = []
        for result in benchmark(on_subject):
            found.append(result)
            bar.advance(task)
        return found


def cells(result: Result) -> tuple[str, ...]:
    """A row of the table: times as multiples of ours, and ours as a share of the bound."""
    ratios = result.ratios

    def times(name: str) -> str:
        ratio = ratios.get(name)
        return "-" if ratio is None else f"{ratio.median:.2f}±{ratio.margin:.2f}"

    return (
        " x ".join(f"{n:,}" for n in result.shape),
        *(times(name) for name in (EAGER, COMPILED, FRESH, PLAIN)),
        f"{ratios[BOUND].median:.2f}" if BOUND in ratios else "-",
        f"{result.gigabytes_per_second:.1f}",
    )


def _show_others(console: Console, result: Result) -> None:
    """Who else has it, and the memory that is taken, of the last size in a table."""
    others = [f"{n} {r.median:.2f}" for n, r in result.ratios.items() if n not in STANDARD]
    if others:
        console.print(f"  others: {', '.join(others)}", highlight=False, style="dim")
    taken = [f"{name} {size / 1e6:.1f}" for name, size in result.peak_bytes.items() if size]
    if taken:
        console.print(f"  extra MB: {', '.join(taken)}", highlight=False, style="dim")


def show(console: Console, results: Sequence[Result], out: Path | None) -> None:
    """A table for every operation, and where the raw results went."""
    console.print(
        "Value and derivative by one fused kernel into given buffers. The others' times as"
        " multiples of ours, medians of paired rounds ± a bootstrap's 95 %: autograd, compiled"
        " autograd, fused into fresh memory, the plain calls. bound: the time of a kernel with the"
        " same reads and writes, as a share of ours."
    )
    for (name, dtype), found in itertools.groupby(results, lambda r: (r.operation, r.dtype)):
        group = list(found)
        table = Table(*HEADER, box=None, pad_edge=False)
        for result in group:
            table.add_row(*cells(result))
        console.print(f"\n[bold]{name}[/] {dtype}", highlight=False)
        console.print(table)
        _show_others(console, group[-1])
    if out is not None:
        console.print(f"\n{len(results)} results appended to {out}")
