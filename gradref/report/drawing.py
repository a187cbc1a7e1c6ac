"""Charts as SVG that follows the page: light and dark, as wide as there is room, read aloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from gradref.truth.jets import Floats

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 28, 26

STYLE = """\
.chart text { font: 12px system-ui, sans-serif; fill: currentColor; white-space: pre; }
.chart .grid { stroke: currentColor; stroke-opacity: .16; }
.chart .line { fill: none; stroke: var(--series); stroke-width: 2; stroke-linejoin: round; }
.chart circle, .chart tspan { fill: var(--series); }
.chart tspan { font-weight: 600; }
.chart .series-0 { --series: var(--series-0); } .chart .series-1 { --series: var(--series-1); }
.chart .series-2 { --series: var(--series-2); }
"""
"""How charts look, in the colours of their page."""

COLOURS = """\
svg { color: #222; --series-0: #1a5fb4; --series-1: #b83c00; --series-2: #1f7235; }
@media (prefers-color-scheme: dark) {
  svg { color: #ddd; --series-0: #78aeed; --series-1: #ffa348; --series-2: #6fd08c; }
}
"""
"""The colours of a chart that stands alone."""

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Axis:
    """A range, with what is written beside it."""

    low: float
    high: float
    ticks: Ticks

    @classmethod
    def around(cls, values: Floats) -> Axis:
        """A range that holds all numbers, with round ticks."""
        finite = values[np.isfinite(values)]
        low, high = min(0.0, *finite), max(0.0, *finite)
        high = high if high > low else 1.0
        step = 10.0 ** np.floor(np.log10(max(high - low, 1e-12) / 2))
        step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 6)
        ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0
        margin = (high - low) * 0.04
        return cls(low - margin, high + margin, [(float(t), f"{t:g}") for t in ticks])

    def place(self, values: Floats | float) -> Floats:
        """Values as shares of the range."""
        return np.asarray((np.asarray(values) - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Series:
    """A line with its name; NaN interrupts it. ``dots`` are points for themselves."""

    name: str
    x: Floats
    y: Floats
    dots: Sequence[tuple[float, float]] = ()


def chart(
    series: Sequence[Series], x: Axis, y: Axis, heading: str, title: str, alone: bool = False
) -> Markup:
    """The lines over a grid with a heading; ``title`` is read aloud."""
    parts = [f"<title>{escape(title)}</title>"]
    if alone:
        parts.append(f"<style>{COLOURS}{STYLE}</style>")
    for at, text in x.ticks:
        px, _ = _pixels(x, y, at, y.low)
        parts.append(f'<path class="grid" d="M{px:.1f} {HEIGHT - BOTTOM}V{TOP}"/>')
        parts.append(f'<text x="{px:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text}</text>')
    for at, text in y.ticks:
        _, py = _pixels(x, y, x.low, at)
        parts.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{text}</text>')
    for i, line in reversed(list(enumerate(series))):  # the first on top
        path = " ".join(_segments(line, x, y))
        parts.append(f'<path class="line series-{i}" d="{path}"/>')
        for dot in line.dots:
            px, py = _pixels(x, y, *dot)
            parts.append(f'<circle class="series-{i}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>')
    names = [f'<tspan class="series-{i}">— {line.name}</tspan>' for i, line in enumerate(series)]
    parts.append(f'<text x="{LEFT}" y="16">{"  ".join(names)}</text>')
    right = WIDTH - RIGHT
    parts.append(f'<text x="{right}" y="16" text-anchor="end">{escape(heading)}</text>')
    space = 'xmlns="http://www.w3.org/2000/svg" ' if alone else ""
    head = f'<svg {space}class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return Markup(head + "".join(parts) + "</svg>")  # every name in it is escaped


def sheet(charts: Sequence[Markup], columns: int, title: str) -> Markup:
    """Return charts beside and below each other as one picture that stands alone."""
    placed = [
        str(chart).replace("<svg ", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        for i, chart in enumerate(charts)
        for x, y in [(i % columns * WIDTH, i // columns * HEIGHT)]
    ]
    size = f"0 0 {columns * WIDTH} {-(-len(charts) // columns) * HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img">'
    title = f"<title>{escape(title)}</title><style>{COLOURS}{STYLE}</style>"
    return Markup(head + title + "".join(placed) + "</svg>")  # made of charts


def _pixels(x: Axis, y: Axis, at: float, value: float) -> tuple[float, float]:
    px = LEFT + float(x.place(at)) * (WIDTH - LEFT - RIGHT)
    py = TOP + (1 - float(y.place(value))) * (HEIGHT - TOP - BOTTOM)
    return px, py


def _segments(line: Series, x: Axis, y: Axis) -> Iterator[str]:
    """The line as paths, of which points off the chart lie on its edge.

    Of a level stretch only the ends are drawn.
    """
    is_drawn = np.isfinite(line.x) & ~np.isnan(line.y)
    points: list[tuple[str, str]] = []
    for at, value, drawn in zip(line.x, np.clip(line.y, y.low, y.high), is_drawn, strict=True):
        if drawn:
            px, py = _pixels(x, y, at, value)
            if len(points) > 1 and points[-1][1] == points[-2][1] == _short(py):
                points.pop()
            points.append((_short(px), _short(py)))
        elif points:
            yield _path(points)
            points = []
    if points:
        yield _path(points)


def _path(points: Sequence[tuple[str, str]]) -> str:
    return "M" + " ".join(f"{px} {py}" for px, py in points)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
