"""The command ``benchmark``: measures speed and writes it down, with the machine it was measured on."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.progress import Display
from ssl_ebm.report.benchmarks.machine import describe_machine, measured_device
from ssl_ebm.report.benchmarks.page import page
from ssl_ebm.report.benchmarks.rows import Row, as_table
from ssl_ebm.report.benchmarks.suites import Part, Suite, find_suites, with_part
from ssl_ebm.report.benchmarks.timing import Effort

WIDTH = 150  # columns of the table where the output is no terminal


def run(
    suite: str | None, out: str | Path, repeats: int = 12, seconds: float = 0.25, only: str | None = None
) -> list[dict[str, Any]]:
    """Measures a suite, prints a table, and writes it to ``OUT/benchmark.json`` and ``benchmark.html``, and
    what machine that was to ``machine.json``.

    benchmark.json is a list of rows {suite, case, dtype, ours, unit, peer, peer_name, ratio, ratio_interval,
    ceiling_share}, explained in `Row`; every rate is a median of blocks of work that took turns with the
    peer's in one process. machine.json says what machine that was, with which versions, and when. Both are
    written after every part of a suite, so an interrupted run leaves what it has measured.

    Args:
        suite: name of a suite; None: all.
        out: folder.
        repeats: blocks of each work; small differences take three times as many, large ones half as many.
        seconds: length of a block, about; 0: one unit of work.
        only: in the names of the parts that are run; None: all are.

    Returns:
        The rows.

    Raises:
        UserError: no such suite, or no such part; a folder that cannot be made; a number out of range.
    """
    if repeats < 1 or not seconds >= 0:
        raise UserError(f"repeats is {repeats} and seconds {seconds}: use at least 1 and 0")
    effort = Effort(repeats, seconds, measured_device())
    suites = find_suites(suite)
    if only is not None:
        suites = with_part(suites, effort, only)
    folder = make_folder(out)
    machine = describe_machine()
    rows: dict[str, list[Row]] = {name: [] for name in suites}
    everything: list[dict[str, Any]] = []
    with Display(seconds=0) as display:
        for name, chosen in suites.items():
            for measured in measure(name, chosen, effort, display, only):
                rows[name] += measured
                everything += [row.as_dict() for row in measured]
                write_whole(folder / "benchmark.json", json.dumps(everything, indent=2) + "\n")
                write_whole(folder / "machine.json", json.dumps(machine, indent=2) + "\n")
    _print(rows, suites, machine)
    write_whole(folder / "benchmark.html", page(rows, suites, machine))
    print(folder / "benchmark.json")
    print(folder / "benchmark.html")
    return everything


def measure(
    name: str, suite: Suite, effort: Effort, display: Display, only: str | None = None
) -> Iterator[list[Row]]:
    """Runs the parts of a suite, or those with a word in their name, showing how far it is: rows of each."""
    display.say(f"{name}: getting ready")
    parts = [part for part in suite.parts(effort) if only is None or only in part.name]
    began = time.monotonic()
    for number, part in enumerate(parts):
        left = _left(parts, number, time.monotonic() - began)
        display.show(name, number, len(parts), "parts", left, f"now {part.name}")
        yield list(part.rows())
    display.show(name, len(parts), len(parts), "parts", 0.0)


def _left(parts: list[Part], done: int, elapsed: float) -> float:
    """Seconds to the end: the guesses of what is to come, in proportion to how those so far were wrong."""
    guessed = sum(part.seconds for part in parts[:done])
    pace = elapsed / guessed if guessed else 1.0
    return pace * sum(part.seconds for part in parts[done:])


def _print(rows: dict[str, list[Row]], suites: dict[str, Suite], machine: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    for name, measured in rows.items():
        if measured:
            console.print(as_table(measured))
        for line in suites[name].summary(measured):
            console.print(line)
    console.print(", ".join(f"{key} {value}" for key, value in machine.items() if value is not None))
