"""What is declared of an operation, on a terminal."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradref.declare.operation import Domain, Facts, Interval, Operation


def show_declaration(console: Console, record: Operation) -> None:
    """Formulas, facts, and the table of kinks and limits."""
    signature = str(inspect.signature(record.formula, eval_str=True)).replace("typing.", "")
    console.print(f"[bold]{record.name}[/]{escape(signature)}", highlight=False)
    console.print(f"{record.kind}, from {record.module}\n", highlight=False)
    _print_formula(console, record.name, record.formula)
    for function in record.derivatives.values():
        _print_formula(console, function.__name__, inspect.unwrap(function))
    for name in record.domains:
        domain = record.domain(name, record.parameters)
        wants = (domain,) if isinstance(domain, (Domain, Interval)) else domain
        console.print(f"{name}: {', or '.join(one.wants for one in wants)}", highlight=False)
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
    table = Table("x", "", "f", "f'", "f''", box=None)
    for row in limits_and_kinks(facts):
        table.add_row(*row)
    console.print(table)
    for at, kink in facts.kinks.items():
        console.print(f"at {at:g} {record.name} is {kink.claim}", highlight=False)
