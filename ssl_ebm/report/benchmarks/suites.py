"""What a suite is: parts to run one after the other, and the lines that sum them up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ssl_ebm.errors import UserError
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort

SUITES = {  # modules, imported when they run
    "frames": "ssl_ebm.report.benchmarks.frames",
    "inpainting": "ssl_ebm.report.benchmarks.inpainting",
    "probes": "ssl_ebm.report.benchmarks.probes",
    "samplers": "ssl_ebm.report.benchmarks.samplers",
    "scale": "ssl_ebm.report.benchmarks.scale",
    "text": "ssl_ebm.report.benchmarks.text",
}


@dataclass(frozen=True)
class Part:
    """A share of a suite.

    Attributes:
        name: for the progress.
        seconds: about how long it takes on a small machine; only for the time left.
        rows: measures.
    """

    name: str
    seconds: float
    rows: Callable[[], Iterable[Row]]


class Suite(Protocol):
    """A module of this folder."""

    def parts(self, effort: Effort) -> list[Part]:
        """What the suite measures, in order."""
        ...

    def summary(self, rows: Sequence[Row]) -> list[str]:
        """What is promised of this suite, and what was measured."""
        ...


def find_suites(name: str | None) -> dict[str, Suite]:
    """The suite of this name; None: all.

    Raises:
        UserError: there is none.
    """
    if name is not None and name not in SUITES:
        raise UserError(f"no benchmark suite {name!r}: use one of {', '.join(SUITES)}, or none for all")
    chosen = SUITES if name is None else {name: SUITES[name]}
    return {one: cast(Suite, import_module(module)) for one, module in chosen.items()}


def with_part(suites: Mapping[str, Suite], effort: Effort, word: str) -> dict[str, Suite]:
    """Those suites that have a part with a word in its name.

    Raises:
        UserError: none has.
    """
    names = {name: [part.name for part in suite.parts(effort)] for name, suite in suites.items()}
    found = {name: suites[name] for name, parts in names.items() if any(word in part for part in parts)}
    if not found:
        known = ", ".join(part for parts in names.values() for part in parts)
        raise UserError(f"no part of the benchmark has {word!r} in its name: use a word of one of {known}")
    return found
