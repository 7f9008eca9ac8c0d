"""Pictures show figures at their place."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_ebm.report.charts import Series, bars, lines, ticks


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e4))
def test_ticks_enclose_the_values_in_equal_steps(low: float, span: float) -> None:
    places = ticks(low, low + span)
    step = places[1] - places[0]
    assert places[0] <= low + 1e-6 * step + 1e-9
    assert places[-1] >= low + span - 1e-6 * step - 1e-9
    assert 2 <= len(places) <= 8
    assert all(b - a == pytest.approx(step, rel=1e-3) for a, b in pairwise(places))


def circles(picture: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', picture)]


def test_points_lie_on_the_scale_of_the_axis() -> None:
    series = Series("a", "latent_ebm", [[10, 9, 11], [20, 18, 22], [30, 29, 31]])
    picture = lines([1, 10, 100], [series], "x", "y", "t", log_x=True)
    (x0, y0), (x1, y1), (x2, y2) = circles(picture)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)  # logarithmic
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2  # up is more
    grid = dict(zip([10, 20, 30], [y0, y1, y2], strict=True))
    for at, label in re.findall(r'class="tick end" x="[\d.]+" y="([\d.]+)">([\d.]+)<', picture):
        if float(label) in grid:
            assert float(at) - 4 == pytest.approx(grid[float(label)], abs=0.2)


def test_missing_points_leave_gaps_not_zeros() -> None:
    series = Series("a", "latent_ebm", [[10, 9, 11], None, [30, None, None]])
    assert len(circles(lines([1, 5, 20], [series], "x", "y", "t"))) == 2


def test_bars_are_as_long_as_their_figures() -> None:
    items = [Series(name, "bank", [[v, v, v]]) for name, v in (("a", 0.5), ("b", 1.0), ("c", 0.25))]
    picture = bars([*items, Series("none", "bank", [None])], "t")
    lengths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', picture)]
    assert lengths[0] / lengths[1] == pytest.approx(0.5, abs=0.01)
    assert lengths[2] / lengths[1] == pytest.approx(0.25, abs=0.01)
    assert "none" not in picture
