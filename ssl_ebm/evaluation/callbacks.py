"""Pictures of futures while a model trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_ebm.data.loading import check_least
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.loggers import log_file
from ssl_ebm.evaluation.pictures import (
    CONTEXT,
    PREDICTED,
    TRUTH,
    animated_grid,
    frame_grid,
    write_gif,
    write_png,
)
from ssl_ebm.evaluation.protocols import Clips, has_latent

SEARCHED = 64  # items among which clips, with an uncertain future, are looked for


class FutureFigures(Callback):
    """After a validation, draws the futures of a few fixed validation clips: a picture and a short animation.

    The picture has a row for each clip: context, true next frame, samples (the one prediction of a
    least-squares model). In the animation the same clips run on, truth beside roll-outs. Both are written to
    ``<default_root_dir>/figures`` and handed to every logger that takes images and videos (wandb does).

    Training is left alone: eval mode and no gradients while drawing, then all modes and random states as
    before; the samples' own generator starts anew each time, so that pictures of different steps differ by
    the weights only.

    Args:
        clips: how many clips, or which indices of the validation set. A number takes one window of each clip:
            the first ones whose future is uncertain, where the data says so, else some spread over the set.
        samples: futures of each clip.
        horizon: frames of the animation after the context; limited by the clips' length.
        every_n_validations: how often to draw.
        frames_per_second: of the animation.
        seed: of the samples.

    Raises:
        UserError: a number out of its range.
    """

    def __init__(
        self,
        clips: int | Sequence[int] = 4,
        samples: int = 5,
        horizon: int = 10,
        every_n_validations: int = 1,
        frames_per_second: float = 4.0,
        seed: int = 0,
    ) -> None:
        check_least(
            clips=(clips if isinstance(clips, int) else len(clips), 1), samples=(samples, 1),
            horizon=(horizon, 1), every_n_validations=(every_n_validations, 1),
        )  # fmt: skip
        if not frames_per_second > 0:
            raise UserError(f"frames_per_second is {frames_per_second}: use a number above 0")
        self.clips = clips
        self.samples = samples
        self.horizon = horizon
        self.every_n_validations = every_n_validations
        self.frames_per_second = frames_per_second
        self.seed = seed
        self._validations = 0
        self._video: Tensor | None = None  # (clips, T, C, H, W)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations = 0
        self._video = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._validations % self.every_n_validations == 0:
            self._draw(trainer, pl_module)
        self._validations += 1

    @rank_zero_only
    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with isolated(pl_module):
            if self._video is None:
                self._video = self._choose(validation_set(trainer))
            picture, animation = self.draw(pl_module, self._video.to(pl_module.device))
        folder = Path(trainer.default_root_dir) / "figures"
        stem = f"futures-step-{trainer.global_step:07d}"
        files = {
            "log_image": write_png(picture, folder / f"{stem}.png"),
            "log_video": write_gif(animation, folder / f"{stem}.gif", self.frames_per_second),
        }
        for method, path in files.items():
            log_file(trainer, method, f"futures/{method.removeprefix('log_')}", path)

    def _choose(self, dataset: Clips) -> Tensor:
        if not isinstance(self.clips, int):
            return torch.stack([dataset[i]["video"] for i in self.clips])
        count = min(len(dataset), max(SEARCHED, self.clips))
        items = [dataset[i * len(dataset) // count] for i in range(count)]
        items.sort(key=lambda item: not bool(item.get("uncertain", False)))  # stable: order kept in each kind
        of_clip: dict[int, Tensor] = {}
        for item in items:
            of_clip.setdefault(int(item["clip"]), item["video"])
        found = list(of_clip.values())
        if "uncertain" not in items[0]:  # the first ones may be of one class
            count = min(len(found), self.clips)
            found = [found[i * len(found) // count] for i in range(count)]
        return torch.stack(found[: self.clips])

    def draw(self, model: Any, video: Tensor) -> tuple[Any, list[Any]]:
        """The picture and the animation's pictures for clips ``video`` (B, T, C, H, W); the caller isolates
        the model."""
        context = model.context_frames
        x, after = video[:, :context], video[:, context:]
        horizon = min(self.horizon, after.shape[1])
        count = self.samples if has_latent(model) else 1
        generator = generator_for(self.seed, device=video.device)
        futures = model.sample(x, count, horizon, generator)  # (B, S, horizon, C, H, W)
        names = [f"sample {s + 1}" for s in range(count)] if count > 1 else ["prediction"]
        rows = [[*x[b], after[b, 0], *futures[b, :, 0]] for b in range(len(x))]
        picture = frame_grid(
            rows,
            [f"x {t + 1}" for t in range(context)] + ["truth", *names],
            [CONTEXT] * context + [TRUTH] + [PREDICTED] * count,
        )
        moving = [
            [torch.cat([x[b], after[b, :horizon]]), *(torch.cat([x[b], future]) for future in futures[b])]
            for b in range(len(x))
        ]
        return picture, animated_grid(moving, ["truth", *names], context)


def validation_set(trainer: Trainer) -> Any:
    """The dataset of a Trainer's first validation loader."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    return loader.dataset  # type: ignore[union-attr]
