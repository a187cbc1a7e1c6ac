"""docs/gallery.md: every operation with its formula and its plots, from the declarations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradref.declare.registry import every_operation
from gradref.report import documentation
from gradref.report.page import Card, Figure, Measured

FOLDER = Path(__file__).parent

HEAD = """\
# Gallery

Written by `docs/build.py` from the declarations. Left the function with its derivatives; the
others show, for elementwise functions, the worst error in ulp over all of float32, ours and torch's
on a CPU: sampled, against the formula in float64. Equal lengths of the line hold equally many
numbers. `gradref report` writes a page with all of this, and with the verdicts.
"""


def cards() -> list[Card]:
    """Return a card for each operation."""
    return [
        Card(r, Measured()) for r in sorted(every_operation(), key=lambda r: (r.package, r.name))
    ]


def figures(card: Card) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of the default setting, with the names of their files."""
    yield card.name, next(card.figures(alone=True))
    for order, figure in zip(range(3), card.errors(alone=True), strict=False):
        yield f"{card.name}.error-{order}", figure


def document() -> str:
    """Return the text, without the pictures."""
    lines = [HEAD]
    for card in cards():
        lines += [f"## {card.name}", "", card.summary, ""]
        for formula in documentation.formulas(card.record.formula):
            lines += ["```math", formula, "```", ""]
        for name, figure in figures(card):
            lines.append(f'<img src="gallery/{name}.svg" alt="{figure.caption}" width="49%">')
        lines.append("")
    return "\n".join(lines)


def made() -> dict[Path, str]:
    """Return the text and the pictures."""
    drawn = {name: figure for card in cards() for name, figure in figures(card)}
    pictures = {
        FOLDER / "gallery" / f"{name}.svg": f"{figure.drawing}\n" for name, figure in drawn.items()
    }
    return {FOLDER / "gallery.md": document(), **pictures}
