"""Training as the command ``fit`` does it, and the same training as a bare PyTorch loop."""

import contextlib
import copy
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.errors import UserError
from ssl_ebm.report.benchmarks.timing import Effort, Rates, Work
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.frame_prediction import FramePrediction

STEPS = 2500  # of the training whose beginning is measured
CLIP = 10.0  # largest norm of the gradient, as in the configs that come with the project
WARM_UP_STEPS = 3


class Steps:
    """All that a task asks of a Trainer in a training step: where the training stands."""

    training = True
    world_size, global_rank = 1, 0

    def __init__(self, total: int) -> None:
        self.global_step = 0
        self.estimated_stepping_batches = total


class BareLoop:
    """A training without Lightning: the task's loss, optimizer and schedule, and the same clipping.

    Nothing is logged, checked, seeded or saved.

    Args:
        model: trained in place; on its device.
        batches: without end.
        total_steps: of the training whose beginning this is: they set its schedules.
        dtype: bfloat16 is autocast, as by the Trainer's "bf16-mixed".
    """

    def __init__(
        self,
        model: FramePrediction,
        batches: Iterable[Mapping[str, Tensor]],
        total_steps: int = STEPS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model.train()
        self.batches = iter(batches)
        self.autocast = dtype == torch.bfloat16
        self.steps = Steps(total_steps)
        model.trainer = cast(Trainer, self.steps)
        parts = model.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = parts["optimizer"]
        self.schedule = parts["lr_scheduler"]["scheduler"]
        # The Trainer adds up the gradient's norm in the optimizer's order, which decides its last digits.
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def __call__(self, steps: int) -> None:
        device = self.model.device
        for _ in range(steps):
            batch = {k: v.to(device, non_blocking=True) for k, v in next(self.batches).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
                x, y = self.model.split(batch)
                loss = self.model.losses(x, y, beta=1 / self.model.temperature)["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.optimizer.step()
            self.schedule.step()
            self.steps.global_step += 1

    def flops(self) -> int:
        """Arithmetic of the matrix products and convolutions of one step, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self(1)
        return int(counter.get_total_flops())


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def longest_block(repeats: int, steps: int = STEPS) -> int:
    """Steps of `fit` in a block of `Turns` at most, so that the last block ends within the training: there
    are the warm-up and repeats + 1 blocks, each after a step that is not timed.

    Raises:
        UserError: there is no room for blocks of one step.
    """
    longest = (steps - WARM_UP_STEPS) // (repeats + 1) - 1
    if longest < 1:
        raise UserError(
            f"{repeats} turns of fit with its peers need more than the {steps} steps of the training: use "
            "fewer repeats"
        )
    return longest


class Turns(Callback):
    """Measures blocks of a running `fit` in turn with blocks of its peers; stops it after the last.

    A block of `fit` goes from the end of one training batch to the end of another, so it holds all that
    Lightning does between: loading, hooks, logging, progress. (What it does more rarely than once a block,
    such as writing the log, is in some blocks only; a median does not tell.) Every block begins with a unit
    that is not timed: after other work, caches are cold and the processor's clock may be slower.

    Blocks of `fit` stand before and after those of its peers, which change their order from turn to turn. So
    a machine that slowly gets faster or slower favours nobody.

    Args:
        peers: what to measure between two blocks of `fit`.
        block: steps of `fit` in a block, `longest_block` at most.
        effort: how often.
    """

    def __init__(self, peers: Mapping[str, Work], block: int, effort: Effort) -> None:
        self.peers = peers
        self.block = block
        self.effort = effort
        self._end = WARM_UP_STEPS
        self._began = 0.0
        self._fit: list[float] = []  # steps per second; one block more than there are turns
        self._found: dict[str, list[float]] = {name: [] for name in peers}
        self._units: dict[str, int] = {}

    @property
    def rates(self) -> Rates:
        """Units per second of the peers and of "fit": that of its two blocks around the turn."""
        around = zip(self._fit, self._fit[1:], strict=False)
        return Rates({"fit": [harmonic_mean(pair) for pair in around], **self._found})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._end - self.block:  # the step that is not timed is over
            self._began = self.effort.clock()
        if trainer.global_step < self._end:
            return
        if not self._units:  # the end of the warm-up
            self._units = {name: self.effort.block(work) for name, work in self.peers.items()}
        else:
            self._fit.append(self.block / (self.effort.clock() - self._began))
            trainer.should_stop = len(self._fit) == self.effort.repeats + 1
            if not trainer.should_stop:
                self._measure_peers(backwards=len(self._fit) % 2 == 0)
        self._end += self.block + 1

    def _measure_peers(self, backwards: bool) -> None:
        for name in reversed(list(self.peers)) if backwards else self.peers:
            self._found[name].append(self.effort.rate(self.peers[name], self._units[name]))


def make_fit(
    objective: str,
    run_dir: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    settings: Sequence[str] = (),
) -> Run:
    """The command ``fit`` with its defaults (moving digits, CSV log, progress lines), ready to be executed.

    Args:
        settings: further arguments of the command.
    """
    gpu = device is not None and device.type == "cuda"
    arguments = ["--model.objective", objective, "--data", "ssl_ebm.data.MovingDigits"]
    arguments += ["--trainer.max_steps", str(STEPS), "--trainer.gradient_clip_val", str(CLIP)]
    arguments += ["--trainer.precision", "bf16-mixed" if dtype == torch.bfloat16 else "32-true"]
    arguments += ["--trainer.accelerator", "gpu" if gpu else "cpu", "--trainer.devices", "1"]
    arguments += ["--trainer.limit_val_batches", "0", "--trainer.enable_model_summary", "false"]
    with silent():
        return Run("fit", [*arguments, "--run_dir", str(run_dir), *settings])


def bare_twin(run: Run, dtype: torch.dtype, device: torch.device) -> BareLoop:
    """What a run is about to do, from the same weights on the same batches, without Lightning."""
    model, data = copy.deepcopy((run.model, run.datamodule))
    return BareLoop(model.to(device), endless(data.train_dataloader()), run.trainer.max_steps, dtype)


def execute(run: Run, turns: Turns) -> Rates:
    """Runs ``fit`` until the turns are over; returns the rates."""
    run.trainer.callbacks.append(turns)  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    with silent():
        run.execute()
    return turns.rates


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """What ``fit`` prints goes nowhere; into a pipe, so that it prints lines and draws no bar."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
