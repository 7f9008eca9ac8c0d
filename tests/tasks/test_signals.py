"""When a signal is acted on; whole trainings that are stopped are in test_resume."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

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


def asked_after(
    own: float, other: float, accumulated: int, monkeypatch: pytest.MonkeyPatch, start: int = 0
) -> list[int]:
    """After which of 20 steps all processes are asked; steps take so many seconds here and elsewhere."""
    clock, found = [0.0], list[int]()

    def reduce(value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        found.append(several.global_step)
        assert reduce_op == "max"
        return value.maximum(torch.tensor([0.0, other, 0.0]))

    strategy = SimpleNamespace(root_device="cpu", reduce=reduce)
    several = trainer(world_size=2, accumulate_grad_batches=accumulated, strategy=strategy, global_step=start)
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(signals.signal, "signal", lambda *_: None)
    callback = StopOnSignal(cast(Any, None))
    callback.on_train_start(several, TASK)
    for step in range(start + 1, start + 21):
        several.global_step = step
        clock[0] += own
        callback.on_train_batch_end(several, TASK)
    return found


@pytest.mark.parametrize(
    ("accumulated", "asked"), [(1, [1, 10, 20]), (4, [1, *range(2, 21, 2)]), (8, list(range(1, 21)))]
)
def test_processes_agree_after_as_many_batches(
    accumulated: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_after(0.01, 0.01, accumulated, monkeypatch) == asked


@pytest.mark.parametrize(
    ("seconds", "asked"),
    [
        (1.0, [1, 10, 20]),
        (1.5, [1, 6, 12, 18]),
        (4.0, [1, *range(2, 21, 2)]),
        (5.1, list(range(1, 21))),
        (60.0, list(range(1, 21))),
    ],
)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_processes_whose_steps_take_long_agree_about_every_10_seconds(
    seconds: float, asked: list[int], accumulated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them the slow one is: all must ask after the same steps."""
    if accumulated == 2:  # 5 steps at most
        asked = [1, 5, 10, 15, 20] if seconds < 2 else asked
    assert asked_after(seconds, 0.01, accumulated, monkeypatch) == asked
    assert asked_after(0.01, seconds, accumulated, monkeypatch) == asked


def test_a_run_that_goes_on_learns_anew_how_long_a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_after(0.01, 60.0, 1, monkeypatch, start=1233) == list(range(1234, 1254))
    assert asked_after(0.01, 0.01, 1, monkeypatch, start=1233) == [1234, 1240, 1250]
