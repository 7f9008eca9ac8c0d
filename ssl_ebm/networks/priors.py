"""p(z | x): what the context says about the latent, learnt from the z that explained past futures.

Each prior also keeps its marginal, the "bank": which z were inferred in training, whatever x was. Drawing
from it is the baseline of Henaff, Zhao, LeCun, "Prediction under uncertainty with error-encoding networks"
(2017).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_ebm.energy.draws import for_items, normal

Source = Literal["learned", "bank"]

LOGIT_GAIN = 4.0  # a prior must rule codes out, which asks for large logits; a gain gets there in fewer steps
COUNT_DECAY = 0.99  # per step, of the running usage of the codes
BANK_SIZE = 4096  # continuous z that are remembered
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


def _head(features: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, outputs))


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    """Where random numbers are drawn, before they move: the same seed gives the same z on any device."""
    return like.device if generator is None else generator.device


def draw_codes(
    log_probability: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
    spread: bool = False,
) -> Tensor:
    """Indices drawn with replacement from unnormalised log-probabilities (B, K) -> (B, S) int64.

    Args:
        spread: each draw has the same distribution as without, but they differ more: a code of probability p
            is drawn S p times, rounded up or down. The draws are where u + i / S (mod 1), u uniform, fall in
            the distribution function (systematic sampling), in the order of i / golden ratio (mod 1), so that
            those in a row are spread as well, give or take about one. Source: Madow & Madow, "On the theory
            of systematic sampling" (1944); the order: Niederreiter, "Random number generation and quasi-Monte
            Carlo methods" (1992), chapter 3.
    """
    probability = log_probability.softmax(-1).to(_device_of(generator, log_probability))
    of_rows = _spread if spread else _independent

    def draw(rows: int) -> Tensor:
        # The numbers that are drawn for a row do not depend on the probabilities of another.
        return of_rows(probability.repeat_interleave(rows // len(probability), 0), samples, generator)

    index = for_items(len(probability), generator, draw)
    return index.to(log_probability.device)


def _independent(probability: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(probability, samples, replacement=True, generator=generator)


def _spread(probability: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    device = probability.device
    u = torch.rand(len(probability), 1, generator=generator, dtype=torch.float64, device=device)
    rank = (torch.arange(samples, dtype=torch.float64, device=device) / GOLDEN_RATIO % 1).argsort().argsort()
    points = (u + rank / samples) % 1
    edges = probability.double().cumsum(1)
    edges = edges / edges[:, -1:]  # the last one is exactly 1, and above all points
    return torch.searchsorted(edges, points, right=True)


class CodePrior(nn.Module):
    """Categorical p(k | x) over the values of a finite latent.

    Args:
        features: size F of the context's feature vector.
        codes: K.
    """

    counts: Tensor

    def __init__(self, features: int, codes: int) -> None:
        super().__init__()
        self.logits = _head(features, codes)
        self.register_buffer("counts", torch.ones(codes))

    def forward(self, features: Tensor) -> Tensor:
        """log p(k | x): (B, F) -> (B, K)."""
        return (LOGIT_GAIN * self.logits(features)).log_softmax(-1)

    def surprise(self, features: Tensor, assignment: Tensor) -> Tensor:
        """Cross-entropy of an inferred distribution over codes (B, K) with p(k | x), in nats: (B,)."""
        return -(assignment * self(features)).sum(1)

    @torch.no_grad()
    def remember(self, assignment: Tensor) -> None:
        """Adds a batch of inferred distributions over codes (B, K) to the running usage; nothing of a batch
        in which one is not finite: its step may be left out, and the usage would never be finite again."""
        usage = self.counts.mul(COUNT_DECAY).add_(assignment.sum(0), alpha=1 - COUNT_DECAY)
        self.counts.copy_(torch.where(usage.isfinite().all(), usage, self.counts))

    def sample(
        self,
        features: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: Source = "learned",
        spread: bool = False,
    ) -> Tensor:
        """Indices of drawn codes: (B, F) -> (B, S) int64; `spread` as in `draw_codes`."""
        log_p = self(features)
        drawn_from = self.counts.log().expand_as(log_p) if source == "bank" else log_p
        return draw_codes(drawn_from, samples, generator, spread)


class MixturePrior(nn.Module):
    """Mixture of diagonal Gaussians p(z | x) over a continuous latent.

    Source: Bishop, "Mixture density networks" (1994).

    Args:
        features: size F of the context's feature vector.
        dim: D of the latent.
        components: number of Gaussians.
    """

    MIN_STD = 0.02  # keeps the likelihood of repeated z finite

    bank: Tensor
    remembered: Tensor

    def __init__(self, features: int, dim: int, components: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.components = components
        self.weights = _head(features, components)
        self.means = _head(features, components * dim)
        self.spreads = _head(features, components * dim)
        # Apart from the start: components that begin alike learn alike.
        self.centres = nn.Parameter(torch.randn(components, dim))
        self.register_buffer("bank", torch.zeros(BANK_SIZE, dim))
        self.register_buffer("remembered", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log-weights (B, M), means (B, M, D) and standard deviations (B, M, D)."""
        shape = (-1, self.components, self.dim)
        spread = nn.functional.softplus(self.spreads(features)).view(shape) + self.MIN_STD
        return (
            self.weights(features).log_softmax(-1),
            self.centres + self.means(features).view(shape),
            spread,
        )

    def surprise(self, features: Tensor, z: Tensor) -> Tensor:
        """-log p(z | x) in nats: (B, F), (B, D) -> (B,)."""
        weights, means, stds = self(features)
        standard = (z[:, None] - means) / stds
        per_component = -(0.5 * standard.square() + stds.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        return -(weights + per_component).logsumexp(-1)

    @torch.no_grad()
    def remember(self, z: Tensor) -> None:
        """Writes inferred z (B, D) into the bank, over the oldest; nothing of a batch in which one is not
        finite: its step may be left out, and the bank would hand it out for long."""
        place = (self.remembered + torch.arange(len(z), device=z.device)) % BANK_SIZE
        z = z.to(self.bank)
        finite = z.isfinite().all()
        self.bank[place] = torch.where(finite, z, self.bank[place])
        self.remembered += len(z) * finite

    def sample(
        self,
        features: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: Source = "learned",
        spread: bool = False,
    ) -> Tensor:
        """(B, F) -> z (B, S, D); `spread` of the components, or of what is in the bank (`draw_codes`)."""
        if source == "bank":
            filled = torch.arange(BANK_SIZE, device=features.device) < self.remembered.clamp_min(1)
            drawn_from = filled.float().log().expand(len(features), -1)
            return self.bank[draw_codes(drawn_from, samples, generator, spread)]
        weights, means, stds = self(features)
        chosen = draw_codes(weights, samples, generator, spread)  # (B, S)
        chosen = chosen[..., None].expand(-1, -1, self.dim)
        noise = normal(tuple(chosen.shape), torch.get_default_dtype(), features.device, generator)
        return means.gather(1, chosen) + stds.gather(1, chosen) * noise.to(features)
