"""Charts as inline SVG: lines and bars, coloured by the page's style sheet."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360, 212
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 22, 24
_NUM_TICKS = 5
_SMALLEST = 1e-9  # what a logarithmic axis shows of zero
_MOST_DIGITS = 5  # behind the point
_MOST_POINTS = 300

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """A named curve; with `dots` every point is marked and says its values."""

    name: str
    points: Points
    dots: bool = False


class Mark(NamedTuple):
    """A vertical line at x, named."""

    name: str
    x: float


class Axis(NamedTuple):
    """Values low..high along an axis, linear or logarithmic; `whole` has no ticks between."""

    low: float
    high: float
    log: bool
    whole: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0..1."""
        low, high, at = (self._scaled(one) for one in (self.low, self.high, value))
        return (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values within."""
        if self.log:
            first, last = math.ceil(self._scaled(self.low)), math.floor(self._scaled(self.high))
            step = max(1, -(-(last - first) // _NUM_TICKS))
            return [10.0**power for power in range(first, last + 1, step)]
        width = _round_step((self.high - self.low) / _NUM_TICKS)
        if self.whole:
            width = max(1.0, width)
        lowest, highest = math.ceil(self.low / width - 1e-9), math.floor(self.high / width + 1e-9)
        return [number * width for number in range(lowest, highest + 1)]

    def text(self, tick: float) -> str:
        """Write a tick in as many digits as tell it from the next."""
        ticks = self.ticks()
        if self.log or len(ticks) < 2:  # noqa: PLR2004 - no next one
            return number_text(tick)
        digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
        return f"{tick + 0.0:.{digits}f}" if digits <= _MOST_DIGITS else number_text(tick)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, _SMALLEST)) if self.log else value


def line_chart(
    lines: Sequence[Line], *, marks: Sequence[Mark] = (), log_x: bool = False, log_y: bool = False
) -> str:
    """Draw curves over a common x axis; points that are not finite are left out."""
    shown = [line._replace(points=_thinned(line.points)) for line in lines]
    everywhere = [point for line in shown for point in line.points]
    if not everywhere:
        return ""
    across = [point[0] for point in everywhere] + [mark.x for mark in marks]
    # There is nothing between two steps.
    x = _axis(across, log=log_x)._replace(whole=all(at == round(at) for at in across))
    y = _axis([point[1] for point in everywhere], log=log_y, roomy=True)
    body = [_grid(x, y)]
    body += [_mark(mark, x, row) for row, mark in enumerate(marks)]
    body += [_curve(line, x, y, number) for number, line in enumerate(shown, 1)]
    names = [line.name for line in shown]
    return _figure(body, names if len(names) > 1 else [])


def bar_chart(named: Sequence[tuple[str, Sequence[float]]], *, low: float, high: float) -> str:
    """Draw distributions over equal bins of low..high, each by shares of its own total."""
    shares = [
        (name, [count / sum(counts) for count in counts]) for name, counts in named if sum(counts)
    ]
    if not shares:
        return ""
    x = Axis(low, high, log=False)
    y = Axis(0.0, max(max(values) for _, values in shares) * 1.05, log=False)
    body = [_grid(x, y)]
    for number, (_, values) in enumerate(shares, 1):
        body.append(_bars(values, x, y, number))
    return _figure(body, [name for name, _ in shares])


def number_text(value: float) -> str:
    """Write a number in few digits."""
    size = abs(value)
    if value == round(value) and size < 1e6:  # noqa: PLR2004 - longer ones are unreadable
        return f"{value:.0f}"
    if size >= 1e6 or size < 1e-3:  # noqa: PLR2004
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}"


def _thinned(points: Points) -> list[tuple[float, float]]:
    finite = [point for point in points if all(map(math.isfinite, point))]
    step = max(1, math.ceil(len(finite) / _MOST_POINTS))
    return finite[::step] + (finite[-1:] if (len(finite) - 1) % step else [])


def _axis(values: Sequence[float], *, log: bool, roomy: bool = False) -> Axis:
    low, high = min(values), max(values)
    if log:
        low = max(low, _SMALLEST)
        return Axis(low, max(high, low * 10), log=True)
    if low == high:
        spread = abs(low) * 0.1 or 1.0
        return Axis(low - spread, high + spread, log=False)
    room = 0.05 * (high - low) if roomy else 0.0
    return Axis(low - room, high + room, log=False)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _grid(x: Axis, y: Axis) -> str:
    rows = "".join(
        f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{_y(y, tick):.1f}" '
        f'y2="{_y(y, tick):.1f}"/><text class="tick" x="{_LEFT - 5}" '
        f'y="{_y(y, tick) + 3.5:.1f}" text-anchor="end">{y.text(tick)}</text>'
        for tick in y.ticks()
    )
    columns = "".join(
        f'<text class="tick" x="{_x(x, tick):.1f}" y="{HEIGHT - 8}" '
        f'text-anchor="middle">{x.text(tick)}</text>'
        for tick in x.ticks()
    )
    return rows + columns


def _curve(line: Line, x: Axis, y: Axis, number: int) -> str:
    places = [(_x(x, one[0]), _y(y, one[1])) for one in line.points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    drawn = f'<polyline class="line s{number}" points="{path}"/>'
    if not line.dots and len(places) > 1:
        return drawn
    return drawn + "".join(
        f'<circle class="dot s{number}" cx="{across:.1f}" cy="{down:.1f}" r="3">'
        f"<title>{escape(line.name)}: {number_text(at)} → {value:.4f}</title></circle>"
        for (across, down), (at, value) in zip(places, line.points, strict=True)
    )


def _mark(mark: Mark, x: Axis, row: int) -> str:
    """Name a mark above the curves; the second stands higher, as both may be near each other."""
    at, top = _x(x, mark.x), _TOP - 4 - 10 * row
    side, anchor = (-4, "end") if at > WIDTH * 0.7 else (4, "start")
    return (
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 6}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="mark-name" x="{at + side:.1f}" y="{top}" '
        f'text-anchor="{anchor}">{escape(mark.name)}</text>'
    )


def _bars(values: Sequence[float], x: Axis, y: Axis, number: int) -> str:
    bottom = _y(y, 0.0)
    width = (x.high - x.low) / len(values)
    corners = [(float(_LEFT), bottom)]
    for place, value in enumerate(values):
        left, right = _x(x, x.low + place * width), _x(x, x.low + (place + 1) * width)
        corners += [(left, _y(y, value)), (right, _y(y, value))]
    corners.append((float(WIDTH - _RIGHT), bottom))
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
    return f'<polygon class="area s{number}" points="{path}"/>'


def _figure(body: Sequence[str], names: Sequence[str]) -> str:
    legend = "".join(
        f'<span class="key"><i class="s{number}"></i>{escape(name)}</span>'
        for number, name in enumerate(names, 1)
    )
    keys = f'<div class="keys">{legend}</div>' if legend else ""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(body)}</svg>{keys}'
