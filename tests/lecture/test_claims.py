"""A claim holds where every seed is within its limits."""

from __future__ import annotations

import math

import pytest

from ssl_ebm.lecture.claims import Claim


@pytest.mark.parametrize(
    ("values", "least", "most", "holds"),
    [
        ([1.0, 2.0], 1.0, None, True),
        ([0.9, 2.0], 1.0, None, False),  # the mean is above the limit, one seed is not
        ([1.0, 2.0], None, 2.0, True),
        ([1.0, 2.1], None, 2.0, False),
        ([1.5], 1.0, 2.0, True),
        ([math.nan, 1.5], 1.0, 2.0, False),
        ([math.inf], 1.0, None, False),
    ],
)
def test_every_seed_counts(values: list[float], least: float | None, most: float | None, holds: bool) -> None:
    assert Claim("a", "L1", "words", values, least, most).holds == holds


def test_what_is_written() -> None:
    claim = Claim("a", "L9", "words", [1.0, 2.0, 6.0], 0.5, 7.0).as_dict(3.5)
    assert claim == {
        "id": "a", "row": "L9", "claim": "words", "value": 3.0, "low": 1.0, "high": 6.0,
        "bar": "0.5 to 7", "holds": True, "seconds": 3.5,
    }  # fmt: skip


def test_limits_in_words() -> None:
    assert Claim("a", "L1", "", [1.0], least=0.95).bar == "at least 0.95"
    assert Claim("a", "L1", "", [1.0], most=1e-9).bar == "at most 1e-09"
