"""The verdicts on kernels: on a terminal, and in files."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from gradref.check.options import Options
from gradref.check.run import SHORT, Checked, check_subject
from gradref.check.verdict import Status, Verdict
from gradref.environment import environment
from gradref.measure.ulp import HISTOGRAM_EDGES, Errors
from gradref.report.summary import ORDERS
from gradref.report.terminal import progress
from gradref.report.text import ulp

HEADER = ("quantity", "dtype", "points", "worst", "median", "ours", "torch", "used", "verdict")

SHORT_OF = {dtype: short for short, dtype in SHORT.items()}

STYLES: dict[Status, str] = {
    "pass": "green",
    "fail": "bold red",
    "unsupported": "yellow",
    "expected failure": "yellow",
    "unexpected pass": "bold red",
}


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A line of the table of verdicts."""

    def worst(errors: Errors | None) -> str:
        return "-" if errors is None else ulp(errors.worst)

    own = verdict.errors
    return (
        _in_primes(verdict.quantity),
        SHORT_OF.get(verdict.dtype, verdict.dtype),
        "-" if own is None else f"{own.count:,}",
        worst(own),
        "-" if own is None else ulp(own.median),
        worst(verdict.ours),
        worst(verdict.torch),
        "-" if own is None else f"{verdict.used:.2f}" if verdict.used < 10 else ">10",
        verdict.status,
    )


def _in_primes(quantity: str) -> str:
    """Values and derivatives as f, f' and f''; other quantities as they are called."""
    for order, name in zip(ORDERS, ("value", "derivative", "second_derivative"), strict=True):
        if quantity.split(" ")[0] == name:
            return quantity.replace(name, order, 1)
    return quantity


def sentences(verdict: Verdict) -> list[str]:
    """What is probably wrong, and the worst input to see it at."""
    dtype = SHORT_OF.get(verdict.dtype, verdict.dtype)
    lines = [f"{_in_primes(verdict.quantity)} {dtype}: {'; '.join(verdict.words)}"]
    if verdict.status == "fail" and verdict.at is not None:
        at = ", ".join(f"{name} = {value}" for name, value in verdict.at.items())
        where = f" ({verdict.where})" if verdict.where else ""
        digits = 17 if verdict.dtype == "float64" else 9
        numbers = f"got {verdict.got:.{digits}g}, truth {verdict.truth:.{digits}g}"
        lines.append(f"{numbers}{where} at {textwrap.shorten(at, 240, placeholder=' ...')}")
    return lines


def sections(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """The verdicts by kernel, setting and device."""

    def title(verdict: Verdict) -> str:
        named = "" if verdict.label.startswith(verdict.kernel) else f"{verdict.kernel}: "
        return f"{named}{verdict.label} on {verdict.device}"

    return [(name, list(group)) for name, group in itertools.groupby(verdicts, key=title)]


def follow(
    console: Console,
    subject: str,
    operation: str | None,
    dtypes: list[str],
    options: Options,
    xfails: Path | None,
) -> Checked:
    """The check, behind a progress bar that names what is judged."""
    with progress(console, 1, "starting") as bar:
        task = bar.task_ids[0]

        def on_case(label: str, of: int) -> None:
            bar.update(task, description=f"{label:48.48}", total=of)
            bar.advance(task)

        return check_subject(subject, operation, dtypes, options, xfails, on_case)


def show(console: Console, checked: Checked) -> None:
    """Everything that a check has to say."""
    console.print("Errors in ulp: the worst and the median of the kernel, the worst of ours and of")
    console.print(
        "torch at the same inputs; used: the share of the bound that the kernel uses up\n"
    )
    for title, verdicts in sections(checked.verdicts):
        console.print(f"[bold]{escape(title)}[/]", highlight=False)
        _show_errors(console, [verdict for verdict in verdicts if verdict.errors is not None])
        _show_conditions(console, verdicts)
        for verdict in verdicts:
            if verdict.words:
                first, *rest = sentences(verdict)
                style = STYLES[verdict.status]
                console.print(f"  [{style}]{verdict.status}[/] {escape(first)}", highlight=False)
                for line in rest:
                    console.print(Padding(escape(line), (0, 0, 0, 7)), highlight=False)
        console.print()
    for pattern in checked.unused:
        console.print(f"[bold red]xfails[/]: {escape(pattern)} matches no verdict", highlight=False)
    console.print(_last_line(checked), highlight=False)


def _show_errors(console: Console, verdicts: list[Verdict]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for header in HEADER:
        right = header in ("points", "worst", "median", "ours", "torch", "used")
        fold = header == "quantity"
        table.add_column(header, justify="right" if right else "left", no_wrap=not fold)
    for verdict in verdicts:
        *left, status = map(escape, cells(verdict))
        table.add_row(*left, f"[{STYLES[verdict.status]}]{status}[/]")
    if verdicts:
        console.print(table)


def _show_conditions(console: Console, verdicts: Iterable[Verdict]) -> None:
    """The conditions under which a kernel holds, in one line for each dtype."""
    held: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.errors is None and verdict.status == "pass":
            held.setdefault(verdict.dtype, []).append(verdict.quantity)
    for dtype, names in held.items():
        line = f"  [green]holds[/] {SHORT_OF[dtype]}: {', '.join(names)}"
        console.print(line, highlight=False)


def _last_line(checked: Checked) -> str:
    points = sum(v.errors.count for v in checked.verdicts if v.errors is not None)
    unsupported = len(checked.verdicts) - len(checked.judged)
    counts = f"{len(checked.judged)} verdicts on {points:,} points; {unsupported} unsupported"
    mode = f"mode {checked.options.mode}, seed {checked.options.seed}"
    if checked.exit_code == 0:
        return f"[bold green]pass[/]: {counts}; {mode}"
    if checked.exit_code == 3:
        return f"[bold red]could not run[/]: {counts}; {mode}"
    return f"[bold red]not passed[/]: {counts}, {len(checked.failures)} failed; {mode}"


# --- files ---------------------------------------------------------------------------------------


def write_json(checked: Checked, path: Path) -> None:
    """Every verdict with its histogram."""
    path.write_text(json.dumps(checked.as_dict(), indent=1, ensure_ascii=False) + "\n")


def write_junit(checked: Checked, path: Path) -> None:
    """A test case for every verdict."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"gradref check {checked.subject}",
        tests=str(len(checked.verdicts)),
        failures=str(len(checked.failures)),
        skipped=str(len(checked.verdicts) - len(checked.judged)),
    )
    for verdict in checked.verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname=verdict.kernel, name=verdict.name
        )
        if verdict.status == "unsupported":
            ElementTree.SubElement(case, "skipped", message="; ".join(verdict.words))
        elif not verdict.passed:
            ElementTree.SubElement(case, "failure", message="; ".join(sentences(verdict)))
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def write_markdown(checked: Checked, path: Path) -> None:
    """The tables of verdicts with what is probably wrong."""
    text = [f"# {checked.subject}", "", "Errors in ulp.", ""]
    for title, verdicts in sections(checked.verdicts):
        text += [f"## {title}", "", _row(HEADER), _row(["---"] * len(HEADER))]
        text += [_row(cells(verdict)) for verdict in verdicts]
        text += ["", *(f"- {'; '.join(sentences(v))}" for v in verdicts if v.words), ""]
    path.write_text("\n".join(text).rstrip() + "\n")


def _row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def write_html(checked: Checked, path: Path) -> None:
    """One page that needs nothing else."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(loader=PackageLoader("gradref.report"), autoescape=True)
    page = templates.get_template("checked.html").render(
        checked=checked,
        sections=sections(checked.verdicts),
        header=HEADER,
        cells=cells,
        sentences=sentences,
        edges=HISTOGRAM_EDGES,
        environment=environment(),
    )
    path.write_text(page)
