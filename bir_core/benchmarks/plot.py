"""Time and memory against the size of the picture, as a plot in SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .worker import Row

WIDTH, HEIGHT = 960, 480  # of the picture; the legend comes below
PANEL = (70, 50, 390, 370)  # of each plot: left, top, width, height, from the panel's corner
LEGEND_LINE = 18
COLUMNS = 3  # of the legend
# Distinct also for most people who see red and green alike (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("", "6 4", "2 3", "10 3 2 3", "1 6")
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A side of some work at several sizes; (megapixels, number) by size, of seconds and of MB."""

    name: str
    colour: str
    dash: str
    seconds: tuple[Point, ...]
    megabytes: tuple[Point, ...]


def series_of(rows: Sequence[Row]) -> list[Series]:
    """Each side that was measured at two sizes or more; works differ in colour, sides in dashes."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.megapixels is not None:
            own = row.case.work, row.measured.side, row.conditions.dtype
            groups.setdefault(own, []).append(row)
    types = {row.conditions.dtype for row in rows}
    found: list[Series] = []
    works: dict[str, int] = {}
    for (work, side, dtype), group in groups.items():
        if len({row.megapixels for row in group}) < 2:
            continue
        dash = works.get(work, 0)
        works[work] = dash + 1
        group.sort(key=lambda row: row.megapixels or 0)
        found.append(
            Series(
                name=f"{work}: {side}" + (f", {dtype}" if len(types) > 1 else ""),
                colour=COLOURS[list(works).index(work) % len(COLOURS)],
                dash=DASHES[dash % len(DASHES)],
                seconds=_points(group, lambda row: row.measured.seconds),
                megabytes=_points(
                    group, lambda row: row.measured.extra and row.measured.extra / 1e6
                ),
            )
        )
    return found


def _points(group: Sequence[Row], number: Callable[[Row], float | None]) -> tuple[Point, ...]:
    pairs = ((row.megapixels, number(row)) for row in group)
    return tuple((x, y) for x, y in pairs if x and y)


def as_svg(rows: Sequence[Row], caption: str) -> str:
    """Two plots beside each other with both axes logarithmic; `caption` is the line below.

    Returns:
        The text of the file; where no side was measured at two sizes, the plots are empty and the
        picture says so.
    """
    series = series_of(rows)
    lines = -(-len(series) // COLUMNS)
    height = HEIGHT + LEGEND_LINE * (lines + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        "<title>Time and memory against the size of the picture</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_panel(0, "time, seconds", [(each, each.seconds) for each in series]),
        *_panel(WIDTH // 2, "extra memory, MB", [(each, each.megabytes) for each in series]),
    ]
    for index, each in enumerate(series):
        x = 20 + index % COLUMNS * (WIDTH - 20) // COLUMNS
        y = HEIGHT + index // COLUMNS * LEGEND_LINE
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 36}" y2="{y}" {_stroke(each)}/>'
            f'<text x="{x + 44}" y="{y + 4}">{escape(each.name)}</text>'
        )
    if not series:
        parts.append(_text(WIDTH / 2, HEIGHT / 2, "nothing was measured at two sizes"))
    parts.append(_text(WIDTH / 2, height - LEGEND_LINE, caption, size=11))
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Axis:
    """From numbers to places along a logarithmic axis."""

    low: float
    high: float
    start: float
    length: float

    def place(self, number: float) -> float:
        share = math.log(number / self.low) / math.log(self.high / self.low)
        return self.start + share * self.length

    def ticks(self) -> list[float]:
        """1, 2 and 5 times each power of ten; over many powers the powers alone."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if math.log10(self.high / self.low) < 3 else (1,)
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def _axis(numbers: Sequence[float], start: float, length: float) -> _Axis:
    low, high = (min(numbers), max(numbers)) if numbers else (0.1, 1.0)
    margin = max(high / low, 1.2) ** 0.06
    return _Axis(low / margin, high * margin, start, length)


def _panel(left: int, title: str, curves: Sequence[tuple[Series, tuple[Point, ...]]]) -> list[str]:
    x0, y0, width, height = PANEL[0] + left, *PANEL[1:]
    bottom = y0 + height
    points = [point for _, own in curves for point in own]
    across = _axis([x for x, _ in points], x0, width)
    up = _axis([y for _, y in points], bottom, -height)
    parts = [
        _text(x0 + width / 2, y0 - 16, title, size=14),
        f'<rect x="{x0}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#888"/>',
        _text(x0 + width / 2, bottom + 36, "megapixels of the picture"),
    ]
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(_grid(x, y0, x, bottom) + _text(x, bottom + 16, f"{tick:g}"))
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(_grid(x0, y, x0 + width, y) + _text(x0 - 6, y + 4, f"{tick:g}", anchor="end"))
    for series, own in curves:
        places = [(across.place(x), up.place(y)) for x, y in own]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(series)}/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{series.colour}"/>' for x, y in places
        ]
    return parts


def _stroke(series: Series) -> str:
    dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
    return f'stroke="{series.colour}" stroke-width="2"{dash}'


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
