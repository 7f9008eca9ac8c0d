"""Density estimation: an unconditional energy, low where data is, shaped by any of the objectives."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.energy.noise import Noise
from ssl_ebm.energy.objectives import NoiseContrastive
from ssl_ebm.energy.sampling import Chains, Sampler
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.divergence import WatchedTask
from ssl_ebm.tasks.inputs import Inputs
from ssl_ebm.tasks.optimization import optimizer_with_cosine

Batch = dict[str, Tensor]
Description = dict[str, Any]


class DensityEstimation(WatchedTask):
    """Learns F(y), low where the data is and higher everywhere else.

        P(y) = exp(-beta F(y)) / int exp(-beta F(y')) dy'

    as far as the objective makes it so: likelihoods, contrastive objectives and score matching shape exp(-F)
    into the density; reconstructions and bounded latents give an energy that is low on the data, and no
    density.

    Batches are dictionaries with y under the name `input`, and "index" (B,) for objectives that keep
    something for each y.

    Energy, objective, sampler and start are described as in a YAML file, by `class_path` and `init_args`
    (see `ssl_ebm.tasks.building`), so that a checkpoint rebuilds them and holds plain values alone.

    Args:
        energy: a module y (B, *Y) -> F (B,), such as ssl_ebm.networks.PointEnergy or
            ssl_ebm.energy.unconditional.LatentEnergy.
        objective: how it is shaped; one of ssl_ebm.energy.objectives.
        sampler: how `sample` draws from exp(-F); one of ssl_ebm.energy.sampling. Null: there are no samples.
        start: where its chains begin; one of ssl_ebm.energy.noise.
        sample_steps: steps of each chain.
        input: name of y in a batch, "point" or "image".
        data_noise: standard deviation of Gaussian noise on training data, in units of y: blurs a density that
            lives on a few grey values, or on a surface, to one that a smooth F can have.
        data_range: lowest and highest value of an entry of y: noisy data are cut to it, as chains are by
            their sampler's `low` and `high`. Null: no limit.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices and convolutions.
        warmup_steps: optimizer steps of linear warm-up; a cosine to zero follows.
        momentum: beta1 of AdamW, 0 to below 1. Where chains chase a moving energy, 0 keeps it from swinging.

    Raises:
        UserError: a setting out of its range, or a description of nothing that exists.

    Source: LeCun et al., "A tutorial on energy-based learning" (2006); lecture (NYU Deep Learning 2020, week
    7-2).
    """

    def __init__(
        self,
        energy: Description,
        objective: Description,
        sampler: Description | None = None,
        start: Description | None = None,
        sample_steps: int = 200,
        input: str = "point",  # noqa: A002  # the word of a batch's key
        data_noise: float = 0.0,
        data_range: tuple[float, float] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 100,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, least in (("sample_steps", 1), ("data_noise", 0), ("weight_decay", 0), ("warmup_steps", 0)):
            if not self.hparams[name] >= least:
                raise UserError(f"{name} is {self.hparams[name]}: use at least {least}")
        if data_range is not None and not data_range[0] < data_range[1]:
            raise UserError(f"data_range is {list(data_range)}: give the lower value first")
        if not 0 <= momentum < 1:
            raise UserError(f"momentum is {momentum}: use a number from 0 to below 1")
        if not 0 < lr < float("inf"):
            raise UserError(f"lr is {lr}: use a number above 0")
        if (sampler is None) != (start is None):
            raise UserError("sampler and start go together: give both, or neither")
        self.energy: nn.Module = build(energy, nn.Module, "energy")
        self.objective: nn.Module = build(objective, nn.Module, "objective")
        try:
            signature(self.objective.forward).bind("energy", "y", "generator", "index")
        except TypeError as error:
            raise UserError(
                f"{type(self.objective).__name__} is no objective: use one of ssl_ebm.energy.objectives"
            ) from error
        self.sampler: Sampler | None = None if sampler is None else build(sampler, Sampler, "sampler")  # type: ignore[type-abstract]
        self.start: Noise | None = None if start is None else build(start, Noise, "start")  # type: ignore[type-abstract]

    @property
    def objective_name(self) -> str:
        return type(self.objective).__name__

    # -- energies ----------------------------------------------------------------------------------------

    def forward(self, y: Tensor) -> Tensor:
        return self.free_energy(y)

    def free_energy(self, y: Tensor) -> Tensor:
        """F(y): (B, *Y) -> (B,), differentiable in y."""
        found: Tensor = self.energy(y)
        return found

    def inputs(self, batch: Batch) -> Tensor:
        """What `representation` takes of a batch: y."""
        return self.data_of(batch)

    def takes(self, data: Mapping[str, Any]) -> Inputs:
        """What `representation` takes, after a training on data of this description."""
        if self.hparams["input"] == "image":
            shape = tuple(data.get("image_shape") or (None, None, None))
            return Inputs("image", ("channels", "height", "width"), shape)
        return Inputs(self.hparams["input"], ("coordinates",), (2,), unit="as in the training data")

    def representation(self, y: Tensor) -> Tensor:
        """Features of y, (B, D): the energy's own `features`, or its encoder's code.

        Raises:
            UserError: this energy has neither.
        """
        for name in ("features", "encoder"):
            if (found := getattr(self.energy, name, None)) is not None:
                features: Tensor = found(y)
                return features.flatten(1)
        raise UserError(f"{type(self.energy).__name__} has no features and no encoder: it represents nothing")

    @property
    def log_partition(self) -> Tensor | None:
        """log Z as far as the objective has learnt it, (); None where it has not."""
        objective = self.objective
        return objective.log_partition if isinstance(objective, NoiseContrastive) else None

    def sample(self, count: int, generator: torch.Generator | None = None, record_every: int = 0) -> Chains:
        """`count` chains that begin at `start` and end near exp(-F): see `Chains`.

        Raises:
            UserError: this task has no sampler, count is below 1, or as the sampler.
        """
        if self.sampler is None or self.start is None:
            raise UserError("this task has no sampler: set model.sampler and model.start")
        if count < 1:
            raise UserError(f"count is {count}: use at least 1")
        begin = self.start.sample(count, generator).to(self.device)
        return self.sampler.sample(self.energy, begin, self.hparams["sample_steps"], generator, record_every)

    # -- training ----------------------------------------------------------------------------------------

    def data_of(self, batch: Batch) -> Tensor:
        """y of a batch.

        Raises:
            UserError: the batch has no such entry.
        """
        name = self.hparams["input"]
        if name not in batch:
            raise UserError(f"a batch has {', '.join(batch)} and no {name}: set model.input to one of them")
        return batch[name]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        y = self.data_of(batch)
        if self.hparams["data_noise"] > 0:
            y = y + self.hparams["data_noise"] * torch.randn_like(y)
            if self.hparams["data_range"] is not None:
                y = y.clamp(*self.hparams["data_range"])
        loss: Tensor = self.objective(self.energy, y, None, batch.get("index"))
        self.divergence.see(loss, self.max_loss)
        if self.logs_this_step():
            self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    @torch.inference_mode(False)
    @torch.no_grad()
    def _evaluate(self, batch: Batch, split: str) -> None:
        """Logs the mean energy of the data; no objective says on its own how good a density is."""
        y = self.data_of(batch).clone()  # inference by gradient steps takes no tensors of inference_mode
        self.log(f"{split}/energy", self.free_energy(y).mean(), batch_size=len(y), sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """F of every y of the batch: (B,)."""
        with torch.inference_mode(False), torch.no_grad():
            return self.free_energy(self.data_of(batch).clone())

    def configure_optimizers(self) -> Any:
        settings = self.hparams
        return optimizer_with_cosine(
            self, settings["lr"], settings["weight_decay"], settings["warmup_steps"], settings["momentum"]
        )
