"""Schedules at their ends and in between."""

import pytest

from ssl_ebm.energy.sampling import geometric, linear, polynomial
from ssl_ebm.errors import UserError


def test_linear_has_equal_differences() -> None:
    assert [linear(1.0, 3.0, 5)(i) for i in (0, 1, 2, 3, 4, 9)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]


def test_geometric_has_equal_ratios() -> None:
    assert [geometric(8.0, 1.0, 4)(i) for i in (0, 1, 2, 3, 7)] == pytest.approx([8, 4, 2, 1, 1])


def test_one_step_is_the_end() -> None:
    assert linear(1.0, 3.0, 1)(0) == geometric(1.0, 3.0, 1)(0) == 3.0


def test_polynomial_is_that_of_welling_and_teh() -> None:
    """a (b + t)^-gamma with a = start * delay^gamma, b = delay."""
    schedule = polynomial(0.5, decay=0.55, delay=10.0)
    assert [schedule(t) for t in (0, 90)] == pytest.approx([0.5, 0.5 * 10**0.55 * 100**-0.55])


@pytest.mark.parametrize(
    "make", [lambda: linear(1, 2, 0), lambda: geometric(0, 1, 3), lambda: polynomial(1, 1, 0)]
)
def test_mistakes(make: object) -> None:
    with pytest.raises(UserError):
        make()  # type: ignore[operator]
