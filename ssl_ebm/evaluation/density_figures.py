"""Pictures of an unconditional energy: maps of the plane, sheets of images, histograms of F."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from matplotlib.axes import Axes
from torch import Tensor

from ssl_ebm.data.loading import check_least
from ssl_ebm.energy.sampling import Chains
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.callbacks import validation_set
from ssl_ebm.evaluation.densities import energies_of, items_of, spread
from ssl_ebm.evaluation.drawing import LIGHT, Figure, Theme, energy_map, points
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.loggers import log_file
from ssl_ebm.files import whole
from ssl_ebm.tasks.density_estimation import DensityEstimation

COLUMNS = 8  # images in a row of a sheet
SHOWN_POINTS, SHOWN_IMAGES = 1000, 64
SCALE = 3.0  # of a map of energies, in spreads of the data's energies


class DensityFigures(Callback):
    """After a validation, draws what the energy has learnt: for points in the plane a map of F with data and
    samples, for images a sheet of data beside a sheet of samples.

    The picture is written to ``<default_root_dir>/figures`` and handed to every logger that takes images
    (wandb does). Training is left alone; chains start anew from the same random numbers each time, so that
    pictures of different steps differ by the weights alone.

    Args:
        samples: chains.
        every_n_validations: how often to draw.
        seed: of the chains.
    """

    def __init__(self, samples: int = 64, every_n_validations: int = 1, seed: int = 0) -> None:
        check_least(samples=(samples, 1), every_n_validations=(every_n_validations, 1))
        self.samples = samples
        self.every_n_validations = every_n_validations
        self.seed = seed
        self._validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, DensityEstimation):
            return
        if self._validations % self.every_n_validations == 0:
            self._draw(trainer, pl_module)
        self._validations += 1

    @rank_zero_only
    def _draw(self, trainer: Trainer, task: DensityEstimation) -> None:
        dataset = validation_set(trainer)
        count = SHOWN_POINTS if task.hparams["input"] == "point" else SHOWN_IMAGES
        real = items_of(task, dataset, spread(torch.arange(len(dataset)), count).tolist())
        with isolated(task):
            chains = None
            if task.sampler is not None:
                try:
                    chains = task.sample(self.samples, generator_for(self.seed))
                except UserError as error:  # a picture is no reason to end a training
                    rank_zero_warn(f"DensityFigures shows no samples: {error}")
            figure = density_figure(task, real, chains)
            if figure is None:
                rank_zero_warn(f"DensityFigures cannot draw data of the shape {tuple(real.shape[1:])}")
                return
            picture = figure.render(LIGHT)
        path = Path(trainer.default_root_dir) / "figures" / f"density-step-{trainer.global_step:07d}.png"
        with whole(path) as partial:
            partial.write_bytes(picture)
        log_file(trainer, "log_image", "density/image", path)


def density_figure(task: DensityEstimation, real: Tensor, chains: Chains | None) -> Figure | None:
    """Data and samples, (N, *Y); None where Y is neither a point in the plane nor an image."""
    samples = None if chains is None else chains.state.cpu()
    if real.shape[1:] == (2,):
        return map_figure(task, real, samples)
    if real.ndim == 4 and real.shape[1] in (1, 3):
        sheets = {"data": spread(real, SHOWN_IMAGES)}
        if samples is not None:
            sheets["samples"] = samples[:SHOWN_IMAGES]
        return sheet_figure(sheets, "Data, and samples: where chains that began as noise have ended.")
    return None


def map_figure(task: DensityEstimation, real: Tensor, samples: Tensor | None) -> Figure:
    """F of the plane, alone, with data, and with samples."""

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        for i, (one, (title, y)) in enumerate(zip(axes, shown.items(), strict=True)):
            bar = "energy F(y)" if i == len(shown) - 1 else ""
            energy_map(one, theme, energy, high=top, bar=bar)
            one.set_title(title)
            if y is not None:
                points(one, y[:SHOWN_POINTS], theme.second, 2.5)

    def energy(y: Tensor) -> Tensor:
        return energies_of(task, y)

    energies = energy(real)
    top = SCALE * float(energies.quantile(0.99) - energies.min())  # so that the wells of the data show
    shown = {"energy": None, "data": real} | ({} if samples is None else {"samples": samples})
    caption = "Energy of the plane (the least is 0; above the scale one colour), data, and samples."
    return Figure(caption, draw, columns=len(shown), width=4.4, height=4.2)


def sheet_figure(sheets: Mapping[str, Tensor], caption: str, columns: int = COLUMNS) -> Figure:
    """Images (N, C, H, W) in [0, 1] in rows, a sheet for each title."""

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        for one, (title, images) in zip(axes, sheets.items(), strict=True):
            show(one, tiled(images, columns))
            one.set_title(title)

    rows = max(-(-len(images) // columns) for images in sheets.values())
    height, width = next(iter(sheets.values())).shape[2:]
    return Figure(caption, draw, len(sheets), width=4.6, height=4.5 * rows * height / (columns * width) + 0.3)


def way_figure(chains: Chains, count: int = 12) -> Figure:
    """Some chains at the moments that were recorded, one below the other."""
    draws = chains.draws[:, :count].cpu()  # (R, count, C, H, W)
    count = draws.shape[1]

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        show(axes[0], tiled(draws.flatten(0, 1), count))
        steps = len(chains.energy) // len(draws)
        side = draws.shape[3] + 1
        axes[0].set_yticks([side * (i + 0.5) for i in range(len(draws))])
        axes[0].set_yticklabels([f"step {steps * (i + 1):,}" for i in range(len(draws))])

    height = 8.4 * len(draws) * draws.shape[3] / (count * draws.shape[4]) + 0.05
    return Figure("From noise to samples: the same chains further down with every row.", draw, 1, 9.2, height)


def histogram_figure(energies: Mapping[str, Tensor], title: str = "energy F(y)") -> Figure:
    """How F is distributed over sets of items, one below the other on one scale."""

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        everything = torch.cat(list(energies.values())).double()
        low, high = (float(everything.quantile(q)) for q in (0.002, 0.998))
        edges = np.linspace(low, high, 80)
        for row, (name, values) in enumerate(energies.items()):
            counts, _ = np.histogram(values.clamp(low, high).numpy(), edges)
            heights = 0.9 * counts / max(counts.max(), 1)
            colour = theme.first if name in ("test", "train") else theme.second
            axes[0].fill_between(edges[:-1], -row, heights - row, step="post", color=colour, alpha=0.8, lw=0)
        axes[0].set(yticks=[0.3 - row for row in range(len(energies))], xlabel=title)
        axes[0].set_yticklabels(list(energies))
        axes[0].tick_params(axis="y", length=0)
        axes[0].grid(visible=True, axis="x", alpha=0.6)

    caption = "How energies are distributed. Data is to lie to the left of what is none."
    return Figure(caption, draw, 1, 8.0, 0.8 + 0.5 * len(energies))


def tiled(images: Tensor, columns: int) -> Any:
    """Images (N, C, H, W) in rows, lines of nothing (NaN) between: (rows (H + 1), columns (W + 1), C)."""
    images = images.detach().float().cpu().clamp(0, 1)
    rows = -(-len(images) // columns)
    _, channels, height, width = images.shape
    sheet = np.full((rows * (height + 1), columns * (width + 1), channels), np.nan)
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def show(axes: Axes, sheet: Any) -> None:
    """A sheet without axes; grey where there is one channel, and clear where there is nothing."""
    if sheet.shape[2] == 1:
        axes.imshow(sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        clear = np.isnan(sheet).any(2, keepdims=True)
        axes.imshow(np.concatenate([np.nan_to_num(sheet), 1.0 - clear], 2), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
