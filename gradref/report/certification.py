"""Sweeps on a terminal: a progress bar with the time left, a line for each certificate."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import Progress, TaskID

from gradref.declare.operation import called
from gradref.report.terminal import progress
from gradref.sweep.certificate import Certificate
from gradref.sweep.sweep import Sweep, rank_and_world


def run_all(sweeps: Sequence[Sweep], folder: Path) -> int:
    """Certify one quantity after the other; return the exit status."""
    with _processes():
        rank, world = rank_and_world()
        console = Console(quiet=rank != 0)
        passed = True
        with progress(console, len(sweeps), "certifying") as bar:
            for sweep in sweeps:
                task = bar.add_task(f"{_label(sweep):44.44}", total=None)
                certificate, start = sweep.certified(folder), time.perf_counter()
                speed = "already certified"
                if certificate is None:
                    certificate = sweep.run(folder, functools.partial(_advance, bar, task))
                    rate = certificate.total.inputs / (time.perf_counter() - start) / 1e6
                    speed = f"{rate:.1f} M inputs/s"
                bar.remove_task(task)
                bar.advance(bar.task_ids[0])
                console.print(_line(sweep, certificate, speed), highlight=False)
                passed &= certificate.passed
        ranks = f" by {world} processes" if world > 1 else ""
        console.print(
            f"[bold green]pass[/]: {len(sweeps)} certificates{ranks} in {folder}"
            if passed
            else f"[bold red]not passed[/]: {len(sweeps)} certificates{ranks} in {folder}",
            highlight=False,
        )
    return 0 if passed else 1


def _advance(bar: Progress, task: TaskID, done: int, of: int) -> None:
    bar.update(task, completed=done, total=of)


def _label(sweep: Sweep) -> str:
    name = called(sweep.record.name, sweep.case)
    return f"{name} {sweep.quantity} {sweep.dtype} {sweep.device}"


def _line(sweep: Sweep, certificate: Certificate, speed: str) -> str:
    total = certificate.total
    verdict = "[green]pass[/]" if certificate.passed else "[bold red]FAIL[/]"
    rounding = f"{total.incorrectly_rounded:,} of {total.inputs:,} not correctly rounded"
    worst = ", ".join(f"{region.tally.worst:.4f}" for region in certificate.regions.values())
    return (
        f"{verdict} [bold]{_label(sweep)}[/]\n"
        f"     {certificate.grade}; worst {worst} ulp; {rounding}; {speed}"
    )


@contextmanager
def _processes() -> Iterator[None]:
    """Join the process group that torchrun has prepared, if it has."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
