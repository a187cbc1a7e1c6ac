"""Verdicts on a terminal: a progress bar, one screen of results, all of them if asked."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
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

from gradref.judge.pool import Outcome
from gradref.judge.snippet import of_verdict
from gradref.judge.verdict import OURS, Status, Verdict
from gradref.report.summary import lines, main_findings, overviews
from gradref.report.tables import (
    LINE_HEADER,
    OVERVIEW_HEADER,
    VERDICT_HEADER,
    VERDICT_LEGEND,
    WRONG,
    line_cells,
    line_title,
    matrix,
    overview_cells,
    verdict_cells,
)
from gradref.report.text import (
    by_cause,
    by_kernel,
    failure,
    finding_line,
    finding_sentence,
    held,
    let_pass,
    notes,
    sections,
    sentences,
    telling_findings,
    torch_too,
    ulp,
    unsupported,
)
from gradref.runs.choices import SHORT
from gradref.runs.run import Run

STYLES: dict[Status, str] = {
    "pass": "green",
    "fail": "bold red",
    "unsupported": "yellow",
    "expected failure": "yellow",
    "unexpected pass": "bold red",
}


COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)
"""Of a progress bar: what is done, how much of it, how long it has taken and will take."""


@contextmanager
def progress(console: Console, total: int, doing: str) -> Iterator[Progress]:
    """Show a progress bar over the parts of a run on a terminal, with what is left of it."""
    with Progress(
        *COLUMNS, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        bar.add_task(doing, total=total)
        yield bar


# --- ours ----------------------------------------------------------------------------------------

WIDTHS = (32, 12, 11)
"""Of the first columns of the overview, of which nothing is cut."""

ROWS = 30
"""Operations that one screen has room for."""

FINDINGS = 3
"""Findings that are shown of a run."""


def follow_ours(console: Console, total: int, outcomes: Iterable[Outcome], run: Run) -> None:
    """Take the outcomes into a run and show it as it grows: failures first, progress below."""
    bar = Progress(*COLUMNS, console=console)
    task = bar.add_task("judging", total=total)
    with Live(bar, console=console, transient=True, refresh_per_second=4) as live:
        for outcome in outcomes:
            run.add(outcome)
            bar.update(task, advance=1, description=f"{outcome.label:40.40}")
            live.update(Group(_overview(run), bar))


def show_ours(console: Console, run: Run, seconds: float, verbose: bool) -> None:
    """Show the verdicts on our functions: one screen, or all with ``verbose``."""
    for verdict in run.failures:
        console.print(f"[bold red]FAIL[/] {escape(failure(verdict))}", highlight=False)
    if verbose:
        _show_lines(console, run)
        _show_findings(console, run)
    else:
        _show_overview(console, run)
    for problem in run.problems:
        console.print(f"[bold red]could not run[/] {escape(problem)}", highlight=False)
    for device, reason in run.skipped.items() if verbose else ():
        console.print(f"[yellow]skipped[/] {device}: {reason}", highlight=False)
    console.print(_closing_line(run, seconds, verbose), highlight=False)


def _table(header: Sequence[str], left: Sequence[str], widths: Sequence[int] = ()) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="none")
    for column, width in itertools.zip_longest(header, widths):
        justify: Literal["left", "right"] = "left" if column in left else "right"
        table.add_column(column, justify=justify, no_wrap=True, min_width=width)
    return table


def _show_overview(console: Console, run: Run) -> None:
    console.print(_overview(run))
    for finding in telling_findings(run.findings, FINDINGS):
        console.print(f"[cyan]torch[/] {escape(finding_line(finding))}", highlight=False)


def _overview(run: Run) -> Table:
    """Return a row for each operation; of many, for those that come closest to their bounds."""
    table = _table(OVERVIEW_HEADER, (*OVERVIEW_HEADER[:2], OVERVIEW_HEADER[3]), WIDTHS)
    ranked = sorted(overviews(run.verdicts), key=lambda o: (o.passed, -o.used))
    shown, others = ranked[:ROWS], ranked[ROWS:]
    for overview in sorted(shown, key=lambda o: (o.passed, o.operation)):
        style = None if overview.passed else "bold red"
        table.add_row(*map(escape, overview_cells(overview)), style=style)
    if others:
        most = f"up to {100 * others[0].used:.0f} %"
        table.add_row(f"and {len(others)} more: --verbose", "", most, "")
    return table


def _show_lines(console: Console, run: Run) -> None:
    console.print("Worst errors in ulp; used: the share of the bound that ours uses up;")
    console.print("same: the share of torch's results that are ours; sampled: a lower bound\n")
    for name, section in itertools.groupby(lines(run.verdicts), key=line_title):
        table = _table(LINE_HEADER, ("order", "dtype", "grade", "verdict"))
        table.title, table.title_justify = f"[bold]{name}[/]", "left"
        for line in section:
            table.add_row(*line_cells(line), style=None if line.passed else "bold red")
        console.print(table)
        console.print()


def _show_findings(console: Console, run: Run) -> None:
    findings = main_findings(run.findings)
    if not findings:
        return
    console.print("\n[bold]Findings: where torch is wrong[/] (the worst of each order)")
    for finding in findings:
        console.print(f"[bold]{finding.label}[/] {finding.quantity} [cyan]{finding.dtype}[/]")
        console.print(Padding(escape(finding_sentence(finding)), (0, 0, 0, 4)), highlight=False)
    console.print()


def _closing_line(run: Run, seconds: float, verbose: bool) -> str:
    took = f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    counts = f"{len(run.verdicts):,} verdicts, {run.points / 1e6:.1f} M results in {took}"
    findings = f"{len(run.findings):,} findings about torch"
    if run.exit_code == 0:
        more = "" if verbose else f"\n{NEXT}"
        return f"[bold green]PASS[/]: {counts}; {findings}{more}"
    state = "" if run.finished else ", [bold red]interrupted[/]"
    failed = f"{len(run.failures)} failed, {len(run.problems)} could not run"
    return f"[bold red]FAIL[/]: {counts}, {failed}{state}; {findings}"


NEXT = "next: gradref check your_kernels.py; gradref show silu; gradref verify -v"
"""What to type after everything has passed."""


def show_worst(console: Console, outcomes: Iterable[Outcome]) -> None:
    """Show the worst errors of ours and of torch's, by order and dtype."""
    run = Run(OURS, {})
    for outcome in outcomes:
        run.add(outcome)
    found = {(x.order, x.dtype): x for x in lines(run.verdicts) if not x.region}
    dtypes, orders = (list(dict.fromkeys(key[i] for key in found)) for i in (1, 0))
    dtypes.sort(key=list(SHORT).index)
    header = ("worst error in ulp, of a sample", *(SHORT[dtype] for dtype in dtypes))
    table = _table(header, header[:1])
    for order in orders:
        of_order = [found.get((order, dtype)) for dtype in dtypes]
        table.add_row(f"{order}: ours", *(ulp(x.ours if x else None) for x in of_order))
        table.add_row(f"{order}: torch", *(ulp(x.theirs if x else None) for x in of_order))
    console.print(table)


# --- somebody's kernels --------------------------------------------------------------------------


How = Literal["in brief", "in whole", "failures", "summary"]
"""What is shown of a check: a screen for each kernel, every verdict, or less."""


def show_kernels(console: Console, run: Run, how: How) -> None:
    """Show what a check has to say."""
    if how == "summary":
        _show_summary(console, run)
    elif how == "in brief":
        _show_kernels_in_brief(console, run)
    else:
        if how == "in whole":
            console.print(VERDICT_LEGEND + "\n")
        _show_sections(console, run.failures if how == "failures" else run.verdicts)
    for problem in run.problems:
        console.print(f"[bold red]could not run[/] {escape(problem)}", highlight=False)
    for pattern in run.unused:
        console.print(f"[bold red]xfails[/]: {escape(pattern)} matches no verdict", highlight=False)
    console.print(_last_line(run), highlight=False)


CAUSES = 2
"""Causes of failures that are shown of a kernel in brief."""


def _show_kernels_in_brief(console: Console, run: Run) -> None:
    """Show a table for each kernel, by quantity and dtype, and what is wrong, failures first."""
    shown = sections(run.verdicts)
    for title, verdicts in sorted(shown, key=lambda one: all(v.passed for v in one[1])):
        failed = [v for v in verdicts if not v.passed]
        groups = by_cause(failed)
        if all(v.status == "unsupported" for v in verdicts):
            for words in unsupported(verdicts):
                console.print(f"{escape(title)}: [yellow]unsupported[/] {escape(words)}")
            continue
        console.print(f"[bold]{escape(title)}[/]: worst error in ulp", highlight=False)
        if declared := verdicts[0].declared:
            console.print(f"  declares {escape('; '.join(declared))}", highlight=False)
        header, rows = matrix(verdicts)
        table = _table(header, header[:1])
        for row in rows:
            cells = [f"[bold red]{escape(c)}[/]" if WRONG in c else escape(c) for c in row]
            table.add_row(*cells)
        console.print(table)
        for together in groups[:CAUSES]:
            too = torch_too(together)
            words = textwrap.shorten(sentences(*together)[0], 150 - len(too), placeholder=" ...")
            console.print(f"[bold red]fail[/] {escape(words + too)}", highlight=False)
        if len(groups) > CAUSES:
            console.print(f"and other causes, {len(groups) - CAUSES}: --verbose")
        for words in let_pass(verdicts):
            console.print(f"[yellow]warning[/] {escape(words)}", highlight=False)
        for words in unsupported(verdicts):
            console.print(f"[yellow]unsupported[/] {escape(words)}", highlight=False)
    if failed := [v for v in run.failures if v.point is not None]:
        worst = max(failed, key=lambda verdict: verdict.used)
        console.print(escape(of_verdict(worst)), highlight=False, soft_wrap=True)


def _show_summary(console: Console, run: Run) -> None:
    """Show a line for each kernel: how many verdicts failed, and the first cause."""
    table = _table(("kernel", "judged", "failed", ""), ("kernel", ""))
    for name, verdicts in by_kernel(run.verdicts):
        failed = [v for v in verdicts if not v.passed]
        judged = sum(v.status != "unsupported" for v in verdicts)
        style = "bold red" if failed else None if judged else "yellow"
        words = failed[0].words[0] if failed else "pass" if judged else "nothing was judged"
        table.add_row(escape(name), f"{judged}", f"{len(failed)}", escape(words), style=style)
    table.columns[-1].no_wrap = False
    console.print(table)


def _show_sections(console: Console, shown: Iterable[Verdict]) -> None:
    for title, verdicts in sections(shown):
        console.print(f"[bold]{escape(title)}[/]", highlight=False)
        if declared := verdicts[0].declared:
            console.print(f"  declares {escape('; '.join(declared))}", highlight=False)
        _show_errors(console, [verdict for verdict in verdicts if verdict.errors is not None])
        _show_conditions(console, verdicts)
        for together in by_cause(verdicts):
            _show_words(console, together)
        for words in let_pass(verdicts):
            line = f"[yellow]warning[/] {escape(words)}"
            console.print(Padding(line, (0, 0, 0, 2)), highlight=False)
        for (note, dtype), quantities in notes(verdicts).items():
            what = f"{', '.join(quantities)} {SHORT[dtype]}"
            line = f"[yellow]recorded[/] {escape(f'{what}: {note}')}"
            console.print(Padding(line, (0, 0, 0, 2)), highlight=False)
        console.print()


def _show_words(console: Console, verdicts: Sequence[Verdict], *, shortened: bool = False) -> None:
    first, *rest = sentences(*verdicts)
    status = verdicts[0].status
    line = f"[{STYLES[status]}]{status}[/] {escape(first)}"
    console.print(Padding(line, (0, 0, 0, 2)), highlight=False)
    for line in rest:
        console.print(Padding(escape(line), (0, 0, 0, 7)), highlight=False)


def _show_errors(console: Console, verdicts: list[Verdict]) -> None:
    table = _table(VERDICT_HEADER, ("quantity", "dtype", "verdict"))
    table.columns[0].no_wrap = False
    for verdict in verdicts:
        *left, status = map(escape, verdict_cells(verdict))
        table.add_row(*left, f"[{STYLES[verdict.status]}]{status}[/]")
    if verdicts:
        console.print(table)


def _show_conditions(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Show the conditions under which a kernel holds, in one line for each dtype."""
    for line in held(verdicts):
        console.print(Padding(f"[green]holds[/] {line}", (0, 0, 0, 2)), highlight=False)


def _last_line(run: Run) -> str:
    count, failed = len(run.judged), len(run.failures)
    about = f"{run.points:,} points; mode {run.settings['mode']}, seed {run.settings['seed']}"
    if run.exit_code == 0:
        return f"[bold green]pass[/]: {count} verdicts on {about}"
    state = "not passed" if run.finished else "interrupted"
    if run.finished and run.exit_code == 3:
        state = "could not run"
    return f"[bold red]{state}[/]: {failed} of {count} verdicts failed, on {about}"
