"""Figures as text."""

import pytest

from ssl_ebm.report.tables import DASH, cell, interval, value


@pytest.mark.parametrize(
    ("number", "text"), [(-1e-9, "0.00"), (-0.004, "0.00"), (-1.236, "-1.24"), (0.5, "0.50")]
)
def test_zero_has_no_sign(number: float, text: str) -> None:
    assert value([number, number, number]) == text
    assert interval([number, number, number]) == f"{text} to {text}"


def test_what_is_missing_is_a_dash() -> None:
    assert cell(None) == cell([None, None, None]) == DASH
    assert cell([1.0, None, None], 1) == "1.0"
