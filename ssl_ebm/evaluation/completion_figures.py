"""Pictures of completions while a model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_ebm.data.loading import check_least
from ssl_ebm.evaluation.callbacks import validation_set
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.loggers import log_file
from ssl_ebm.evaluation.pictures import CONTEXT, PREDICTED, TRUTH, Picture, frame_grid, write_png
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.protocols import has_latent
from ssl_ebm.networks.completion import split_occluded
from ssl_ebm.tasks.inpainting import Inpainting

GREY = 0.5


class CompletionFigures(Callback):
    """After a validation, draws a grid: a row for each of a few fixed validation pictures, with what is seen,
    the completion (several, where there is a latent), and the truth.

    The picture is written to ``<default_root_dir>/figures`` and handed to every logger that takes images
    (wandb does). Training is left alone; masks and samples start from the same random numbers each time, so
    that grids of different steps differ by the weights alone.

    Args:
        pictures: rows, spread evenly over the validation split.
        samples: completions of each.
        every_n_validations: how often to draw.
        seed: of masks and samples.
    """

    def __init__(
        self, pictures: int = 6, samples: int = 5, every_n_validations: int = 1, seed: int = 0
    ) -> None:
        check_least(
            pictures=(pictures, 1), samples=(samples, 1), every_n_validations=(every_n_validations, 1)
        )
        self.pictures = pictures
        self.samples = samples
        self.every_n_validations = every_n_validations
        self.seed = seed
        self._validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, Inpainting):
            return
        if self._validations % self.every_n_validations == 0:
            self._draw(trainer, pl_module)
        self._validations += 1

    @rank_zero_only
    def _draw(self, trainer: Trainer, task: Inpainting) -> None:
        dataset = validation_set(trainer)
        count = min(self.pictures, len(dataset))
        places = [(2 * i + 1) * len(dataset) // (2 * count) for i in range(count)]
        images = torch.stack([item["image"] for item in load_items(dataset, places)]).to(task.device)
        with isolated(task):
            picture = self.draw(task, images)
        path = Path(trainer.default_root_dir) / "figures" / f"completions-step-{trainer.global_step:07d}.png"
        log_file(trainer, "log_image", "completions/image", write_png(picture, path))

    def draw(self, task: Any, images: Tensor) -> Picture:
        """The grid for pictures (B, C, H, W); the caller isolates the task."""
        x = task.occluded(images, generator_for(self.seed))
        count = self.samples if has_latent(task) else 1
        drawn = task.sample(x, count, generator_for(self.seed, 1, device=images.device))
        visible, mask = split_occluded(x)
        seen = visible + GREY * mask
        names = [f"sample {s + 1}" for s in range(count)] if count > 1 else ["completion"]
        rows = [[seen[b], *drawn[b], images[b]] for b in range(len(images))]
        return frame_grid(rows, ["seen", *names, "truth"], [CONTEXT] + [PREDICTED] * count + [TRUTH])
