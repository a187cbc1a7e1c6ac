"""The tables of docs/conventions.md, from the declarations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docs.tables import replace_between, table
from gradref.declare.operation import Facts, Operation, called
from gradref.declare.registry import every_operation

PATH = Path(__file__).parent / "conventions.md"


def made() -> dict[Path, str]:
    """Return the document with its tables."""
    every = every_operation()
    records = [record for record in every if record.facts is not None]
    text = replace_between(PATH.read_text(), "kinks", kinks(records))
    text = replace_between(text, "limits", limits(records))
    return {PATH: replace_between(text, "differences", differences(every))}


def settings(record: Operation) -> Iterator[tuple[str, Facts]]:
    """Yield every setting as it is called, with its facts."""
    assert record.facts is not None
    for case in record.cases:
        parameters = {**record.parameters, **case}
        yield called(record.name, case), record.facts.at(**parameters)


def kinks(records: list[Operation]) -> list[str]:
    """Return the table of both sides of every kink."""
    rows = []
    for record in records:
        for label, facts in settings(record):
            for at, kink in facts.kinks.items():
                jets = (kink.left, kink.chosen, kink.right)
                cells = [", ".join(f"{value:.6g}" for value in jet) for jet in jets]
                rows.append([f"`{label}`", f"{at:g}", *cells])
    return table(["function", "x", "f, f', f'' from the left", "at x", "from the right"], rows)


def limits(records: list[Operation]) -> list[str]:
    """Return the table of values at infinities."""
    rows = []
    for record in records:
        assert record.facts is not None
        facts = record.facts.at(**record.parameters)
        cells = [
            ", ".join(f"{value:g}" for value in facts.limits[at]) for at in sorted(facts.limits)
        ]
        rows.append([f"`{record.name}`", *cells])
    return table(["function", "f, f', f'' at -inf", "at inf"], rows)


def differences(records: list[Operation]) -> list[str]:
    """Return the table of arguments and defaults that are not torch's."""
    rows = [
        [f"`{record.name}`", _ours(record, name), reason]
        for record in records
        for name, reason in record.differs.items()
    ]
    return table(["function", "ours", "why"], rows)


def _ours(record: Operation, name: str) -> str:
    """Return an argument as it is here."""
    if name in record.parameters:
        default = record.parameters[name]
        return f"`{name}={getattr(default, '__name__', repr(default))}`"
    return f"`{name}`" if name in record.arguments else f"no `{name}`"
