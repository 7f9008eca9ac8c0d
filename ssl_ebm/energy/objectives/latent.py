"""Push down on data alone, where the latent's limits keep F from being low everywhere.

    bounded volume         few prototypes, few dimensions, densities that integrate to 1      PushDown
    regularised volume     sparse, noisy, quantised or bounded latents                        the others

Source: LeCun et al. (2006); lecture, "regularised latent-variable methods"; each class names its paper.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.energy.draws import fresh_generator
from ssl_ebm.energy.inference import Amortised, AmortisedRefined
from ssl_ebm.energy.latents import FiniteLatent, Latent, Quantised
from ssl_ebm.energy.objectives.base import check_learns
from ssl_ebm.energy.unconditional import LatentEnergy, VariationalEnergy
from ssl_ebm.errors import UserError


class PushDown(nn.Module):
    """L = mean F(y). The noise of a `Gaussian` latent limits nothing here: F has none.

    With a `LatentEnergy` of few codes this is K-means; with a `Sparse` latent and columns of bounded norm
    sparse coding; with two linear maps as `ReconstructionEnergy` PCA; with a `GaussianMixture` maximum
    likelihood.

    Raises:
        UserError: on a call: a `LatentEnergy` whose encoder is to learn (see `Amortisation`).
    """

    def forward(
        self,
        model: Any,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        check_learns(model)
        # Of a latent energy the starts of its inference are new in each step.
        drawn = (generator or fresh_generator(y.device),) if isinstance(model, LatentEnergy) else ()
        loss: Tensor = model(y, *drawn).mean()
        return loss


class Amortisation(nn.Module):
    """Trains an encoder with the energy: sparse autoencoders, LISTA, predictive sparse decomposition.

        Amortised          L = mean E(y, project(Enc(y)) + n)
        AmortisedRefined   L = mean E(y, z* + n) + weight * |Enc(y) - z*|^2, z* from Enc(y) on by descent

    n is the noise of a `Gaussian` latent, which limits what z can say.

    Args:
        weight: of the encoder's distance, 0 or more.

    Raises:
        UserError: weight is negative; on a call: a model that is no `LatentEnergy` with one of these, or
            whose latent is finite.

    Source: Kavukcuoglu, Ranzato, LeCun, "Fast inference in sparse coding algorithms" (2008), equation 3.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise UserError(f"amortisation: weight is {weight}: use a number of 0 or more")
        self.weight = weight

    def forward(
        self,
        model: LatentEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        inference = getattr(model, "inference", None)
        if not isinstance(inference, Amortised | AmortisedRefined):
            raise UserError("amortisation needs a LatentEnergy with Amortised or AmortisedRefined inference")
        if isinstance(model.model.latent, FiniteLatent):
            raise UserError("amortisation: a finite latent passes no gradient: use VectorQuantisation")
        found = model.model.infer(inference, y, None, generator)
        assert found.proposal is not None
        latent = model.model.latent
        refined = isinstance(inference, AmortisedRefined)
        z = latent.perturb(found.z if refined else latent.project(found.proposal), generator)
        loss = model.model.energy(y, None, z[:, None]).mean()
        if refined:
            loss = loss + self.weight * (found.proposal - found.z).square().sum(1).mean()
        return loss


class VectorQuantisation(nn.Module):
    """L = mean C(y, Dec(e)) + |sg(Enc(y)) - e|^2 + commitment * |Enc(y) - sg(e)|^2.

    e is the code nearest to Enc(y), and sg stops the gradient. The gradient of the first term passes from e
    to Enc(y) as if they were one (straight-through).

    Args:
        commitment: 0 or more.

    Raises:
        UserError: commitment is negative; on a call: a model that is no `LatentEnergy` with a `Quantised`
            latent and `Amortised` inference.

    Source: van den Oord, Vinyals, Kavukcuoglu (2017), equation 3.
    """

    def __init__(self, commitment: float = 0.25) -> None:
        super().__init__()
        if not 0 <= commitment < math.inf:
            raise UserError(f"vector quantisation: commitment is {commitment}: use a number of 0 or more")
        self.commitment = commitment

    def forward(
        self,
        model: LatentEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        inference = getattr(model, "inference", None)
        latent = model.model.latent if isinstance(model, LatentEnergy) else None
        if not isinstance(latent, Quantised) or not isinstance(inference, Amortised):
            raise UserError(
                "vector quantisation needs a LatentEnergy with a Quantised latent and Amortised inference"
            )
        code = inference.encoder(y)  # (B, D)
        nearest = latent.project(code)
        misfit = model.model.misfit(y, None, latent.quantise(code)[:, None])[:, 0]
        moves_codes = (code.detach() - nearest).square().sum(1)
        moves_encoder = (code - nearest.detach()).square().sum(1)
        return (misfit + moves_codes + self.commitment * moves_encoder).mean()


class Variational(nn.Module):
    """L = mean of a `VariationalEnergy`'s bound: a noisy latent, as a VAE has it.

    Source: Kingma & Welling, "Auto-encoding variational Bayes" (2014), equation 10.
    """

    def forward(
        self,
        model: VariationalEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        if not isinstance(model, VariationalEnergy):
            raise UserError(f"a variational bound needs a VariationalEnergy, not {type(model).__name__}")
        return model.bound(y, generator).mean()


class LatentBank(nn.Module):
    """L = mean E(y, z_i): every y of the data set has a latent of its own, learnt with the decoder (GLO).

    The latents are parameters of this objective, projected into their space when they are read. A new y has
    none: infer it by descent.

    Args:
        count: y's in the data set, 1 or more.
        latent: the space; `Ball(dim, 1)` in the paper. Latents begin as draws of its reference measure, or
            where `begin_at` puts them.

    Raises:
        UserError: count is below 1, or the latent is finite; on a call: a model that is no `LatentEnergy`, no
            index, or one beyond the bank (not checked on a GPU: that would wait for it).

    Source: Bojanowski, Joulin, Lopez-Paz, Szlam, "Optimizing the latent space of generative networks" (2018),
    equation 2.
    """

    def __init__(self, count: int, latent: Latent) -> None:
        super().__init__()
        if count < 1:
            raise UserError(f"latent bank: count is {count}: use at least 1")
        if isinstance(latent, FiniteLatent):
            raise UserError(
                "latent bank: a finite latent passes no gradient, so it would never learn: use Enumeration "
                "with PushDown"
            )
        self.latent = latent
        self.bank = nn.Parameter(latent.sample(count).detach().clone())  # (N, D)

    @torch.no_grad()
    def begin_at(self, z: Tensor) -> None:
        """Puts the latents at z (N, D), projected into their space; in the paper, at the data's whitened
        principal components.

        Raises:
            UserError: z is not one latent for every y.
        """
        if z.shape != self.bank.shape:
            raise UserError(
                f"latent bank: {tuple(z.shape)} cannot be its latents: give {tuple(self.bank.shape)}"
            )
        self.bank.copy_(self.latent.project(z.to(self.bank)))

    def codes(self, index: Tensor) -> Tensor:
        """The latents of these y's: (B,) -> (B, D)."""
        if index.device.type == "cpu" and len(index) and int(index.max()) >= len(self.bank):
            raise UserError(
                f"latent bank: there is no latent {int(index.max())}: count is {len(self.bank)}, set it to "
                "the size of the data set"
            )
        return self.latent.project(self.bank[index])

    def forward(
        self,
        model: LatentEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        if not isinstance(model, LatentEnergy) or index is None:
            raise UserError("a latent bank needs a LatentEnergy, and the index of every y in its data set")
        z = self.latent.perturb(self.codes(index), generator)
        return model.model.energy(y, None, z[:, None]).mean()
