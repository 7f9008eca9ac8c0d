"""A claim of the lecture, the number that it comes to here, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_ebm.evaluation.drawing import Figure


@dataclass(frozen=True)
class Setting:
    """What all examples are given.

    Attributes:
        seeds: of data and initial weights.
        images: folder with MNIST's or Fashion-MNIST's files; None: digits drawn from a font.
    """

    seeds: Sequence[int]
    images: Path | None = None


@dataclass(frozen=True)
class Claim:
    """One claim, measured once for each seed.

    Attributes:
        id: name, unique in the gallery.
        row: of the lecture's list, as in "L11".
        claim: in a sentence that says what the number is.
        values: the number, for each seed.
        least, most: between which it must lie for every seed; None: no limit.
    """

    id: str
    row: str
    claim: str
    values: Sequence[float]
    least: float | None = None
    most: float | None = None

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def bar(self) -> str:
        """The limits, in words."""
        if self.least is None:
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}"

    @property
    def holds(self) -> bool:
        """Whether every seed is within the limits; what is not finite is not."""
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        return all(math.isfinite(v) and low <= v <= high for v in self.values)

    def as_dict(self, seconds: float) -> dict[str, Any]:
        """An entry of claims.json; low and high are the extremes over the seeds, null where not finite."""
        value, low, high = (
            number if math.isfinite(number) else None
            for number in (self.value, min(self.values), max(self.values))
        )
        return {
            "id": self.id,
            "row": self.row,
            "claim": self.claim,
            "value": value,
            "low": low,
            "high": high,
            "bar": self.bar,
            "holds": self.holds,
            "seconds": seconds,
        }


@dataclass(frozen=True)
class Outcome:
    """What an example shows.

    Attributes:
        claims: with their numbers.
        figures: above them.
        tables: HTML (see `ssl_ebm.report.tables.table`), between the figures and the claims.
    """

    claims: Sequence[Claim]
    figures: Sequence[Figure]
    tables: Sequence[str] = ()
