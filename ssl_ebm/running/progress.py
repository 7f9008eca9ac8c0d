"""Progress of training where the output is no terminal: a plain line now and then."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class ProgressLines(Callback):
    """Prints a line about every ``seconds``: step, loss, speed, share of time waiting for data, time left.

    Waiting for data is the time between the end of one step and the start of the next; a share that is not
    small says that more workers would make training faster. Reads nothing from the device between two lines.

    Args:
        seconds: time between two lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._printed = self._batch_ended = time.monotonic()
        self._printed_step = trainer.global_step
        self._waited = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._waited += time.monotonic() - self._batch_ended

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self._batch_ended = time.monotonic()
        if self._batch_ended - self._printed >= self.seconds:
            self._print(trainer, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch_ended = time.monotonic()  # validation is no waiting for data

    def _print(self, trainer: Trainer, outputs: Any) -> None:
        elapsed = self._batch_ended - self._printed
        steps_per_second = (trainer.global_step - self._printed_step) / elapsed
        total = trainer.estimated_stepping_batches
        line = f"step {trainer.global_step}"
        if total not in (-1, float("inf")):
            line += f"/{int(total)}"
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None:
            line += f"  loss {float(loss):.4g}"
        line += f"  {steps_per_second:.2f} steps/s  waiting for data {self._waited / elapsed:.0%}"
        if total not in (-1, float("inf")) and steps_per_second > 0:
            line += f"  time left {_clock((total - trainer.global_step) / steps_per_second)}"
        if trainer.is_global_zero:
            print(line, flush=True)
        self._printed, self._printed_step, self._waited = self._batch_ended, trainer.global_step, 0.0


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"
