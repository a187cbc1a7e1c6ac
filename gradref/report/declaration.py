"""What is declared of an operation, on a terminal."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradref.operation import Domain, Number, Operation


def show_declaration(console: Console, record: Operation) -> None:
    """Formulas, facts, and the table of kinks and limits."""
    signature = str(inspect.signature(record.formula, eval_str=True)).replace("typing.", "")
    console.print(f"[bold]{record.name}[/]{escape(signature)}", highlight=False)
    console.print(f"{record.kind}, from {record.module}\n", highlight=False)
    _print_formula(console, record.name, record.formula)
    for function in record.derivatives.values():
        _print_formula(console, function.__name__, inspect.unwrap(function))
    for name, domain in record.domains.items():
        wants = domain.wants if isinstance(domain, (Domain, Number)) else _wants(domain)
        console.print(f"{name}: {wants}", highlight=False)
    for name, reason in record.differs.items():
        console.print(f"differs from torch in {name}: {reason}", highlight=False)
    if record.facts is not None:
        _show_facts(console, record)


def _print_formula(console: Console, name: str, formula: Any) -> None:
    """The docstring without its examples, and the lines of the body."""
    documentation = inspect.cleandoc(formula.__doc__ or "").split(">>>")[0].rstrip()
    source = inspect.getsource(formula)
    body = source[source.rindex('"""') + 3 :].strip("\n")
    console.print(f"[bold cyan]{name}[/]")
    console.print(documentation, markup=False, highlight=False, soft_wrap=True)
    console.print(body, markup=False, style="green", highlight=False, soft_wrap=True)
    console.print()


def _wants(domain: Any) -> str:
    if isinstance(domain, tuple):
        return ", or ".join(one.wants for one in domain)
    return "depends on the other arguments"


def _show_facts(console: Console, record: Operation) -> None:
    assert record.facts is not None  # the caller has looked
    facts = record.facts.at(**record.parameters)
    grows = "increasing" if facts.monotone else "not monotone"
    bends = "convex" if facts.convex else "not convex"
    symmetry = {"odd": "odd about (0, f(0))", "even": "even", None: "no symmetry"}[facts.symmetry]
    console.print(
        f"codomain {facts.codomain}, {symmetry}, {grows}, {bends},"
        f" Lipschitz constant {facts.lipschitz:g}\n",
        highlight=False,
    )
    table = Table("x", "", "f", "f'", "f''", box=None)
    for at, jet in facts.limits.items():
        table.add_row(f"{at:g}", "limit", *(f"{value:g}" for value in jet))
    for at, kink in facts.kinks.items():
        for side in ("left", "chosen", "right"):
            table.add_row(f"{at:g}", side, *(f"{value:g}" for value in getattr(kink, side)))
    console.print(table)
    for at, kink in facts.kinks.items():
        console.print(f"at {at:g} {record.name} is {kink.claim}", highlight=False)
