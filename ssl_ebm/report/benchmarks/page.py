"""The page of a benchmark: its rows in tables, what is promised, and the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol, runtime_checkable

from ssl_ebm.report.benchmarks.rows import Row, factor, number
from ssl_ebm.report.benchmarks.suites import Suite
from ssl_ebm.report.document import document
from ssl_ebm.report.tables import table


@runtime_checkable
class Explained(Protocol):
    """A suite whose page says more than was measured."""

    def appendix(self) -> str:
        """HTML."""
        ...


def page(rows: Mapping[str, Sequence[Row]], suites: Mapping[str, Suite], machine: Mapping[str, Any]) -> str:
    """One page of all suites that were run.

    Args:
        rows: of each suite.
        suites: by the same names.
        machine: as `describe_machine` gives it.
    """
    facts = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    parts = [f"<header><h1>Benchmark</h1><p>{escape(facts)}</p></header>"]
    for name, measured in rows.items():
        suite = suites[name]
        lines = "".join(f"<li>{escape(line)}</li>" for line in suite.summary(measured))
        if measured or lines:
            parts.append(f"<section><h2>{escape(name)}</h2>{_table(measured)}<ul>{lines}</ul></section>")
        if isinstance(suite, Explained):
            parts.append(suite.appendix())
    return document("Benchmark", "\n".join(parts))


def _table(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        peer = "" if row.peer is None else escape(f"{number(row.peer)} {row.peer_name}")
        r = row.ratio
        ratio = "" if r is None else f"{factor(r.value)}<small>{factor(r.low)} to {factor(r.high)}</small>"
        share = "" if row.ceiling_share is None else f"{row.ceiling_share:.0%}"
        body.append((row.case, [row.dtype, f"{number(row.ours)} {escape(row.unit)}", peer, ratio, share]))
    return table(["case", "dtype", "ours", "peer", "ours / peer", "of ceiling"], body, empty="")
