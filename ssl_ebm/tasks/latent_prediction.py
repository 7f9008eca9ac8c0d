"""What tasks share that predict one part of the data from another, with or without a latent."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.energy import (
    FiniteLatent,
    Inference,
    Inferred,
    Latent,
    PredictiveEnergy,
    check_beta,
    free_energy,
)
from ssl_ebm.errors import UserError
from ssl_ebm.networks import CodePrior, MixturePrior, Source
from ssl_ebm.tasks.divergence import WatchedTask
from ssl_ebm.tasks.latent_parts import explanation
from ssl_ebm.tasks.optimization import progress_of
from ssl_ebm.tasks.sharing import item_generator, of_all_processes

Batch = dict[str, Tensor]

PRIOR_DRAWS = 256  # z that a finite-temperature free energy averages over where z is continuous


class LatentPrediction(WatchedTask):
    """Predicts y from x, and rates how well any y goes with x.

        E(x, y, z) = C(y, Dec(Pred(x), z)) + R(z)
        F_beta(x, y) = -1/beta log mean_z exp(-beta E(x, y, z))

    A task sets `energy`, `inference` and `prior` (None: there is no z to be drawn), and has among its
    settings `objective`, `latent`, `beta`, `initial_temperature`, `anneal` and `prior_weight`. The context
    Pred(x) has `features` (B, F), which the prior and the probes read.

    Shapes: x is any tensor that begins with B; y is (B, *Y).
    """

    can_be_sharded = True

    energy: PredictiveEnergy
    inference: Inference
    prior: CodePrior | MixturePrior | None

    # -- energies ----------------------------------------------------------------------------------------

    @property
    def latent(self) -> Latent:
        """The space of z."""
        return self.energy.latent

    @property
    def temperature(self) -> float:
        """1 / beta now: falls linearly over the first `anneal` of the training steps."""
        settings = self.hparams
        start, end = settings["initial_temperature"], 1 / settings["beta"]
        share = min(1.0, progress_of(self) / settings["anneal"]) if settings["anneal"] > 0 else 1.0
        return max(end, start + (end - start) * share)

    def context(self, x: Tensor) -> Any:
        """h = Pred(x)."""
        return self.energy.context(x)

    def target(self, x: Tensor, y: Tensor) -> Tensor:
        """What predictions are compared with: y, or a function of it."""
        return y

    def _infer(self, x: Tensor, y: Tensor) -> Inferred:
        generator = torch.Generator().manual_seed(0)
        return self.energy.infer(self.inference, self.target(x, y), self.context(x), generator)

    def energies_by_code(self, x: Tensor, y: Tensor) -> Tensor:
        """E(x, y, k) for every value of a finite latent: (B, K).

        Raises:
            UserError: the latent is continuous.
        """
        if not isinstance(self.latent, FiniteLatent):
            raise UserError(f"a {self.hparams['latent']} latent has no codes: ask for free_energy")
        return self._infer(x, y).energies

    def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
        """F_beta(x, y), in the unit of the cost: (B, *X), (B, *Y) -> (B,).

        Exact for a finite latent. For a continuous one, beta = inf is the energy at the z that the inference
        finds (an upper bound), and a finite beta is the average over draws from the prior p(z | x).

        Raises:
            UserError: beta is not above 0.
        """
        return self.free_energies(x, y[:, None], [beta])[0, :, 0]

    def free_energies(self, x: Tensor, y: Tensor, betas: Sequence[float]) -> Tensor:
        """F_beta of several y of one x: (B, *X), (B, N, *Y) -> (len(betas), B, N).

        As `free_energy`, at the cost of one context for all.
        """
        for beta in betas:
            check_beta(beta)
        h = self.context(x)
        each = [self._free_energies_of(h, self.target(x, one), betas) for one in y.unbind(1)]
        return torch.stack(each, 2)

    def _free_energies_of(self, h: Any, y: Tensor, betas: Sequence[float]) -> Tensor:
        """(len(betas), B)."""
        generator = torch.Generator().manual_seed(0)
        found = self.energy.infer(self.inference, y, h, generator)
        if isinstance(self.latent, FiniteLatent):
            return torch.stack([free_energy(found.energies, beta) for beta in betas])
        if all(map(math.isinf, betas)):
            return found.energy.expand(len(betas), -1)
        z = self._draw(h.features, PRIOR_DRAWS, torch.Generator().manual_seed(0))
        drawn = self.energy.energy(y, h, z)  # (B, S)
        return torch.stack([found.energy if math.isinf(b) else free_energy(drawn, b) for b in betas])

    def infer(self, x: Tensor, y: Tensor) -> Tensor:
        """z* = argmin_z E(x, y, z): (B, D), detached."""
        return self._infer(x, y).z

    def representation(self, x: Tensor) -> Tensor:
        """Features of the context: (B, *X) -> (B, F)."""
        features: Tensor = self.context(x).features
        return features

    # -- z from x alone ----------------------------------------------------------------------------------

    def _draw(
        self,
        features: Tensor,
        samples: int,
        generator: torch.Generator | None,
        source: Source = "learned",
        spread: bool = False,
    ) -> Tensor:
        if self.prior is None:
            return features.new_ones(len(features), samples, 1)
        drawn = self.prior.sample(features, samples, generator, source, spread)
        return (
            self.latent.enumerate()[drawn]
            if isinstance(self.latent, FiniteLatent)
            else self.latent.project(drawn)
        )

    def prior_sample(
        self,
        x: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: Source = "learned",
    ) -> Tensor:
        """z (B, S, D) that knows nothing of y.

        "learned": from p(z | x). "bank": from the z that were inferred in training, whatever x was.
        """
        return self._draw(self.context(x).features, samples, generator, source)

    # -- training ----------------------------------------------------------------------------------------

    def losses(self, x: Tensor, y: Tensor, beta: float, h: Any = None) -> dict[str, Tensor]:
        """The terms of the loss, means over the batch; `loss` is their weighted sum.

        Args:
            h: Pred(x), where it is already there.
        """
        h = self.context(x) if h is None else h
        y = self.target(x, y)
        generator = self.draws if self.training else item_generator(self, 0)
        found = self.energy.infer(self.inference, y, h, generator)
        if self.prior is None:
            return {"loss": found.energy.mean(), "energy": found.energy.detach().mean()}
        fit, inferred = explanation(self.energy, self.inference, y, h, found, beta, self.training, generator)
        surprise = self.prior.surprise(h.features, inferred)
        if self.training:
            self.prior.remember(of_all_processes(self, inferred))
        return {
            "loss": (fit + self.hparams["prior_weight"] * surprise).mean(),
            "energy": found.energy.detach().mean(),
            "free_energy": fit.detach().mean(),
            "prior_surprise": surprise.detach().mean(),
        }

    @property
    def training_beta(self) -> float:
        """beta of this training step, inf at temperature 0."""
        return 1 / self.temperature if self.temperature > 0 else math.inf

    def watch(self, terms: dict[str, Tensor]) -> Tensor:
        """Logs the terms of a training step, now and then, and returns the loss."""
        self.divergence.see(terms["loss"], self.max_loss)
        if self.logs_this_step():
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, sync_dist=True)
            if self.prior is not None:
                self.log("train/temperature", self.temperature)
        return terms["loss"]
