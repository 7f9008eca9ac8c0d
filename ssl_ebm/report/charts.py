"""Charts as inline SVG: colours and text follow the page's style sheet, so they suit a dark page too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Figure = Sequence[float | None] | None  # [value, low, high]

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 40
LETTER = 6.5  # width of one in a name, about


@dataclass(frozen=True)
class Series:
    """A line: ``points`` are figures or None; ``kind`` names its colour in the style sheet."""

    label: str
    kind: str
    points: Sequence[Figure]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, steps of 1, 2, 2.5 or 5 times 10^n."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _finite(figure: Figure) -> list[float]:
    return [] if figure is None else [v for v in figure if v is not None]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _frame(
    y: list[float], x: list[tuple[float, str]], x_label: str, y_label: str, title: str
) -> tuple[list[str], float]:
    """Axes and grid; returns the parts of the picture and pixels per unit of y."""
    bottom = HEIGHT - BOTTOM
    scale = (bottom - TOP) / (y[-1] - y[0])
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
    ]
    for value in y:
        at = bottom - (value - y[0]) * scale
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{at + 4:.1f}">{_number(value)}</text>')
    for place, label in x:
        parts.append(f'<text class="tick mid" x="{place:.1f}" y="{bottom + 17}">{escape(label)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis mid" x="{middle}" y="{HEIGHT - 5}">{escape(x_label)}</text>')
    half = (TOP + bottom) / 2
    parts.append(
        f'<text class="axis mid" transform="translate(12 {half}) rotate(-90)">{escape(y_label)}</text>'
    )
    return parts, scale


def lines(
    x: Sequence[float],
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    log_x: bool = False,
    reference: float | None = None,
) -> str:
    """Curves with their 95 % bands over common ``x``; ``reference`` draws a dotted line at that height."""
    values = [v for one in series for figure in one.points for v in _finite(figure)]
    values += [] if reference is None else [reference]
    y = ticks(min(values), max(values))
    if len(y) < 2:
        y = [y[0], y[0] + 1]
    warp = math.log if log_x else float
    low, high = warp(x[0]), warp(x[-1])
    inside = WIDTH - LEFT - RIGHT - 24
    at = [LEFT + 12 + inside * (warp(v) - low) / ((high - low) or 1.0) for v in x]
    labelled = list(zip(at, x, strict=True))
    parts, scale = _frame(y, [(place, f"{v:g}") for place, v in labelled], x_label, y_label, title)

    def height(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y[0]) * scale

    if reference is not None:
        level = height(reference)
        parts.append(
            f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
        )
    for one in reversed(series):  # what is compared comes first in the legend and lies on top
        known = [(place, figure) for place, figure in zip(at, one.points, strict=True) if _finite(figure)]
        banded = [(place, f) for place, f in known if f and len(_finite(f)) == 3]
        if len(banded) > 1:
            upper = [f"{place:.1f},{height(f[2]):.1f}" for place, f in banded]  # type: ignore[arg-type]
            lower = [f"{place:.1f},{height(f[1]):.1f}" for place, f in reversed(banded)]  # type: ignore[arg-type]
            parts.append(f'<polygon class="band fill-{one.kind}" points="{" ".join(upper + lower)}"/>')
        points = [(place, f[0]) for place, f in known if f and f[0] is not None]
        path = " ".join(f"{place:.1f},{height(value):.1f}" for place, value in points)
        parts.append(f'<polyline class="line stroke-{one.kind}" points="{path}"/>')
        for place, value in points:
            tip = escape(f"{one.label}: {value:.3f}")
            parts.append(
                f'<circle class="fill-{one.kind}" cx="{place:.1f}" cy="{height(value):.1f}" r="3.2">'
                f"<title>{tip}</title></circle>"
            )
    return "".join([*parts, "</svg>"])


def bars(items: Sequence[Series], title: str, reference: float = 1.0) -> str:
    """Horizontal bars with 95 % whiskers, one for each item's only point; a dotted line at ``reference``."""
    shown = [(item, list(item.points[0] or [])) for item in items if _finite(item.points[0])]
    highest = max([reference, *(v for _, figure in shown for v in _finite(figure))])
    scale_to = ticks(0.0, highest)
    left = max(166, 8 + round(LETTER * max((len(item.label) for item, _ in shown), default=0)))
    step = 30
    height = len(shown) * step + 34
    scale = (WIDTH - left - 52) / scale_to[-1]
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    base = len(shown) * step + 6
    for value in scale_to:
        at = left + value * scale
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{base}"/>')
        parts.append(f'<text class="tick mid" x="{at:.1f}" y="{base + 16}">{_number(value)}</text>')
    at = left + reference * scale
    parts.append(f'<line class="reference" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{base}"/>')
    for row, (item, figure) in enumerate(shown):
        top = row * step + 8
        value = figure[0] or 0.0
        parts.append(f'<text class="name end" x="{left - 8}" y="{top + 15}">{escape(item.label)}</text>')
        parts.append(
            f'<rect class="bar fill-{item.kind}" x="{left}" y="{top}" width="{value * scale:.1f}" '
            'height="20" rx="3"/>'
        )
        reach = value
        if len(figure) == 3 and figure[1] is not None and figure[2] is not None:
            ends = left + figure[1] * scale, left + figure[2] * scale
            parts.append(
                f'<line class="whisker" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
                f'y1="{top + 10}" y2="{top + 10}"/>'
            )
            reach = max(value, figure[2])
        parts.append(
            f'<text class="name" x="{left + reach * scale + 6:.1f}" y="{top + 15}">{value:.2f}</text>'
        )
    return "".join([*parts, "</svg>"])


def legend(series: Sequence[Series]) -> str:
    """Names beside their colours, as HTML that wraps."""
    items = (f'<li><i class="key bg-{one.kind}"></i>{escape(one.label)}</li>' for one in series)
    return f'<ul class="legend">{"".join(items)}</ul>'
