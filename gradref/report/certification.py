"""Sweeps on a terminal: a progress bar with the time left, a line for each certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from gradref.declare.operation import called
from gradref.report.terminal import progress
from gradref.runs.certify import Certified, OnChunk
from gradref.sweep.sweep import Sweep


def follow(console: Console, total: int, certify: Callable[[OnChunk], Iterable[Certified]]) -> bool:
    """Show sweeps while they run; return whether every certificate passed."""
    passed = True
    with progress(console, total, "certifying") as bar:
        whole, part = bar.task_ids[0], bar.add_task("", total=None)

        def on_chunk(sweep: Sweep, done: int, of: int) -> None:
            bar.update(part, description=f"{_label(sweep):44.44}", completed=done, total=of)

        for certified in certify(on_chunk):
            bar.advance(whole)
            bar.reset(part, total=None)
            console.print(_line(certified), highlight=False)
            passed &= certified.certificate.passed
    return passed


def closing_line(passed: bool, total: int, processes: int, folder: Path) -> str:
    """Return how many certificates were made, by how many processes, and where they are."""
    verdict = "[bold green]pass[/]" if passed else "[bold red]not passed[/]"
    ranks = f" by {processes} processes" if processes > 1 else ""
    return f"{verdict}: {total} certificates{ranks} in {folder}"


def _label(sweep: Sweep) -> str:
    name = called(sweep.record.name, sweep.case)
    return f"{name} {sweep.quantity} {sweep.dtype} {sweep.device}"


def _line(certified: Certified) -> str:
    certificate, speed = certified.certificate, certified.inputs_per_second
    total = certificate.total
    verdict = "[green]pass[/]" if certificate.passed else "[bold red]FAIL[/]"
    rounding = f"{total.incorrectly_rounded:,} of {total.inputs:,} not correctly rounded"
    worst = ", ".join(f"{region.tally.worst:.4f}" for region in certificate.regions.values())
    rate = "already certified" if speed is None else f"{speed / 1e6:.1f} M inputs/s"
    return (
        f"{verdict} [bold]{_label(certified.sweep)}[/]\n"
        f"     {certificate.grade}; worst {worst} ulp; {rounding}; {rate}"
    )
