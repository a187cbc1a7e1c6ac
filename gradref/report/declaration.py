"""What is declared of an operation, on a terminal."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradref.contenders.witness import torch_jets
from gradref.declare.operation import Domain, Facts, Interval, Operation
from gradref.packages import packages
from gradref.report.documentation import formulas, in_words
from gradref.report.plain import plain


def _signature(record: Operation) -> str:
    """Return the signature as text: types without modules, a function as a default by its name."""
    signature = str(inspect.signature(record.formula, eval_str=True))
    short = re.sub(r"typing\.|collections\.abc\.|torch\.(?=Tensor)", "", signature)
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", short)


def show_declaration(console: Console, record: Operation) -> None:
    """Show how to import a function, what it is, and what it is where torch may differ."""
    names = [record.name, *(f.__name__ for f in record.derivatives.values())]
    module = record.package if record.package in packages() else record.module
    several = f"from {module} import ({', '.join(names)})"
    line = several if len(several) > 78 else several.replace("(", "").replace(")", "")
    shown = textwrap.fill(line, 78, subsequent_indent="    ")
    console.print(shown, style="green", highlight=False)
    console.print(f"\n[bold]{record.name}[/]{escape(_signature(record))}", highlight=False)
    for role, function in (("value", record.formula), *record.derivatives.items()):
        prime = PRIMES.get(role, role.replace("_", " "))
        if words := in_words(function):
            console.print(f"  {prime}: {escape(words)}", highlight=False)
    for formula in formulas(record.formula):
        console.print(f"\n    {escape(plain(formula))}", style="bold", highlight=False)
    console.print()
    for name in record.domains:
        domain = record.domain(name, record.parameters)
        wants = (domain,) if isinstance(domain, (Domain, Interval)) else domain
        console.print(f"{name}: {', or '.join(one.wants for one in wants)}", highlight=False)
    for name, reason in record.differs.items():
        console.print(f"differs from torch in {name}: {reason}", highlight=False)
    if record.facts is not None:
        _show_facts(console, record)


PRIMES = {"value": "f", "derivative": "f′", "second_derivative": "f″"}


def facts_in_words(facts: Facts) -> dict[str, str]:
    """What is declared besides limits and kinks."""
    low, high = facts.codomain
    return {
        "codomain": f"from {low:g} to {high:g}",
        "symmetry": {"odd": "odd about (0, f(0))", "even": "even", None: "none"}[facts.symmetry],
        "monotone": "increasing" if facts.monotone else "no",
        "convex": "yes" if facts.convex else "no",
        "Lipschitz constant": f"{facts.lipschitz:g}",
    }


def limits_and_kinks(facts: Facts) -> list[tuple[str, ...]]:
    """x, from which side, and f, f′ and f″ there."""
    found = [(at, "limit", jet) for at, jet in facts.limits.items()]
    for at, kink in facts.kinks.items():
        found += [(at, side, getattr(kink, side)) for side in ("left", "chosen", "right")]
    return [(f"{at:g}", side, *(f"{value:g}" for value in jet)) for at, side, jet in found]


def _show_facts(console: Console, record: Operation) -> None:
    assert record.facts is not None  # the caller has looked
    facts = record.facts.at(**record.parameters)
    words = (f"{name}: {value}" for name, value in facts_in_words(facts).items())
    console.print("; ".join(words) + "\n", highlight=False)
    table = Table("x", "", "f", "f′", "f″", "torch: f", "f′", "f″", box=None)
    theirs = torch_at(record, [*facts.limits, *facts.kinks])
    for at, side, *cells in limits_and_kinks(facts):
        shown = theirs.get(at, ("", "", "")) if side in ("limit", "chosen") else ("", "", "")
        table.add_row(at, side, *cells, *shown)
    console.print(table)
    for at, kink in facts.kinks.items():
        console.print(f"at {at:g} {record.name} is {kink.claim}", highlight=False)


def torch_at(record: Operation, points: Sequence[float]) -> dict[str, tuple[str, ...]]:
    """Return torch's f, f′ and f″ at some points, by the point; ``-`` where it has none."""
    x = torch.tensor(list(points) * 8, dtype=torch.float64)  # a vector, as torch treats a few apart
    found = torch_jets(record, x, record.parameters)
    return {
        f"{at:g}": tuple("-" if jet is None else f"{jet[i]:g}" for jet in found)
        for i, at in enumerate(points)
    }
