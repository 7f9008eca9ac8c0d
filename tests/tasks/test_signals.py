"""When a signal is acted on; whole trainings that are stopped are in test_resume."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ssl_ebm.tasks import signals
from ssl_ebm.tasks.signals import PATIENCE, StopOnSignal, Stopped

TASK: Any = None


def told(
    number: signal.Signals, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[StopOnSignal, list[str]]:
    """A callback that was sent a signal so many seconds ago, in a SLURM job, and what it has done since."""
    clock, done = [0.0], list[str]()
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(signals, "requeue_job", lambda: done.append("queued"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    found = StopOnSignal(cast(Any, SimpleNamespace(save=lambda trainer: done.append("saved"))))
    found._receive(number, None)
    clock[0] = seconds
    return found, done


def trainer(**changes: Any) -> Any:
    return SimpleNamespace(**{"is_global_zero": True, "world_size": 1, "global_step": 4, **changes})


def test_a_long_validation_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, done = told(signal.SIGUSR1, PATIENCE + 1, monkeypatch)
    with pytest.raises(Stopped) as stopped:
        callback.on_validation_batch_end(trainer(), TASK)
    assert stopped.value.code == 128 + signal.SIGUSR1
    assert done == ["queued"]


@pytest.mark.parametrize(
    ("number", "seconds", "changes", "in_job"),
    [
        (signal.SIGUSR1, PATIENCE - 1, {}, True),  # it may end in time, and then the step itself is saved
        (signal.SIGTERM, PATIENCE + 1, {}, True),  # nothing is queued again
        (signal.SIGUSR1, PATIENCE + 1, {"is_global_zero": False}, True),
        (signal.SIGUSR1, PATIENCE + 1, {}, False),
    ],
)
def test_other_validations_are(
    number: signal.Signals,
    seconds: float,
    changes: dict[str, Any],
    in_job: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    callback, done = told(number, seconds, monkeypatch)
    if not in_job:
        monkeypatch.delenv("SLURM_JOB_ID")
    callback.on_validation_batch_end(trainer(**changes), TASK)
    assert done == []


@pytest.mark.parametrize(
    ("accumulated", "asked"), [(1, [10, 20]), (4, list(range(2, 21, 2))), (8, list(range(1, 21)))]
)
def test_processes_agree_after_as_many_batches(
    accumulated: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, _ = told(signal.SIGUSR1, 0.0, monkeypatch)
    found = []
    for step in range(1, 21):
        callback._step = step
        strategy = SimpleNamespace(root_device="cpu", reduce=lambda value, reduce_op: value)
        several = trainer(world_size=2, accumulate_grad_batches=accumulated, strategy=strategy)
        if callback._of_any_process(several):
            found.append(step)
    assert found == asked
