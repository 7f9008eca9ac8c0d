"""What a cluster says before it ends a job: SIGTERM, or the signal that asks to queue it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ssl_ebm.tasks.broken_files import FilesOfAll
from ssl_ebm.tasks.saving import LastCheckpoint

# Optimizer steps between two questions to all processes whether one of them was told to stop; of steps with
# several batches fewer, and of long ones too: a job has minutes, no more, from the signal to its end.
AGREE_STEPS = 10
AGREE_SECONDS = 10.0
# Seconds that a validation may go on after SIGUSR1: the job's time is over soon.
PATIENCE = 60.0


class Stopped(SystemExit):
    """Ends the process with status 128 + the signal's number, as a shell reports it."""


class StopOnSignal(Callback):
    """Writes a checkpoint and ends the training after SIGTERM or SIGUSR1, when an optimizer step is complete.

    One process that receives it is enough: all stop at the same step, within about `AGREE_SECONDS` or, where
    steps are longer, after the step that is being taken. In a SLURM job SIGUSR1 also queues the job again
    (`#SBATCH --signal=USR1@SECONDS` sends it before the time is over); started again by the same command with
    `--ckpt_path last` it goes on as if nothing had been. A validation of a SLURM job that takes more than
    `PATIENCE` seconds from there is not waited for: what goes on is the last checkpoint.

    When all processes are asked they also count broken files together (`FilesOfAll`), and stop together where
    there are too many.

    Lightning's own handlers save in the middle of a step, or do not save: these take their place.

    Args:
        checkpoint: what writes the checkpoint.
    """

    def __init__(self, checkpoint: LastCheckpoint) -> None:
        self.checkpoint = checkpoint
        self.files = FilesOfAll()
        self.received = 0
        self._when = 0.0  # on the clock of `time.monotonic`
        self._step = -1
        self._every = 1  # optimizer steps from one question to the next
        self._asked_step = -1
        self._asked = 0.0  # on the same clock

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = self._asked_step = trainer.global_step
        self._asked = time.monotonic()
        self._every = 1  # how long a step takes is not known yet
        self.received = 0
        self.files.begin(trainer)
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGTERM, signal.SIGUSR1):  # Lightning sets the old handlers again at the end
                signal.signal(one, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self.received = number
        self._when = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated, which a checkpoint does not hold
        self._step = trainer.global_step
        number = self._of_any_process(trainer)
        if not number:
            return
        self.checkpoint.save(trainer)
        name = signal.Signals(number).name
        if trainer.is_global_zero:
            print(
                f"ssl-ebm: {name}: stopped after optimizer step {self._step}; --ckpt_path last goes on",
                file=sys.stderr,
            )
            if number == signal.SIGUSR1:
                requeue_job()
        raise Stopped(128 + number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            self.checkpoint.save(trainer)  # whatever the count says
        self.files.end(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        late = self.received == signal.SIGUSR1 and time.monotonic() - self._when > PATIENCE
        if not (late and trainer.is_global_zero and "SLURM_JOB_ID" in os.environ):
            return
        # In the middle of a validation no checkpoint would go on as if nothing had been.
        print("ssl-ebm: SIGUSR1: stopped in a validation; the last checkpoint goes on", file=sys.stderr)
        requeue_job()  # which ends the other processes
        raise Stopped(128 + signal.SIGUSR1)

    def _of_any_process(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.received
        if self._step % self._every:
            return 0
        seconds = (time.monotonic() - self._asked) / (self._step - self._asked_step)
        told = [float(self.received), seconds, float(self.files.news())]
        mine = torch.tensor(told, device=trainer.strategy.root_device)
        number, slowest, news = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        if news:
            self.files.share(trainer)
        self._every = steps_between(slowest, trainer.accumulate_grad_batches)
        self._asked_step, self._asked = self._step, time.monotonic()
        return int(number)


def steps_between(seconds: float, batches: int) -> int:
    """Optimizer steps from one question to all processes to the next: those of `AGREE_SECONDS`, of at most
    `AGREE_STEPS` batches; at least one.

    Args:
        seconds: that a step takes in the slowest process, so that all processes come to the same answer.
        batches: of a step.
    """
    most = max(1, AGREE_STEPS // batches)
    return most if seconds * most <= AGREE_SECONDS else max(1, int(AGREE_SECONDS / seconds))


def requeue_job() -> None:
    """Queues this SLURM job again; outside of one it does nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        reason = done.stderr.strip() if done.returncode else None
    except OSError as error:
        reason = str(error)
    if reason is not None:
        print(f"ssl-ebm: cannot queue job {job} again ({reason}): submit it yourself", file=sys.stderr)
