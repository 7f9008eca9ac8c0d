"""Suite "scale": what changes with the number of processes, of shards and workers, of items, and with
the size of a checkpoint. Its page also works out, by plain arithmetic, what many GPUs would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.scaling import checkpoints, memory
from ssl_ebm.report.benchmarks.scaling.checkpoints import checkpoint_rows
from ssl_ebm.report.benchmarks.scaling.memory import memory_rows
from ssl_ebm.report.benchmarks.scaling.page import appendix, recipes
from ssl_ebm.report.benchmarks.scaling.processes import (
    TOGETHER,
    frame_prediction,
    masked_autoencoder,
    process_rows,
)
from ssl_ebm.report.benchmarks.scaling.shards import shard_rows
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import Effort
from ssl_ebm.report.entries import usable_cores

SUITE = "scale"
__all__ = ["appendix", "parts", "summary"]


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order. Trainings start anew in every turn, so they have fewer turns."""
    turns = max(1, effort.repeats // 4)
    few = replace(effort, repeats=max(1, effort.repeats // 2))
    trainings = [masked_autoencoder(), frame_prediction()] if usable_cores() > 1 else []
    return [
        *(
            Part(f"processes, {one.unit}", 60.0 * turns, partial(process_rows, SUITE, one, turns))
            for one in trainings
        ),
        Part("shards", 12 * (few.repeats * (effort.seconds + 0.5) + 1), partial(shard_rows, SUITE, few)),
        Part("memory", 600.0, partial(memory_rows, SUITE)),
        Part("checkpoints", 8.0 * few.repeats, partial(checkpoint_rows, SUITE, few)),
        Part("arithmetic of the recipes", 45.0, _count),
    ]


def _count() -> list[Row]:
    """No measurement, but it takes a while: done here, where progress is shown, for the page."""
    recipes()
    return []


def summary(rows: Sequence[Row]) -> list[str]:
    """How well two processes share the work, what memory does, and how long checkpoints take."""
    lines = [
        f"{row.case}: {r.value:.0%} ({r.low:.0%} to {r.high:.0%}) of {row.peer_name}"
        for row in rows
        if (r := row.ratio) is not None and row.case.startswith(f"fit, {TOGETHER}")
    ]
    if usable_cores() == 1 and not lines:
        lines.append("one core alone: two processes were not measured")
    return lines + memory.summary(rows) + checkpoints.summary(rows)
