"""Settings that change from step to step: the step size of a sampler, the noise of a chain that cools.

A schedule is any function of the step, counted from 0. Where a setting takes a schedule, it takes a number,
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ssl_ebm.errors import UserError

Schedule = float | Callable[[int], float]


def at(schedule: Schedule, step: int) -> float:
    """The value of a number or a schedule at a step."""
    return schedule(step) if callable(schedule) else schedule


def linear(start: float, end: float, steps: int) -> Callable[[int], float]:
    """From `start` at step 0 to `end` at step `steps` - 1 in equal differences; `end` from there on.

    Raises:
        UserError: `steps` is below 1.
    """
    _check(steps)
    return lambda step: start + (end - start) * _share(step, steps)


def geometric(start: float, end: float, steps: int) -> Callable[[int], float]:
    """From `start` at step 0 to `end` at step `steps` - 1 in equal ratios; `end` from there on.

    Raises:
        UserError: `steps` is below 1, or one of the ends is not a finite number above 0.
    """
    _check(steps)
    if not (0 < start < math.inf and 0 < end < math.inf):
        raise UserError(f"a geometric schedule goes between numbers above 0, got {start} and {end}")
    return lambda step: start * (end / start) ** _share(step, steps)


def polynomial(start: float, decay: float = 0.55, delay: float = 1.0) -> Callable[[int], float]:
    """start * (1 + step / delay)^-decay: with a decay in (0.5, 1] the steps of stochastic-gradient Langevin
    dynamics sum to infinity and their squares do not (Welling & Teh 2011, equation 2).

    Raises:
        UserError: `delay` is not above 0.
    """
    if not delay > 0:
        raise UserError(f"the delay of a schedule must be above 0, got {delay}")
    return lambda step: start * (1 + step / delay) ** -decay


def _share(step: int, steps: int) -> float:
    return 1.0 if steps == 1 else min(step / (steps - 1), 1.0)


def _check(steps: int) -> None:
    if steps < 1:
        raise UserError(f"a schedule needs 1 step at least, got {steps}")
