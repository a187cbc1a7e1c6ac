"""The verdicts on a terminal: a progress bar, the table, the findings, one last line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from gradref.measure.judge import Outcome
from gradref.report.summary import Run, lines, main_findings
from gradref.report.text import HEADER, cells, sentence, title


@contextmanager
def progress(console: Console, total: int, doing: str) -> Iterator[Progress]:
    """A progress bar over the parts of a run."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(doing, total=total)
        yield bar


def follow(console: Console, total: int, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The outcomes as they come, behind a progress bar that names the last one."""
    with progress(console, total, "judging") as bar:
        for outcome in outcomes:
            label = f"{outcome.case.label} {outcome.case.dtype}"
            bar.update(bar.task_ids[0], advance=1, description=f"{label:48.48}")
            yield outcome


def show(console: Console, run: Run) -> None:
    """Everything that a run has to say."""
    _show_table(console, run)
    _show_findings(console, run)
    for row in run.failures:
        console.print(f"[bold red]FAIL[/] {escape(row.failure)}", highlight=False)
    for outcome in run.errors:
        case = outcome.case
        text = f"[bold red]could not run[/] {case.label} {case.dtype}: {escape(outcome.error)}"
        console.print(text, highlight=False)
    for device, reason in run.skipped.items():
        console.print(f"[yellow]skipped[/] {device}: {reason}", highlight=False)
    console.print(_last_line(run), highlight=False)


WIDTHS = (15, 8, 10, 7, 4, 7, 7, 7, 7)
"""Of the columns: everything fits a terminal of 80."""


def _show_table(console: Console, run: Run) -> None:
    console.print("Worst errors in ulp; used: the share of the bound that ours uses up;")
    console.print("same: the share of torch's results that are ours; sampled: a lower bound\n")
    for name, section in itertools.groupby(lines(run.rows), key=title):
        table = Table(
            title=f"[bold]{name}[/]", title_justify="left", box=None, padding=(0, 1, 0, 0)
        )
        for header, width in zip(HEADER, WIDTHS, strict=True):
            right = header in ("points", "ours", "used", "torch", "same")
            justify: Literal["left", "right"] = "right" if right else "left"
            table.add_column(header, justify=justify, no_wrap=True, min_width=width)
        for line in section:
            table.add_row(*cells(line), style=None if line.passed else "bold red")
        console.print(table)
        console.print()


def _show_findings(console: Console, run: Run) -> None:
    findings = main_findings(run.findings)
    if not findings:
        return
    console.print("\n[bold]Findings: where torch is wrong[/] (the worst of each order)")
    for finding in findings:
        console.print(f"[bold]{finding.label}[/] {finding.quantity} [cyan]{finding.dtype}[/]")
        console.print(Padding(escape(sentence(finding)), (0, 0, 0, 4)), highlight=False)
    console.print()


def _last_line(run: Run) -> str:
    points = sum(row.ours.count for row in run.rows)
    verdicts = f"{len(run.rows)} verdicts on {points:,} points"
    findings = f"{len(run.findings)} findings about torch"
    state = "" if run.finished else ", [bold red]interrupted[/]"
    if run.exit_code == 0:
        return f"[bold green]pass[/]: {verdicts}; {findings}"
    failed = f"{len(run.failures)} failed, {len(run.errors)} could not run"
    return f"[bold red]not passed[/]: {verdicts}, {failed}{state}; {findings}"
