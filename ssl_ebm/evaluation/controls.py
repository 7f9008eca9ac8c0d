"""Predictors that stop best-of-K from flattering: what does mere variety buy?

- :class:`MatchedNoise`: least squares plus noise as strong as the latent model's own variety.
- :class:`Ensemble`: several least-squares networks, one after the other.
- :class:`Bank`: the latent model with its z drawn from the training set's z at random, whatever x is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.protocols import Clips, FramePredictor, LatentPredictor
from ssl_ebm.evaluation.samples import diversity


def matched_sigma(
    model: FramePredictor,
    dataset: Clips,
    clips: Sequence[int],
    samples: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> float:
    """Standard deviation per pixel value of the model's samples: the square root of their variance given x,
    averaged over
    all pixels of ``clips``. Take validation clips, of the kind that the control is compared on: a set in
    which few futures are uncertain gives too little noise for those that are."""
    total, count = 0.0, 0
    with isolated(model):
        for number in range(0, len(clips), batch_size):
            batch = clips[number : number + batch_size]
            video = torch.stack([dataset[i]["video"] for i in batch]).to(device)
            generator = generator_for(seed, number, device=device)
            drawn = model.sample(video[:, : model.context_frames], samples, 1, generator)[:, :, 0]
            total += float(diversity(drawn).double().sum()) / 2.0
            count += len(batch)
    return float((total / max(count, 1)) ** 0.5)


class MatchedNoise(nn.Module):
    """Least squares plus Gaussian noise: ``clamp(y_hat + sigma * noise, 0, 1)``, independent over samples
    and pixels.

    ``sigma`` comes from :func:`matched_sigma`: the standard deviation of the latent model's samples on
    validation clips. The clamp keeps frames in [0, 1], as every model's are; on a black background it takes
    away some of the variance. In a roll-out the network sees its own clean predictions; the noise is added
    to what is shown.
    """

    def __init__(self, least_squares: FramePredictor, sigma: float) -> None:
        super().__init__()
        self.least_squares = least_squares
        self.sigma = sigma
        self.context_frames = least_squares.context_frames

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        mean = self.least_squares.sample(x, samples, horizon, generator)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return (mean + self.sigma * noise).clamp(0.0, 1.0)


class Ensemble(nn.Module):
    """Sample s is the prediction of member ``s mod members``, each rolled out on its own."""

    def __init__(self, members: Sequence[FramePredictor]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = list(members)
        self.networks = nn.ModuleList(member for member in members if isinstance(member, nn.Module))
        self.context_frames = members[0].context_frames

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        each = -(-samples // len(self.members))
        drawn = [member.sample(x, each, horizon, generator) for member in self.members]
        return torch.stack(drawn, dim=2).flatten(1, 2)[:, :samples]  # (B, each, members, ...) -> (B, S, ...)


class Bank(nn.Module):
    """The latent model with z from its marginal bank: p(z) in place of p(z | x), at each step of the
    roll-out.

    The baseline of error-encoding networks (Henaff, Zhao, LeCun: Prediction under uncertainty with
    error-encoding networks, 2017, section 3): z of a random training example.
    """

    def __init__(self, model: LatentPredictor) -> None:
        super().__init__()
        self.model = model
        self.context_frames: int = model.context_frames  # type: ignore[attr-defined]

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        drawn = [self.model.decode(x, self.model.prior_sample(x, samples, generator, source="bank"))]
        if horizon == 1:
            return drawn[0].unsqueeze(2)
        past = x.repeat_interleave(samples, dim=0)  # (B * S, T, C, H, W)
        for _ in range(1, horizon):
            past = torch.cat([past[:, 1:], drawn[-1].flatten(0, 1).unsqueeze(1)], dim=1)
            z = self.model.prior_sample(past, 1, generator, source="bank")
            drawn.append(self.model.decode(past, z).view_as(drawn[0]))
        return torch.stack(drawn, dim=2)
