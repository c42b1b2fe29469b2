"""Line charts and sparklines as SVG; their colours and dashes are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from maskmatch.html_report.recorded import Points

STYLES = 6
"""Kinds of lines that the style sheet has: s0, s1 ..."""
WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24
"""Margins of a chart, for the numbers."""
MOST_POINTS, SPARK_POINTS = 240, 52
"""A longer line is drawn as means over so many stretches."""
DOTS = 24
"""Lines of up to this many points have a dot at each."""
SPARK_WIDTH, SPARK_HEIGHT, SPARK_MARGIN = 112, 28, 3


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    points: Points
    style: int
    """Which of the style sheet's kinds."""

    @property
    def last(self) -> float | None:
        """The last value that is a number."""
        return next((value for _, value in reversed(self.points) if value is not None), None)

    @property
    def css(self) -> str:
        return f"s{self.style % STYLES}"


@dataclass(frozen=True)
class Chart:
    """What the template needs of a chart."""

    title: str
    lines: list[Line]
    percent: bool
    top: float
    """Value at the upper edge; the lower one is at 0."""
    steps: int
    """Step at the right edge; the left one is at 0."""
    svg: Markup

    def text(self, value: float | None) -> str:
        """A value as it is written."""
        return number(value, percent=self.percent)


def number(value: float | None, *, percent: bool = False, error: float | None = None) -> str:
    """A value for people, with its standard error where one is known; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if percent:
        unsure = "" if error is None or math.isnan(error) else f" ± {100 * error:.1f}"
        return f"{100 * value:.1f}{unsure} %"
    return f"{value:#.3g}" if value < 100 else f"{value:.0f}"


def chart(title: str, lines: Sequence[Line], *, percent: bool = False) -> Chart | None:
    """A chart of the lines that have a number; None where no line has one."""
    drawn = [line for line in lines if line.last is not None]
    if not drawn:
        return None
    highest = max(value for line in drawn for _, value in line.points if value is not None)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3).tick_values(0, max(highest, 1e-12))
    top = float(ticks[-1])
    if percent and top > 1 >= highest:
        top = 1.0
    steps = max(step for line in drawn for step, _ in line.points)
    x, y = (WIDTH - LEFT - RIGHT) / max(1, steps), (HEIGHT - TOP - BOTTOM) / top
    parts = [_value_axis([tick for tick in ticks if 0 <= tick <= top], y, percent), _step_axis(steps, x)]
    parts += [_drawn(line, x, y) for line in drawn]
    described = "; ".join(f"{line.label}: {number(line.last, percent=percent)} at the end" for line in drawn)
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{title} over the steps. {described}.", Markup().join(parts)
    )
    return Chart(title, drawn, percent, top, steps, svg)


def sparkline(lines: Sequence[Line], label: str, steps: int) -> Markup:
    """Shares in [0, 1] over the steps, without axes; empty where there is no number."""
    drawn = [line for line in lines if line.last is not None]
    if not drawn:
        return Markup()
    x = (SPARK_WIDTH - 2 * SPARK_MARGIN) / max(1, steps)
    y = SPARK_HEIGHT - 2 * SPARK_MARGIN
    floor = SPARK_HEIGHT - SPARK_MARGIN
    paths = []
    for line in drawn:
        thinned = _thinned(line.points, SPARK_POINTS)
        places = [(SPARK_MARGIN + step * x, _down(floor, value, y)) for step, value in thinned]
        last = next((across, down) for across, down in reversed(places) if down is not None)
        paths.append(Markup('<path class="line {}" d="{}"/>').format(line.css, _path(places)))
        paths.append(Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2"/>').format(line.css, *last))
    described = "; ".join(
        f"{line.label + ': ' if len(drawn) > 1 else ''}from {number(_first(line), percent=True)} "
        f"to {number(line.last, percent=True)}"
        for line in drawn
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><path class="floor" d="M0 {}H{}"/>{}</svg>'
    ).format(
        SPARK_WIDTH, SPARK_HEIGHT, f"{label} over the steps, {described}", floor, SPARK_WIDTH, Markup().join(paths)
    )


def _value_axis(ticks: Sequence[float], scale: float, percent: bool) -> Markup:
    parts = []
    for tick in ticks:
        height = HEIGHT - BOTTOM - tick * scale
        text = f"{100 * tick:.4g} %" if percent else f"{tick:.4g}"
        kind = "grid" if tick else "floor"
        parts.append(Markup('<path class="{}" d="M{} {:.1f}H{}"/>').format(kind, LEFT, height, WIDTH - RIGHT))
        parts.append(Markup('<text class="y" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, height + 4, text))
    return Markup().join(parts)


def _step_axis(steps: int, scale: float) -> Markup:
    ticks = [tick for tick in MaxNLocator(5, integer=True).tick_values(0, max(1, steps)) if 0 <= tick <= steps]
    return Markup().join(
        Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(LEFT + tick * scale, HEIGHT - 6, _short(tick))
        for tick in ticks
    )


def _short(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 10000 else f"{step:g}"


def _drawn(line: Line, x: float, y: float) -> Markup:
    points = _thinned(line.points, MOST_POINTS)
    places = [(LEFT + step * x, _down(HEIGHT - BOTTOM, value, y)) for step, value in points]
    path = Markup('<path class="line {}" d="{}"/>').format(line.css, _path(places))
    dots = places if len(places) <= DOTS else []
    return path + Markup().join(
        Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(line.css, across, down)
        for across, down in dots
        if down is not None
    )


def _down(floor: float, value: float | None, scale: float) -> float | None:
    return None if value is None else floor - value * scale


def _path(places: Sequence[tuple[float, float | None]]) -> str:
    """A line through the places, interrupted where there is none."""
    path, pen_up = "", True
    for across, down in places:
        if down is not None:
            path += f"{'M' if pen_up else 'L'}{across:.1f} {down:.2f}"
        pen_up = down is None
    return path


def _first(line: Line) -> float | None:
    return next((value for _, value in line.points if value is not None), None)


def _thinned(points: Points, most: int) -> Points:
    """At most so many of them: each the last step of a stretch, and the mean of its numbers."""
    if len(points) <= most:
        return points
    thinned: Points = []
    for stretch in np.array_split(np.arange(len(points)), most):
        values = [value for i in stretch if (value := points[i][1]) is not None]
        thinned.append((points[stretch[-1]][0], sum(values) / len(values) if values else None))
    return thinned
