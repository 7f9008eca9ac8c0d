"""What a benchmark reports: rows of one format, whatever was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ssl_ebm.evaluation.statistics import Interval


@dataclass(frozen=True)
class Row:
    """One measurement, beside a peer's in the same run where there is one.

    Attributes:
        suite, case: what was measured.
        dtype: of the arithmetic.
        ours: the measured figure. More is better wherever there is a peer: rates, never durations.
        unit: of ``ours`` and ``peer``.
        peer: the same figure of what ours is compared with; None: there is no peer.
        peer_name: what that is.
        ratio: ours / peer, with its 95 % interval; above 1, ours is faster. The median of the ratios of
            blocks that were neighbours in time, so it need not be the ratio of the two figures, which are
            medians themselves.
        ceiling_share: share of the rate at which the machine multiplies matrices, measured in the same run;
            None where that is no limit.
    """

    suite: str
    case: str
    dtype: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    ratio: Interval | None = None
    ceiling_share: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as it stands in ``benchmark.json``."""
        return {
            "suite": self.suite,
            "case": self.case,
            "dtype": self.dtype,
            "ours": self.ours,
            "unit": self.unit,
            "peer": self.peer,
            "peer_name": self.peer_name,
            "ratio": None if self.ratio is None else self.ratio.value,
            "ratio_interval": None if self.ratio is None else [self.ratio.low, self.ratio.high],
            "ceiling_share": self.ceiling_share,
        }


def as_table(rows: Sequence[Row]) -> Table:
    """The rows for a person."""
    table = Table("case", "dtype", "ours", "unit", "peer", "ours / peer", "of ceiling", title_justify="left")
    for column in (2, 5, 6):
        table.columns[column].justify = "right"
    for row in rows:
        peer = "" if row.peer is None else f"{number(row.peer)}  {row.peer_name}"
        ratio = "" if row.ratio is None else with_interval(row.ratio)
        share = "" if row.ceiling_share is None else f"{row.ceiling_share:.0%}"
        table.add_row(row.case, row.dtype, number(row.ours), row.unit, peer, ratio, share)
    return table


def number(value: float) -> str:
    """For a person: three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def factor(value: float) -> str:
    """A ratio, for a person: below 10 with three decimals, for 0.999 times as fast is not as fast."""
    return f"{value:.3f}" if abs(value) < 10 else number(value)


def with_interval(ratio: Interval) -> str:
    """A ratio with its interval, for a person."""
    return f"{factor(ratio.value)} ({factor(ratio.low)} to {factor(ratio.high)})"
