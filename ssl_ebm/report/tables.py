"""Numbers and tables of a page. Everything that is shown passes through ``escape``."""

from collections.abc import Sequence
from html import escape
from typing import Any

DASH = "–"
HOLDS = '<span class="short good">holds</span>'
FAILS = '<span class="short bad">does not hold</span>'
VERDICTS = {"holds": HOLDS, "does not hold": FAILS, "undecided": '<span class="short soft">undecided</span>'}


def value(figure: Any, digits: int = 2) -> str:
    """The value of ``[value, low, high]``; a dash where there is none."""
    if figure is None or figure[0] is None:
        return DASH
    return f"{figure[0]:z.{digits}f}"


def interval(figure: Any, digits: int = 2) -> str:
    """``low to high``; nothing where it does not exist."""
    if figure is None or len(figure) < 3 or figure[1] is None or figure[2] is None:
        return ""
    return f"{figure[1]:z.{digits}f} to {figure[2]:z.{digits}f}"


def cell(figure: Any, digits: int = 2) -> str:
    """Value with its interval below, as HTML."""
    low_to_high = interval(figure, digits)
    return value(figure, digits) + (f"<small>{low_to_high}</small>" if low_to_high else "")


def tiles(facts: Sequence[tuple[str, str]]) -> str:
    """Large numbers with what they are below, both text."""
    items = "".join(
        f'<div class="fact"><strong>{escape(number)}</strong><small>{escape(text)}</small></div>'
        for number, text in facts
    )
    return f'<div class="facts">{items}</div>'


def table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], empty: str = DASH) -> str:
    """A table; cells are HTML, headings and names of rows are text.

    Columns and rows without anything in them are left out, and a table of nothing is nothing.
    """
    kept = [c for c in range(len(headings) - 1) if any(cells[c] != empty for _, cells in rows)]
    body = [(name, [cells[c] for c in kept]) for name, cells in rows if any(cells[c] != empty for c in kept)]
    if not body:
        return ""
    head = "".join(f'<th scope="col">{escape(headings[c])}</th>' for c in (0, *(k + 1 for k in kept)))
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{text}</td>" for text in cells)}</tr>'
        for name, cells in body
    ]
    inside = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'
