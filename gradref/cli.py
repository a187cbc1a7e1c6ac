"""The command line: ``gradref verify``, ``check``, ``certify``, ``bench``, ``report`` and others.

Only the commands that need torch import it, so that ``gradref --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from gradref.runs.choices import GateName, Kinks
from gradref.runs.choices import Mode as CheckMode

COULD_NOT_RUN = 3

app = typer.Typer(
    name="gradref",
    help="Reference activations and losses with their derivatives, and a judge of kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"gradref {metadata.version('gradref')}")
        raise typer.Exit


def _say_what_is_hidden() -> None:
    """Find packages in the working directory too, and say which of ours another one hides."""
    from gradref.packages import hidden

    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.append(here)
    for name, place in hidden():
        shown = os.path.relpath(place)
        typer.echo(f"{name} is {shown}, not gradref's, which is gradref.{name}", err=True)


@app.callback()
def _options_of_all(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    _say_what_is_hidden()


class Mode(StrEnum):
    """How many points are judged."""

    quick = "quick"
    full = "full"


Names = Annotated[
    list[str] | None, typer.Argument(help="Operations, or packages such as losses; by default all.")
]


def _in_a_folder(path: Path | None) -> Path | None:
    """Reject a file in a missing folder: now, not after minutes of work."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is not a folder")
    return path


PathOption = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, writable=True, callback=_in_a_folder, help="Write the verdicts here."
    ),
]


DTYPES_HELP = "Comma-separated: f64, f32, f16, bf16, or torch's names; by default"

DeviceOption = Annotated[
    list[str] | None, typer.Option(help="cpu, cuda, ...; by default cpu, and cuda if present.")
]
OrderOption = Annotated[
    list[int] | None,
    typer.Option(min=0, max=2, help="0 values, 1 first, 2 second derivatives."),
]


ClaimOption = Annotated[
    str | None,
    typer.Option(
        help="Largest error allowed, as in 2ulp; by default 1ulp in 16-bit dtypes, else 4ulp."
    ),
]


@app.command()
def verify(
    operation: Names = None,
    device: DeviceOption = None,
    dtype: Annotated[list[str] | None, typer.Option(help=f"{DTYPES_HELP} all four.")] = None,
    order: OrderOption = None,
    mode: Annotated[Mode, typer.Option(help="How many points to judge.")] = Mode.quick,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All verdicts.")] = False,
    json: PathOption = None,
    junit: PathOption = None,
    markdown: PathOption = None,
) -> None:
    """Judge gradref's and torch's values and derivatives against the truth, in ulp.

    Exit status: 0 pass, 1 fail, 2 usage, 3 could not run.
    """
    import time

    from rich.console import Console

    from gradref.judge.verdict import DTYPES, OURS
    from gradref.report import files, terminal
    from gradref.runs.run import Run
    from gradref.runs.verify import jobs, verify_all

    console, start = Console(), time.perf_counter()
    records = _with_batches(operation)
    devices, skipped = _devices(device)
    chosen = _dtypes(dtype or DTYPES)
    orders = tuple(sorted(set(order or (0, 1, 2))))
    selected = jobs(records, chosen, devices, mode.value, seed, orders)
    run = Run(OURS, {"mode": mode.value, "seed": seed, "orders": orders}, skipped)
    try:
        terminal.follow_ours(console, len(selected), verify_all(selected), run)
        run.finished = True
    except KeyboardInterrupt:
        console.print("[yellow]interrupted: what follows is the finished part[/]")
    finally:
        run.sort()
        files.write(run, json=json, junit=junit, markdown=markdown)
    terminal.show_ours(console, run, time.perf_counter() - start, verbose)
    raise typer.Exit(run.exit_code)


@app.command()
def certify(
    operation: Names = None,
    device: DeviceOption = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help=f"{DTYPES_HELP} float32, float16 and bfloat16.")
    ] = None,
    order: OrderOption = None,
    module: Annotated[
        str | None, typer.Option(help="Certify these kernels, named as for gradref check.")
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Certify our fused kernels, which use float32.")
    ] = False,
    claim: ClaimOption = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write to, a file per operation.")
    ] = Path("certificates"),
) -> None:
    """Judge elementwise functions at every input of a dtype, and write certificates.

    All 2^32 inputs of float32, all 65,536 of a 16-bit format. An interrupted sweep resumes where
    it stopped; under torchrun the processes share the inputs.
    Exit status: 0 pass, 1 fail, 2 usage, 3 could not run.
    """
    chosen = _dtypes(dtype or ["f32", "f16", "bf16"])
    if "float64" in chosen:
        raise typer.BadParameter("float64 has 2^64 inputs; gradref verify samples them")
    devices, _ = _devices(device)
    out.mkdir(parents=True, exist_ok=True)
    options = _options(claim)
    if module is not None and native:
        raise typer.BadParameter("--native is ours: leave --module out")
    if module is not None:
        raise typer.Exit(_certify_kernels(module, operation, chosen, devices, order, options, out))
    if native:
        import torch

        from gradref.environment import has_compiler
        from gradref.sweep.native import native_sweeps

        if missing := [device for device in devices if not has_compiler(device)]:
            _give_up(f"--native on {missing[0]} needs a C++ compiler: c++, or the one in CXX")
        gate = options.held_to()
        claims = {dtype: gate.claims[getattr(torch, dtype)] for dtype in chosen}
        selected = native_sweeps(_operations(operation), claims, devices)
    else:
        from gradref.sweep.sweep import sweeps

        selected = sweeps(_operations(operation), chosen, devices)
    raise typer.Exit(_certified(selected, order, out))


def _certified(selected: Sequence[Any], orders: list[int] | None, out: Path) -> int:
    """Certify the chosen orders and show it; return the exit status."""
    chosen = [sweep for sweep in selected if orders is None or sweep.order in orders]
    if not chosen:
        raise typer.BadParameter("nothing elementwise among the operations")
    return certified(chosen, out)


def certified(sweeps: Sequence[Any], folder: Path) -> int:
    """Certify some quantities behind a progress bar; return the exit status."""
    from rich.console import Console

    from gradref.report import certification
    from gradref.runs.certify import certify_all, processes

    with processes() as (rank, world):
        console = Console(quiet=rank != 0)
        work = partial(certify_all, sweeps, folder)
        passed = certification.follow(console, len(sweeps), work)
        line = certification.closing_line(passed, len(sweeps), world, folder)
        console.print(line, highlight=False)
    return 0 if passed else 1


def _options(claim: str | None) -> Any:
    from gradref.runs.check import ulp_of
    from gradref.runs.options import Options

    try:
        return Options(claim=None if claim is None else ulp_of(claim))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _certify_kernels(
    module: str,
    names: list[str] | None,
    dtypes: list[str],
    devices: list[str],
    orders: list[int] | None,
    options: Any,
    out: Path,
) -> int:
    """Certify the elementwise kernels of a module in a process of their own; return the status."""
    from gradref.contenders.exhaustive import sweeps
    from gradref.contenders.sandbox import Sandbox
    from gradref.runs.check import cases

    with Sandbox(module, None) as runner:
        try:
            kernels = runner.kernels
        except ImportError as error:
            raise typer.BadParameter(str(error)) from None
        kernels = [k for k in kernels if not names or {k.name, k.operation} & set(names)]
        selected = [
            sweep
            for device in devices
            for kernel, case in cases(kernels, dtypes, device)
            for sweep in sweeps(kernel, case, runner, options.held_to())
        ]
        return _certified(selected, orders, out)


@app.command()
def check(
    subject: Annotated[
        str,
        typer.Argument(help="The kernels: file.py, module, module:attribute or namespace::op."),
    ],
    op: Annotated[
        str | None, typer.Option(help="Only this operation; of module:attribute, what it computes.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help=f"{DTYPES_HELP} all four.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    mode: Annotated[
        CheckMode,
        typer.Option(
            help="link: whether it runs; full: large sizes; exhaustive: every float32 input too."
        ),
    ] = "quick",
    claim: ClaimOption = None,
    kinks: Annotated[
        Kinks, typer.Option(help="Accept torch's choice, or all of the subdifferential.")
    ] = "torch",
    gate: Annotated[
        GateName,
        typer.Option(
            help="standard: beyond the normal range, at inf, NaN and kinks fail only what is"
            " worse than torch; torch: so everywhere; strict: nowhere."
        ),
    ] = "standard",
    within: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW:HIGH", help="Judge only arguments in a range."),
    ] = None,
    xfails: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Names of verdicts that fail, a line each; * is any text.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show a line for each kernel.")
    ] = False,
    failures: Annotated[
        bool, typer.Option("--failures", help="Show only what fails, and why.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All verdicts.")] = False,
    json: PathOption = None,
    junit: PathOption = None,
    markdown: PathOption = None,
    html: PathOption = None,
) -> None:
    """Judge your kernels: values and gradients against the truth, and what they do to memory.

    They run in a process of their own: a crash or a hang is a verdict.
    Exit status: 0 pass, 1 fail, 2 usage, 3 could not run.
    """
    from gradref.contenders.sandbox import Sandbox

    sandbox = Sandbox(subject, op)
    sandbox.prepare()  # it imports torch and the kernels while this process imports torch

    from rich.console import Console

    from gradref.judge.verdict import DTYPES
    from gradref.report import files, terminal
    from gradref.runs.check import check_subject, range_of, ulp_of
    from gradref.runs.options import Options

    console, chosen = Console(), _dtypes(dtype or DTYPES)
    _devices([device])
    try:
        bound = None if claim is None else ulp_of(claim)
        limits = None if within is None else range_of(within)
        options = Options(mode, seed, bound, kinks, gate, device, range=limits)
        with terminal.progress(console, 1, "starting") as bar:
            task = bar.task_ids[0]

            def on_case(label: str, of: int) -> None:
                bar.update(task, description=f"{label:48.48}", total=of)
                bar.advance(task)

            run = check_subject(subject, op, chosen, options, xfails, on_case, sandbox)
    except (ValueError, ImportError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    files.write(run, json=json, junit=junit, markdown=markdown, html=html)
    how: terminal.How = "in whole" if verbose else "in brief"
    terminal.show_kernels(console, run, "summary" if summary else "failures" if failures else how)
    raise typer.Exit(run.exit_code)


@app.command()
def bench(
    operation: Names = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[list[str] | None, typer.Option(help=f"{DTYPES_HELP} float32.")] = None,
    size: Annotated[
        list[int] | None, typer.Option(min=16, help="Elements; by default to fit L2, L3, DRAM.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds to time.")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch, on a CPU.")] = None,
    peers: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with peers() to time too."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, callback=_in_a_folder, help="Append the raw results here."),
    ] = None,
) -> None:
    """Time fused kernels against autograd, compiled autograd and the bound set by memory traffic.

    Exit status: 0 measured, 1 results that do not agree, 2 usage.
    """
    import torch
    from rich.console import Console

    from gradref.bench.results import SIZES, run_all
    from gradref.bench.subjects import WrongResultError, subjects
    from gradref.contenders.load import import_file
    from gradref.report import benchmarked

    console, records = Console(), _operations(operation)
    _devices([device])
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = _dtypes(dtype or ["f32"])
    others = None if peers is None else import_file(peers).peers
    selected = list(subjects(records, chosen, device, size or list(SIZES.values()), others))
    if not selected:
        raise typer.BadParameter("nothing that is fused, and that torch has too")
    try:
        results = benchmarked.follow(
            console, len(selected), partial(run_all, selected, rounds, out)
        )
    except WrongResultError as problem:
        typer.echo(f"gradref: {problem}", err=True)
        raise typer.Exit(1) from None
    benchmarked.show(console, results, out)


def _files(of: str) -> Any:
    return typer.Option(exists=True, dir_okay=False, help=f"JSON of {of}.")


@app.command()
def report(
    operation: Names = None,
    verdicts: Annotated[list[Path] | None, _files("gradref verify")] = None,
    checked: Annotated[list[Path] | None, _files("gradref check, of anybody's kernels")] = None,
    certificates: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Folder written by gradref certify."),
    ] = None,
    benchmarks: Annotated[list[Path] | None, _files("gradref bench")] = None,
    out: Annotated[
        Path, typer.Option(dir_okay=False, callback=_in_a_folder, help="Write the page here.")
    ] = Path("report.html"),
) -> None:
    """Write one HTML page: formulas, facts, plots, verdicts, findings, speed.

    The page needs no network. What no file is given for is shown as not measured.
    Exit status: 0 written, 2 usage.
    """
    from gradref.report.page import Measured, write_page

    records = _with_batches(operation)
    files = (verdicts or (), checked or (), certificates or (), benchmarks or ())
    try:
        measured = Measured.read(*files)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    write_page(records, measured, out)
    typer.echo(f"{len(records)} operations in {out}")


@app.command("list")
def list_operations() -> None:
    """List the operations of every package, with their parameters."""
    from rich.console import Console
    from rich.table import Table

    console, records = Console(), _with_batches(None)
    for package in dict.fromkeys(record.module.split(".")[0] for record in records):
        table = Table(
            title=f"[bold]{package}[/]", title_justify="left", box=None, show_header=False
        )
        for record in records:
            if record.module.startswith(f"{package}."):
                table.add_row(record.name, record.kind, ", ".join(record.parameters))
        console.print(table)


@app.command()
def show(
    operation: Annotated[str, typer.Argument(help="The name of an operation.")],
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw f, f', f'' and their errors, as SVG.")
    ] = None,
) -> None:
    """Show how to import an operation, what it is, beside torch at its kinks, and its errors."""
    from rich.console import Console

    from gradref.judge.verdict import DTYPES
    from gradref.report import terminal
    from gradref.report.declaration import show_declaration
    from gradref.runs.verify import jobs, verify_all

    records = _operations([operation])
    if len(records) != 1:
        raise typer.BadParameter(f"{operation} is a package; name one operation")
    (record,) = records
    console = Console()
    show_declaration(console, record)
    selected = jobs([record], DTYPES, ["cpu"], "smoke", 0, (0, 1, 2))[:1]
    terminal.show_worst(console, verify_all(selected))
    if plot is not None:
        from gradref.report.plot import plot_operation

        try:
            plot_operation(record, plot)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        typer.echo(f"plotted to {plot}")


def _dtypes(texts: Sequence[str]) -> list[str]:
    from gradref.runs.choices import dtypes_of

    try:
        return dtypes_of(*texts)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _operations(names: list[str] | None) -> list[Any]:
    from gradref.declare.registry import operations

    try:
        return operations(*(names or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _with_batches(names: list[str] | None) -> list[Any]:
    """Return the operations that are named, or all with the losses of a batch."""
    from gradref.declare.registry import every_operation

    return _operations(names) if names else every_operation()


def _devices(wanted: list[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the devices to judge on, and why one is skipped; exit if a wanted one is missing."""
    import torch

    if wanted is None:
        if torch.cuda.is_available():
            return ["cpu", "cuda"], {}
        return ["cpu"], {"cuda": "torch sees no CUDA device"}
    for name in wanted:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            _give_up(f"device {name!r}: {str(error).splitlines()[0]}")
    return wanted, {}


def _give_up(reason: str) -> None:
    typer.echo(f"gradref: could not run: {reason}", err=True)
    raise typer.Exit(COULD_NOT_RUN)


def main() -> None:
    """Run the console script; exit with ``COULD_NOT_RUN`` on an error that nobody foresaw."""
    try:
        app()
    except Exception as error:
        print(f"gradref: could not run: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
