"""Trainings with sharded weights in one process of two, and the same in one process, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from several_processes import BATCH, MODELS, ItemData, Record, digits, join
from torch import Tensor
from torch.distributed.tensor import DTensor
from two_futures import trainer

from ssl_ebm.tasks.blocks import checkpoint_activations, compile_stages
from ssl_ebm.tasks.saving import LastCheckpoint, WholeFileIO
from ssl_ebm.tasks.seeding import SeededSteps
from ssl_ebm.tasks.sharding import ShardedWeights

STEPS = 4
BROKEN_OFF = "pictures, masked autoencoder"
COMPILED = (BROKEN_OFF, "text, tokens", "frames, one-hot")


class Watch(Record):
    """Also keeps how many weights this process has, and what process 0 computes alone in a validation."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.all = 0
        self.alone: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        weights = list(pl_module.parameters())
        self.all = sum(one.numel() for one in weights)
        self.held = sum((one.to_local() if isinstance(one, DTensor) else one).numel() for one in weights)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.alone.append(torch.stack([one.detach().sum() for one in pl_module.parameters()]))


class StopAfter(Callback):
    """Breaks a training off, whose schedules are those of the whole."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.steps


def train(
    name: str,
    folder: Path,
    processes: int,
    stop: int | None = None,
    resume: Path | None = None,
    backend: str | None = None,
    **settings: Any,
) -> Watch:
    """Trains a model, with a validation after each step; in float64, which the strategy offers to nobody."""
    watch = Watch()
    fitter = trainer(
        STEPS, callbacks=[SeededSteps(0), watch, StopAfter(stop), LastCheckpoint(folder / name, 100)],
        strategy=ShardedWeights() if processes > 1 else "auto", devices=processes, plugins=[WholeFileIO()],
        enable_checkpointing=True, default_root_dir=folder, num_sanity_val_steps=1, val_check_interval=1,
        check_val_every_n_epoch=None, log_every_n_steps=1, gradient_clip_val=0.01, **settings,
    )  # fmt: skip
    task = MODELS[name]().double()
    if backend is not None:
        compile_stages(task, backend)
        checkpoint_activations(task)
    task.on_after_batch_transfer = lambda batch, _: {
        key: value.double() if value.is_floating_point() else value for key, value in batch.items()
    }
    data = digits(processes) if name.startswith("frames") else ItemData(BATCH // processes, 0, 0)
    fitter.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    return watch


def train_all(folder: Path, processes: int) -> dict[str, dict[str, Any]]:
    torch.set_default_dtype(torch.float64)
    try:
        seen = {}
        for name in MODELS:
            watch = train(name, folder, processes)
            seen[name] = {
                "figures": watch.figures,
                "alone": watch.alone,
                "held": watch.held,
                "all": watch.all,
            }
        for name in COMPILED if processes > 1 else ():
            train(name, folder / "compiled", processes, backend="aot_eager")
        train(BROKEN_OFF, folder / "broken_off", processes, stop=2)
        saved = folder / "broken_off" / BROKEN_OFF / "checkpoints" / "last.ckpt"
        train(BROKEN_OFF, folder / "gone_on", processes, resume=saved)
        return seen
    finally:
        torch.set_default_dtype(torch.float32)


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """All that process number `rank` does for the tests."""
    join(rank, port, 2)
    torch.save(train_all(folder, 2), folder / f"{rank}.pt")
