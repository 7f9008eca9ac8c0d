"""Three ways in which a latent-variable energy model fails while its loss looks fine, and warnings about
them.

- Flat energy: z is so rich that every y, another clip's frame or noise, gets an energy about as low as the
  real one.
- Ignored latent: the decoder gives the same frame whatever z is, so the model is least squares again.
- Dead codes: most of the codes of a finite latent are never the best one for any frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from ssl_ebm.data.loading import check_least
from ssl_ebm.evaluation.callbacks import validation_set
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.protocols import finite_latent, has_latent
from ssl_ebm.evaluation.samples import squared_error
from ssl_ebm.evaluation.scores import free_energies, partners
from ssl_ebm.tasks.sharing import of_all_processes, place_of

ITEMS_PER_CODE = 4  # below it a code may go unused by chance: P(none of 4K frames) = exp(-4), about 2 %


def energy_ratio(real: Tensor, negative: Tensor) -> float:
    """Mean free energy of negatives over that of real futures, (B,) each: 1 for a flat energy, large for a
    good one."""
    return float(negative.double().mean() / real.double().mean())


def latent_effect(decoded: Tensor, y: Tensor) -> float:
    """How much z moves the prediction, against its error: variance over z / mean squared error, pooled over
    clips.

    ``decoded`` (B, S, C, H, W), for S values of z; ``y`` (B, C, H, W). 0 where z is ignored; 1/2 for exact
    samples of an uncertain future, whose mean squared error is twice the variance.
    """
    variance = decoded.double().flatten(2).var(dim=1, unbiased=True).sum()
    error = squared_error(decoded.double(), y.double()).mean(dim=1).sum()
    return float(variance / error)


def code_usage(energies: Tensor) -> Tensor:
    """Share of the items for which each code has the least energy: (B, K) -> (K,), float64."""
    return torch.bincount(energies.argmin(dim=1), minlength=energies.shape[1]).double() / len(energies)


def dead_share(usage: Tensor) -> float:
    """Share of the codes used less than a tenth as often as under uniform use."""
    return float((usage < 0.1 / len(usage)).double().mean())


def perplexity(usage: Tensor) -> float:
    """exp of the entropy of the usage (K,): K for uniform use, 1 for a single code."""
    return float(torch.exp(-torch.special.xlogy(usage, usage).sum()))


@dataclass(frozen=True)
class CollapseReport:
    """What :func:`inspect` measured; NaN where it does not apply."""

    energy_ratio_other_clip: float
    energy_ratio_noise: float
    latent_effect: float
    dead_share: float
    perplexity: float
    codes: int
    items: int

    def warnings(
        self, flat_below: float = 1.5, ignored_below: float = 0.01, dead_above: float = 0.5
    ) -> list[str]:
        """One sentence for each failure, with the figure, the limit and a remedy. NaN never warns."""
        found = []
        ratios = {"another clip": self.energy_ratio_other_clip, "noise": self.energy_ratio_noise}
        for kind, ratio in ratios.items():
            if ratio < flat_below:
                found.append(
                    f"flat energy: frames of {kind} have {ratio:.2f} times the free energy of real "
                    f"ones (below {flat_below}); the latent can say too much: limit its size, or add "
                    "noise to z"
                )
        if self.latent_effect < ignored_below:
            found.append(
                f"ignored latent: decoded frames vary over z by {self.latent_effect:.4f} of their squared "
                f"error (below {ignored_below}); unless every future is certain, z does nothing: check how z "
                "enters the decoder, and how it is inferred"
            )
        if self.dead_share > dead_above:
            found.append(
                f"dead codes: {self.dead_share:.0%} of {self.codes} codes are hardly used (above "
                f"{dead_above:.0%}; perplexity {self.perplexity:.1f}); anneal the assignment more slowly, or "
                "use fewer codes"
            )
        return found


def inspect(
    model: Any, x: Tensor, y: Tensor, clip: Tensor, generator: torch.Generator, samples: int = 16
) -> CollapseReport:
    """Measures all three on B frames: x (B, T, C, H, W), y (B, C, H, W), ``clip`` (B,) their clips'
    numbers."""
    partner = partners(clip)
    found = (partner >= 0).nonzero()[:, 0]
    noise = torch.rand(y.shape, generator=generator, device=generator.device).to(y)
    candidates = {"real": y, "other_clip": y[partner.clamp_min(0).to(y.device)], "noise": noise}
    energies = free_energies(model, x, candidates)[0]
    z = model.prior_sample(x, samples, generator)
    effect = latent_effect(model.decode(x, z), y)
    dead, spread, codes = math.nan, math.nan, 0
    if finite_latent(model):
        by_code = model.energies_by_code(x, y)
        codes = by_code.shape[1]
        if len(by_code) >= ITEMS_PER_CODE * codes:
            usage = code_usage(by_code)
            dead, spread = dead_share(usage), perplexity(usage)
    return CollapseReport(
        energy_ratio_other_clip=energy_ratio(energies["real"][found], energies["other_clip"][found]),
        energy_ratio_noise=energy_ratio(energies["real"], energies["noise"]),
        latent_effect=effect,
        dead_share=dead,
        perplexity=spread,
        codes=codes,
        items=len(y),
    )


class CollapseCheck(Callback):
    """Looks for collapse after a validation, and warns; it does nothing to training, and nothing in a
    training step.

    Frames, or pictures with a hole of their own, are taken from the validation batches as they pass, of all
    processes; the figures, the same on any number of these, are logged as ``collapse/...``. Least-squares
    models, which have no latent, are left alone.

    Args:
        every_n_validations: how often to look.
        items: frames to look at, per check; dead codes need at least 4 for each code.
        flat_below: least ratio of free energies, wrong over real frames.
        ignored_below: least ratio of the variance over z to the squared error.
        dead_above: largest share of dead codes.
        seed: of the noise and of z, the same in each check.

    Raises:
        UserError: fewer than 2 items, or every 0 validations.
    """

    def __init__(
        self,
        every_n_validations: int = 1,
        items: int = 256,
        flat_below: float = 1.5,
        ignored_below: float = 0.01,
        dead_above: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_least(every_n_validations=(every_n_validations, 1), items=(items, 2))
        self.every_n_validations = every_n_validations
        self.items = items
        self.flat_below = flat_below
        self.ignored_below = ignored_below
        self.dead_above = dead_above
        self.seed = seed
        self.report: CollapseReport | None = None
        self._validations = 0
        self._seen: list[dict[str, Tensor]] = []  # of each batch, what is needed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations = 0
        self.report = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = []

    def _due(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        due = self._validations % self.every_n_validations == 0
        return due and not trainer.sanity_checking and has_latent(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        own = -(-self.items // place_of(pl_module)[0])
        missing = own - sum(len(next(iter(part.values()))) for part in self._seen)
        if missing > 0 and self._due(trainer, pl_module):
            # A tensor made in inference mode can take part in no graph, not even in one over z: copy it
            # outside.
            with torch.inference_mode(False):
                self._seen.append(
                    {name: v[:missing].clone() for name, v in _needed(pl_module, batch).items()}
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._seen and self._due(trainer, pl_module):
            with isolated(pl_module):
                items = self._of_all(trainer, pl_module)
                self._check(trainer, pl_module, items)
        self._seen = []
        self._validations += not trainer.sanity_checking

    def _of_all(self, trainer: Trainer, task: LightningModule) -> dict[str, Tensor]:
        """The first items of the validation, whichever process has seen them, in their order."""
        processes = place_of(task)[0]
        most = min(self.items, len(validation_set(trainer))) if processes > 1 else self.items
        parts = {name: torch.cat([part[name] for part in self._seen]) for name in self._seen[0]}
        return {name: of_all_processes(task, values)[:most] for name, values in parts.items()}

    @rank_zero_only
    def _check(self, trainer: Trainer, task: LightningModule, items: dict[str, Tensor]) -> None:
        x, y, clip = self._pairs(task, items)
        self.report = inspect(task, x, y, clip, generator_for(self.seed, device=y.device))
        figures = {f"collapse/{name}": value for name, value in asdict(self.report).items()}
        known = {name: value for name, value in figures.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(known, step=trainer.global_step)
        for sentence in self.report.warnings(self.flat_below, self.ignored_below, self.dead_above):
            rank_zero_warn(f"step {trainer.global_step}: {sentence}")

    def _pairs(self, task: Any, items: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and the clip (or picture) of each item."""
        if "video" in items:
            return items["video"][:, :-1], items["video"][:, -1], items["clip"]
        images = items["image"]
        # The holes are drawn for all at once: they do not depend on batches, nor on processes.
        x = task.occluded(images, generator_for(self.seed, 0))
        return x, images, torch.arange(len(images), device=images.device)


def _needed(task: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a batch that are looked at."""
    if "video" in batch:
        return {"video": batch["video"][:, : int(task.context_frames) + 1], "clip": batch["clip"]}
    return {"image": batch["image"]}
