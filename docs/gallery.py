"""Write ``docs/gallery.md``: every operation with its formula and its plots, from the declarations.

python docs/gallery.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradref.declare.operation import operations
from gradref.report import documentation
from gradref.report.page import Card, Figure, Measured

FOLDER = Path(__file__).parent

HEAD = """\
# Gallery

Written by `docs/gallery.py` from the declarations. Left the function with its derivatives; the
others show, for elementwise functions, the worst error in ulp over all of float32, ours and torch's
on a CPU: sampled, against the formula in float64. Equal lengths of the line hold equally many
numbers. `gradref report` writes a page with all of this, and with the verdicts.
"""


CARDS = [
    Card(record, Measured()) for record in sorted(operations(), key=lambda r: (r.package, r.name))
]


def figures(card: Card) -> Iterator[tuple[str, Figure]]:
    """The figures of the default setting, with the names of their files."""
    yield card.name, next(card.figures(alone=True))
    for order, figure in zip(range(3), card.errors(alone=True), strict=False):
        yield f"{card.name}.error-{order}", figure


def document() -> str:
    """The text, without the pictures."""
    lines = [HEAD]
    for card in CARDS:
        lines += [f"## {card.name}", "", card.summary, ""]
        for formula in documentation.formulas(card.record.formula):
            lines += ["```math", formula, "```", ""]
        for name, figure in figures(card):
            lines.append(f'<img src="gallery/{name}.svg" alt="{figure.caption}" width="49%">')
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """The text and the pictures."""
    (FOLDER / "gallery.md").write_text(document())
    (FOLDER / "gallery").mkdir(exist_ok=True)
    for card in CARDS:
        for name, figure in figures(card):
            (FOLDER / "gallery" / f"{name}.svg").write_text(figure.drawing + "\n")


if __name__ == "__main__":
    main()
