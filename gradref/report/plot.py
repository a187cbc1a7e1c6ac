"""A picture of one operation: its curves, and where ours and torch's are wrong."""

from __future__ import annotations

from pathlib import Path

from gradref.arrays import reject
from gradref.declare.operation import Operation
from gradref.report.drawing import sheet
from gradref.report.page import Card, Measured

COLUMNS = 2


def plot_operation(record: Operation, path: Path) -> None:
    """Write the charts of the default setting as one SVG: those that the page shows.

    Reject a path that does not end in ``.svg``.
    """
    if path.suffix != ".svg":
        reject("plot", repr(str(path)), "a path that ends in .svg")
    card = Card(record, Measured())
    drawings = [next(iter(card.figures())).drawing]
    drawings += [figure.drawing for figure, _ in zip(card.errors(), range(3), strict=False)]
    path.write_text(sheet(drawings, COLUMNS, record.name) + "\n")
