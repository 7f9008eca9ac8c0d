"""Training steps in one process of several, for tests of what the processes agree on."""

import math
import os
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from small_backbones import PATCHES
from torch import Tensor
from two_futures import small, trainer

from ssl_ebm.data import FontDigits, MovingDigits, PlanePoints
from ssl_ebm.energy.objectives import PersistentContrastiveDivergence
from ssl_ebm.tasks import DensityEstimation, FineTuning
from ssl_ebm.tasks.saving import LastCheckpoint
from ssl_ebm.tasks.seeding import SeededSteps

STEPS, BATCH = 2, 8
MODELS: dict[str, dict[str, Any]] = {
    "least_squares": {"objective": "least_squares"},
    "one_hot": {"latent": "one_hot"},
    "gaussian": {"latent": "gaussian", "latent_noise": 0.0},  # noise would be that of each process
}


class Record(Callback):
    """Keeps the gradient and the clips of every step of this process."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.clips: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.clips.append(batch["clip"].tolist())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.gradients.append(
            {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        )


def digits(processes: int) -> MovingDigits:
    return MovingDigits(
        size=16, digit_size=8, context_frames=2, train_clips=16, val_clips=4, glyphs_per_digit=2,
        batch_size=BATCH // processes,
    )  # fmt: skip


def take_steps(processes: int) -> dict[str, dict[str, Any]]:
    """Trains each model for a few steps in float64 and tells what this process saw."""
    seen = {}
    for name, settings in MODELS.items():
        record = Record()
        fitter = trainer(
            STEPS,
            callbacks=[record],
            precision="64-true",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            limit_val_batches=0,
        )
        task = small(**settings)
        fitter.fit(task, datamodule=digits(processes))
        seen[name] = {
            "gradients": record.gradients,
            "clips": record.clips,
            "weights": {key: value.clone() for key, value in task.named_parameters()},
        }
    return seen


class Poison(Callback):
    """Makes a pixel of y a NaN in one process, in the last step."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == STEPS - 1:
            batch["video"][0, 2, 0, 0, 0] = math.nan


def diverge(folder: str) -> None:
    """A training whose loss in process 1 alone is not finite in the last step, and its checkpoint."""
    callbacks = [Poison(rank=1), LastCheckpoint(folder, every_n_steps=100)]
    fitter = trainer(
        STEPS, callbacks=callbacks, enable_checkpointing=True, devices=2, strategy="ddp", limit_val_batches=0
    )
    fitter.fit(small(), datamodule=digits(2))


def join(rank: int, port: int) -> None:
    """Makes this process number `rank` of two, as torchrun does."""
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2", GROUP_RANK="0", TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip


def one_of_two_steps(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    torch.save(take_steps(2), Path(folder) / f"{rank}.pt")


def one_of_two_diverges(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    diverge(folder)


def described(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"ssl_ebm.{path}", "init_args": arguments}


def one_of_two_keeps_chains(rank: int, port: int, folder: str) -> None:
    """Persistent contrastive divergence: this process's chains before and after, and its weights."""
    join(rank, port)
    torch.manual_seed(0)
    noise = described("energy.noise.UniformNoise", shape=[2], low=-3.0, high=3.0)
    objective = described(
        "energy.objectives.PersistentContrastiveDivergence",
        sampler=described("energy.sampling.Langevin", step_size=0.01),
        steps=2,
        buffer=described("energy.objectives.ReplayBuffer", size=32, noise=noise, refresh=0.0),
    )
    task = DensityEstimation(described("networks.PointEnergy", width=8), objective)
    buffer = cast(PersistentContrastiveDivergence, task.objective).buffer
    began = buffer.states.clone()
    callbacks = [SeededSteps(0), LastCheckpoint(folder, every_n_steps=100)]
    fitter = trainer(
        STEPS, callbacks=callbacks, enable_checkpointing=True, devices=2, strategy="ddp", limit_val_batches=0
    )
    fitter.fit(task, datamodule=PlanePoints("rings", train_points=64, batch_size=BATCH // 2))
    weights = torch.cat([p.detach().flatten() for p in task.energy.parameters()])
    torch.save({"began": began, "ended": buffer.states, "weights": weights}, Path(folder) / f"{rank}.pt")


def fine_tuned(processes: int) -> FineTuning:
    """A text-book fine-tuning of a few steps, evaluated on digits that two processes cannot share evenly."""
    torch.manual_seed(0)
    backbone = described("tasks.Inpainting", network=PATCHES)
    task = FineTuning(backbone=backbone, drop_out=0.0, lr=0.01, warmup_steps=0)
    data = FontDigits(size=16, train_images=40, val_images=21, batch_size=BATCH // processes)
    strategy = "ddp" if processes > 1 else "auto"  # which stops where a parameter has no gradient
    fitter = trainer(STEPS, devices=processes, strategy=strategy, precision="64-true", limit_val_batches=0)
    fitter.fit(task, datamodule=data)
    fitter.limit_val_batches = 1.0
    fitter.validate(task, datamodule=data, verbose=False)
    return task


def one_of_two_fine_tunes(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    task = fine_tuned(2)
    torch.save({"votes": tuple(task.votes["val"]), "weights": task.state_dict()}, Path(folder) / f"{rank}.pt")
