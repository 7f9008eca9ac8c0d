"""Masked-image inpainting: reconstruct what is hidden, one answer (least squares) or many (a latent)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ssl_ebm.data.masks import Mask, RandomPatches
from ssl_ebm.energy import Enumeration, PredictiveEnergy, check_beta
from ssl_ebm.errors import UserError
from ssl_ebm.networks import Source
from ssl_ebm.networks.completion import (
    Completion,
    ConvolutionalCompletion,
    PartsDecoder,
    check_network,
    occlude,
    patch_levels,
)
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.inputs import Inputs
from ssl_ebm.tasks.latent_parts import make_latent, make_prior
from ssl_ebm.tasks.latent_prediction import Batch, LatentPrediction
from ssl_ebm.tasks.optimization import TrainingOptimizer, check_optimizer, optimizer_with_cosine
from ssl_ebm.tasks.sharing import item_generator

Description = dict[str, Any]

CONVOLUTIONAL = {"class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion"}
BLOCKS = {"class_path": "ssl_ebm.data.masks.Blocks"}


class Inpainting(LatentPrediction):
    """Completes pictures of which a part is hidden, and rates how well any completion goes with the rest.

        E(x, y, z) = |mask * (T(y) - Dec(Pred(x), z))|^2, summed over the hidden pixels
        F_beta(x, y) = -1/beta log mean_z exp(-beta E(x, y, z))

    x is the visible part and the mask, y the whole picture, T(y) its intensities, or, where the network says
    `normalised`, its patches with their own mean and deviation taken out.

    Objective "latent_ebm": z is one of `codes` values, all enumerated. Loss: the mean of F_beta while beta
    rises to its final value, plus the cross-entropy of a prior p(z | x) with the inferred z. Objective
    "least_squares": the same network with a z of one value. At test time z is drawn from p(z | x): nothing of
    the hidden part reaches a prediction.

    Batches are dictionaries with "image" (B, C, H, W) in [0, 1]. Masks are drawn on the device.

    Source: Pathak et al., "Context encoders" (2016); He et al., "Masked autoencoders are scalable vision
    learners" (2022); lecture (NYU Deep Learning 2020, week 7-2).

    Args:
        objective: what is minimised.
        network: what sees the visible part, by `class_path` and `init_args`:
            ssl_ebm.networks.completion.ConvolutionalCompletion, or
            ssl_ebm.networks.patch_completion.PatchCompletion (a masked autoencoder).
        mask: what is hidden, described likewise; one of ssl_ebm.data.masks.
        latent: the space of z: "one_hot" or "quantised" (learnt vectors).
        codes: number of its values.
        latent_dim: size of a learnt vector.
        beta: final inverse temperature, in 1 / squared intensity summed over the hidden pixels.
        initial_temperature: 1 / beta at the start of training, same unit inverted.
        anneal: share of the training steps over which the temperature falls, linearly.
        prior_weight: weight of the prior's cross-entropy in the loss, squared intensity per nat.
        lr: peak learning rate.
        weight_decay: on matrices and convolutions.
        warmup_steps: optimizer steps of linear warm-up; a cosine to zero follows.
        momentum, second_momentum: beta1 and beta2 of AdamW.
        optimizer: adamw, or muon for the matrices of transformer blocks (`optimizer_with_cosine`).

    Raises:
        UserError: a setting out of its range, or a description of nothing that exists.
    """

    def __init__(
        self,
        objective: Literal["least_squares", "latent_ebm"] = "latent_ebm",
        network: Description = CONVOLUTIONAL,
        mask: Description = BLOCKS,
        latent: Literal["one_hot", "quantised"] = "one_hot",
        codes: int = 64,
        latent_dim: int = 8,
        beta: float = 1.0,
        initial_temperature: float = 20.0,
        anneal: float = 0.5,
        prior_weight: float = 1.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        momentum: float = 0.9,
        second_momentum: float = 0.99,
        optimizer: TrainingOptimizer = "adamw",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        self.objective = objective
        self.mask: Mask = build(mask, Mask, "mask")  # type: ignore[type-abstract]
        found = build(network, nn.Module, "network")
        check_network(found)
        if objective == "latent_ebm" and not getattr(found, "parts", 0):
            raise UserError("latent_ebm needs pictures for z to add: set network.parts to 8 or more")
        space = make_latent(self.hparams)
        self.energy = PredictiveEnergy(PartsDecoder(space.dim, found.parts), space, found)  # type: ignore[arg-type]
        self.inference = Enumeration()
        self.prior = make_prior({**self.hparams, "features": found.features}, space)
        if self.prior is None and isinstance(found, ConvolutionalCompletion):
            # Nothing learns from the features, and several processes wait for the gradient of every weight.
            found.summary.requires_grad_(False)

    @property
    def network(self) -> Any:
        """Pred."""
        return self.energy.predictor

    @property
    def encoder(self) -> nn.Module:
        """timm's encoder inside the network.

        Raises:
            UserError: it has none.
        """
        if not hasattr(self.network, "encoder"):
            raise UserError(
                f"{type(self.network).__name__} has no encoder of timm's: train a PatchCompletion"
            )
        return cast(nn.Module, self.network.encoder)

    # -- energies ----------------------------------------------------------------------------------------

    def context(self, x: Tensor) -> Completion:
        """h = Pred(x)."""
        found = super().context(x)
        if not isinstance(found, Completion):
            raise UserError(
                f"network: {type(self.network).__name__} returns {type(found).__name__}: it must return an "
                "ssl_ebm.networks.completion.Completion"
            )
        return found

    def target(self, x: Tensor, y: Tensor) -> Tensor:
        """mask * T(y): (B, C, H, W)."""
        mask = x[:, -1:]
        return self._scaled(y) * mask

    def _scaled(self, y: Tensor) -> Tensor:
        """T(y)."""
        if not getattr(self.network, "normalised", False):
            return y
        mean, deviation = patch_levels(y, self.network.patch).unbind(1)
        return (y - mean) / deviation

    def inputs(self, batch: Batch) -> Tensor:
        """What `representation` takes of a batch: the pictures, (B, C, H, W)."""
        return batch["image"]

    def takes(self, data: Mapping[str, Any]) -> Inputs:
        """What `representation` takes, after a training on data of this description."""
        fixed = getattr(getattr(self.network, "autoencoder", None), "size", None)
        size = tuple(fixed or (data.get("image_shape") or (None, None, None))[1:])
        free = () if fixed else ("height", "width")
        return Inputs("image", ("channels", "height", "width"), (self.network.channels, *size), free)

    def representation(self, x: Tensor) -> Tensor:
        """Features of whole pictures, nothing hidden: (B, C, H, W) -> (B, F).

        Of a `ConvolutionalCompletion` that was trained by least squares they come from a summary that nothing
        has taught: probe one of its layers, or fine-tune it.
        """
        if hasattr(self.network, "representation"):
            whole: Tensor = self.network.representation(x)
            return whole
        nothing = torch.zeros_like(x[:, :1], dtype=torch.bool)
        found: Tensor = self.context(occlude(x, nothing)).features
        return found

    # -- prediction: z from x alone ----------------------------------------------------------------------

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        """Completed pictures: z (B, S, D) -> (B, S, C, H, W) in [0, 1]; visible pixels are those of x."""
        return self._completed(self.context(x), z)

    def _completed(self, h: Completion, z: Tensor) -> Tensor:
        hidden = self.energy.decode(h, z)  # (B, S, C, H, W)
        if h.levels is not None:
            mean, deviation = h.levels[:, None].unbind(2)
            hidden = hidden * deviation + mean
        return torch.where(h.mask[:, None] > 0, hidden.clamp(0, 1), h.visible[:, None])

    def sample(
        self,
        x: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: Source = "learned",
    ) -> Tensor:
        """Completions: x (B, C + 1, H, W) of `occlude` -> (B, S, C, H, W) in [0, 1].

        Each follows p(z | x), but those that follow each other are spread over the codes (`spread` of
        `draw_codes`), so that few repeat another. Least squares repeats its one prediction S times.
        """
        if samples < 1:
            raise UserError(f"samples is {samples}: use at least 1")
        h = self.context(x)
        count = 1 if self.prior is None else samples
        z = self._draw(h.features, count, generator, source, spread=True)
        return self._completed(h, z).expand(-1, samples, -1, -1, -1)

    def occluded(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x of pictures, with masks drawn by `mask`: (B, C, H, W) -> (B, C + 1, H, W).

        Raises:
            UserError: pictures of another number of channels, or too small for the mask.
        """
        if images.ndim != 4 or images.shape[1] != self.network.channels:
            raise UserError(
                f"this model completes pictures of {self.network.channels} channels, got a batch of shape "
                f"{tuple(images.shape)}: set network.channels, or data.grayscale"
            )
        size = (images.shape[2], images.shape[3])
        return occlude(images, self.mask.draw(len(images), size, generator, images.device))

    # -- training ----------------------------------------------------------------------------------------

    def _seen(self, images: Tensor) -> int | None:
        """How many patches the drawn mask leaves to the network, where that is always the same."""
        patch = getattr(self.network, "patch", None)
        if patch is None or not isinstance(self.mask, RandomPatches) or self.mask.patch != patch:
            return None
        size = (images.shape[2], images.shape[3])
        return size[0] // patch * (size[1] // patch) - self.mask.hidden(size)

    def losses(self, x: Tensor, y: Tensor, beta: float, h: Completion | None = None) -> dict[str, Tensor]:
        """The terms of the loss, means over the batch; `loss` is their weighted sum.

        A network of normalised patches also learns their levels: |mask * (level - predicted)|^2, mean over
        a picture's hidden pixels, which changes its head alone.
        """
        h = self.context(x) if h is None else h
        terms = super().losses(x, y, beta, h)
        if h.levels is not None:
            true = patch_levels(y, self.network.patch)
            wrong = ((h.levels - true).square() * h.mask[:, None]).flatten(1).sum(1)
            wrong = (wrong / h.mask.flatten(1).sum(1).clamp_min(1)).mean()
            terms |= {"loss": terms["loss"] + wrong, "levels": wrong.detach()}
        return terms

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        y = batch["image"]
        x = self.occluded(y, self.draws)
        seen = self._seen(y)
        h = self.context(x) if seen is None else self.network(x, seen)
        return self.watch(self.losses(x, y, self.training_beta, h))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "test")

    @torch.no_grad()
    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        """Logs the loss at the final beta, and errors per hidden pixel of completions that do not know y."""
        y = batch["image"]
        generator = item_generator(self, batch_idx)  # the same masks at every validation
        x = self.occluded(y, generator)
        terms = self.losses(x, y, self.hparams["beta"])
        count = x[:, -1:].flatten(1).sum(1) * y.shape[1]
        wrong = (self.sample(x, 20, generator) - y[:, None]).square().flatten(2).sum(2) / count[:, None]
        terms |= {"mse_of_one_sample": wrong[:, 0].mean(), "mse_best_of_20": wrong.amin(1).mean()}
        self.log_dict(
            {f"{split}/{name}": value for name, value in terms.items()}, batch_size=len(y), sync_dist=True
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """For every picture its x (B, C + 1, H, W), and 16 completions (B, 16, C, H, W)."""
        generator = item_generator(self, batch_idx)
        x = self.occluded(batch["image"], generator)
        return {"x": x, "completions": self.sample(x, 16, generator)}

    def configure_optimizers(self) -> Any:
        settings = self.hparams
        return optimizer_with_cosine(
            self, settings["lr"], settings["weight_decay"], settings["warmup_steps"],
            settings["momentum"], settings["second_momentum"], optimizer=settings["optimizer"],
        )  # fmt: skip


def _check(settings: Any) -> None:
    """Raises UserError for a setting that is out of range, naming it."""
    check_beta(settings["beta"])
    check_optimizer(settings["optimizer"])
    for name, least in (
        ("codes", 2), ("latent_dim", 1), ("prior_weight", 0), ("weight_decay", 0), ("warmup_steps", 0)
    ):  # fmt: skip
        if not settings[name] >= least:
            raise UserError(f"{name} is {settings[name]}: use at least {least}")
    for name in ("lr", "initial_temperature"):
        if not 0 < settings[name] < float("inf"):
            raise UserError(f"{name} is {settings[name]}: use a number above 0")
    for name in ("momentum", "second_momentum", "anneal"):
        if not 0 <= settings[name] < 1 and not (name == "anneal" and settings[name] == 1):
            raise UserError(f"{name} is {settings[name]}: use a number from 0 to below 1")
