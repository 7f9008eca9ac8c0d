"""Unconditional energies: modules y (B, *Y) -> F(y) (B,), low where y is like the data.

Any network that returns one number per y is one already. The others here say how y is explained:

    LatentEnergy           F(y) = min_z E(y, z), or F_beta over a finite z      K-means, sparse coding, VQ
    ReconstructionEnergy   F(y) = |y - Dec(Enc(y))|^2                           PCA, autoencoders
    VariationalEnergy      what bounds -log p(y) from above, without its noise     VAE
    GaussianMixture        F(y) = -log sum_k pi_k N(y; mu_k, Sigma_k)           normalised by construction
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_ebm.energy.draws import normal
from ssl_ebm.energy.energies import PredictiveEnergy, squared_error
from ssl_ebm.energy.free_energy import free_energy
from ssl_ebm.energy.inference import Enumeration, Inference
from ssl_ebm.energy.latents import FiniteLatent
from ssl_ebm.energy.temperature import check_beta
from ssl_ebm.errors import UserError


class LatentEnergy(nn.Module):
    """F(y) of an unconditional energy E(y, z): the minimum over z, or F_beta over all values of a finite z.

    Its derivatives are those of E at a fixed z*. At the minimum the first ones are exact (envelope theorem);
    where z is continuous the second ones are not: they lack -E_yz E_zz^-1 E_zy. Where z* is an encoder's
    guess (`Amortised`), dF/dy is that of E at the guess, and not of the value returned, whose z moves with y.

    Args:
        model: E(y, z), used with h = None.
        inference: how the minimum is found; for a finite beta it must be `Enumeration` with gradient "all".
        beta: inverse temperature, above 0; inf: the minimum.

    Raises:
        UserError: beta is not above 0, or is finite and the latent is not.
    """

    def __init__(self, model: PredictiveEnergy, inference: Inference, beta: float = math.inf) -> None:
        super().__init__()
        check_beta(beta)
        if not math.isinf(beta) and not isinstance(model.latent, FiniteLatent):
            raise UserError(
                f"latent energy: beta is {beta} and {type(model.latent).__name__} has infinitely many "
                "values: use beta inf, or importance_free_energy"
            )
        exact = isinstance(inference, Enumeration) and inference.gradient == "all"
        if not math.isinf(beta) and not exact:
            raise UserError(f'latent energy: beta is {beta}: use Enumeration with gradient "all"')
        self.model = model
        self.inference = inference
        self.beta = beta

    def forward(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """F (B,): differentiable in the parameters (envelope theorem) and in y.

        Args:
            generator: of what the inference draws, such as the points that a descent begins from. None: each
                call draws the same for a batch of the same size, so that F is a function of y and of its
                place in the batch; a sampler would otherwise keep what was drawn by luck. In a batch of
                another size y may begin elsewhere, and end in another local minimum. Of the objectives
                `PushDown` gives a generator, so that each step of a training draws anew; the others do not.
        """
        if generator is None:
            generator = torch.Generator(y.device).manual_seed(0)
        found = self.model.infer(self.inference, y, None, generator)
        return found.energy if math.isinf(self.beta) else free_energy(found.energies, self.beta)


class ReconstructionEnergy(nn.Module):
    """F(y) = |y - Dec(Enc(y))|^2, summed over y's dimensions.

    Args:
        encoder: (B, *Y) -> codes (B, ...).
        decoder: codes -> (B, *Y).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def reconstruct(self, y: Tensor) -> Tensor:
        """Dec(Enc(y)): (B, *Y) -> (B, *Y)."""
        made: Tensor = self.decoder(self.encoder(y))
        return made

    def forward(self, y: Tensor) -> Tensor:
        """F (B,)."""
        return squared_error(y, self.reconstruct(y)[:, None])[:, 0]


class GaussianMixture(nn.Module):
    """F(y) = -log p(y) of a mixture of Gaussians with full covariances: exp(-F) integrates to 1.

        E(y, k) = 1/2 |L_k' (y - mu_k)|^2 - log det L_k + D/2 log(2 pi) - log pi_k
        F(y) = -log sum_k exp(-E(y, k))

    with the precision Sigma_k^-1 = L_k L_k', L_k lower triangular with a positive diagonal. What limits its
    low energy: the volume under exp(-F) is fixed.

    Args:
        components: K, at least 1.
        dim: D, at least 1; y is (B, D).

    Raises:
        UserError: a setting below 1, or a y of another size.
    """

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        if components < 1 or dim < 1:
            raise UserError(f"mixture: components is {components} and dim {dim}: use at least 1")
        self.mean = nn.Parameter(torch.randn(components, dim))
        self.log_diagonal = nn.Parameter(torch.zeros(components, dim))
        self.below = nn.Parameter(torch.zeros(components, dim, dim))  # the part below the diagonal is used
        self.logits = nn.Parameter(torch.zeros(components))

    def energies(self, y: Tensor) -> Tensor:
        """E of each component: (B, D) -> (B, K)."""
        dim = self.mean.shape[1]
        if y.ndim != 2 or y.shape[1] != dim:
            raise UserError(f"mixture: y must be (batch, {dim}), got {tuple(y.shape)}")
        factor = self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())  # (K, D, D)
        white = torch.einsum("kde,bkd->bke", factor, y[:, None] - self.mean)
        constant = 0.5 * dim * math.log(2 * math.pi) - self.log_diagonal.sum(1)
        return 0.5 * white.square().sum(2) + constant - self.logits.log_softmax(0)

    def forward(self, y: Tensor) -> Tensor:
        """F (B,), in nats."""
        return -torch.logsumexp(-self.energies(y), 1)


class VariationalEnergy(nn.Module):
    """Energy with a noisy latent: z is Enc's mean plus noise of Enc's size, which is what limits it.

        bound(y) = beta * |y - Dec(z)|^2 + KL(N(m, diag s^2) | N(0, I)),  z = m + s * xi,  (m, log s) = Enc(y)

    in nats, up to the constant D/2 log(pi / beta) of the Gaussian of y given z: its mean over xi is above
    -log p(y).

    Args:
        encoder: (B, *Y) -> (B, 2 D), mean and log of the standard deviation.
        decoder: (B, S, D) -> (B, S, *Y).
        beta: 1 / (2 variance) of y given z, above 0, finite.

    Raises:
        UserError: beta is out of its range; on a call: an encoder with an odd number of outputs.

    Source: Kingma & Welling (2014), equation 10.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, beta: float = 1.0) -> None:
        super().__init__()
        check_beta(beta)
        if math.isinf(beta):
            raise UserError("variational energy: beta must be finite")
        self.encoder = encoder
        self.decoder = decoder
        self.beta = beta

    def posterior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | y), (B, D) each."""
        out: Tensor = self.encoder(y)
        if out.ndim != 2 or out.shape[1] % 2:
            raise UserError(
                f"variational energy: the encoder must return (batch, 2 dim), got {tuple(out.shape)}"
            )
        mean, log_std = out.chunk(2, dim=1)
        return mean, log_std.exp()

    def bound(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of the bound, reparametrised: (B,)."""
        mean, std = self.posterior(y)
        z = mean + std * normal(tuple(mean.shape), mean.dtype, mean.device, generator)
        return self._at(y, z, mean, std)

    def forward(self, y: Tensor) -> Tensor:
        """The same at z = m, without noise: (B,)."""
        mean, std = self.posterior(y)
        return self._at(y, mean, mean, std)

    def _at(self, y: Tensor, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        divergence = (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(1)
        return self.beta * squared_error(y, self.decoder(z[:, None]))[:, 0] + divergence
