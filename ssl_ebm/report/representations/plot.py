"""The few-label curves of all tasks as one picture that needs nothing else: for a README, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ssl_ebm.report.charts import HEIGHT, WIDTH, Series, lines
from ssl_ebm.report.representations.figures import LABELS
from ssl_ebm.report.style import COLOURS

KINDS = {  # colours of the rows
    "raw": "ensemble",
    "untrained": "matched_noise",
    "least_squares": "least_squares",
    "latent_ebm": "latent_ebm",
    "masked_text": "sharpened",
    "scratch": "exact",
}
PLOTS = {"tune": "fine-tuned, all layers", "probe": "linear probe of frozen features"}
HEAD, LEGEND, ENTRY = 34, 40, 165  # pixels: above a chart, below all, an entry of the legend
STYLE = """
svg { color-scheme: light dark; --ink: #1d1f21; --soft: #5c6166; --line: #dcdcd8; background: #fff }
text { fill: var(--soft); font: 12.5px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
.title { fill: var(--ink); font-size: 15px; font-weight: 600 } .name { fill: var(--ink) }
.mid { text-anchor: middle } .end { text-anchor: end } .grid { stroke: var(--line) } .band { opacity: .17 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8e8e6; --soft: #a2a8ae; --line: #363b41; background: #131518 }
}
"""


def curve(task: Mapping[str, Any], stage: str, title: str) -> str:
    """Accuracy against the share of labels, a line for each row, as an SVG."""
    series = [
        Series(
            LABELS.get(row, row),
            KINDS.get(row, "bank"),
            [_percent(by_share.get(f"{share:g}")) for share in task["shares"]],
        )
        for row, by_share in task["accuracy"][stage].items()
    ]
    x = [100 * share for share in task["shares"]]
    return lines(x, series, "labels, % (logarithmic)", "accuracy, %", title, log_x=True)


def _percent(figure: Sequence[float] | None) -> list[float | None] | None:
    return None if figure is None else [100 * value for value in figure]


def plot(described: Mapping[str, Any]) -> str:
    """A whole SVG file: a row of charts for each task, from what representations.json holds."""
    parts, tasks = [], described["tasks"]
    for place, (name, task) in enumerate(tasks.items()):
        for column, (stage, title) in enumerate(PLOTS.items()):
            x, y = column * WIDTH, place * (HEIGHT + HEAD)
            parts.append(f'<text class="title" x="{x + 56}" y="{y + 24}">{escape(f"{name}: {title}")}</text>')
            drawn = curve(task, stage, f"{name}: {title}")
            at = f'<svg x="{x}" y="{y + HEAD}" width="{WIDTH}" height="{HEIGHT}" '
            parts.append(drawn.replace("<svg ", at, 1))
    present: set[str] = {row for task in tasks.values() for rows in task["accuracy"].values() for row in rows}
    rows = [row for row in LABELS if row in present] + [row for row in sorted(present) if row not in LABELS]
    height = len(tasks) * (HEIGHT + HEAD) + LEGEND
    for place, row in enumerate(rows):
        x, y = 20 + place * ENTRY, height - 16
        kind = KINDS.get(row, "bank")
        parts.append(f'<rect class="fill-{kind}" x="{x}" y="{y - 7}" width="18" height="4" rx="2"/>')
        parts.append(f'<text class="name" x="{x + 24}" y="{y}">{escape(LABELS.get(row, row))}</text>')
    width = max(2 * WIDTH, 20 + len(rows) * ENTRY)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return f"{head}<style>{STYLE}{_colours()}</style>{''.join(parts)}</svg>\n"


def _colours() -> str:
    rules = []
    for shade, frame in ((0, "{}"), (1, "@media (prefers-color-scheme: dark) {{ {} }}")):
        one = "".join(
            f".fill-{kind} {{ fill: {pair[shade]} }} .stroke-{kind} {{ stroke: {pair[shade]} }} "
            for kind, pair in COLOURS.items()
            if kind in set(KINDS.values())
        )
        rules.append(frame.format(one))
    return "\n".join(rules)
