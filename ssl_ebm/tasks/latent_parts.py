"""The latent of a predictive task, and what is learnt about it, made from the task's settings."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.energy import (
    Amortised,
    Ball,
    FiniteLatent,
    Gaussian,
    Inference,
    Inferred,
    Latent,
    OneHot,
    PredictiveEnergy,
    Quantised,
    free_energy,
    posterior,
)
from ssl_ebm.networks import CodePrior, MixturePrior


def make_latent(settings: Mapping[str, Any]) -> Latent:
    """The space of z; least squares has one value, which says nothing."""
    latent, dim = settings["latent"], settings["latent_dim"]
    if settings["objective"] == "least_squares":
        return OneHot(1)
    if latent == "one_hot":
        return OneHot(settings["codes"])
    if latent == "quantised":
        return Quantised(settings["codes"], dim)
    return Gaussian(dim, settings["latent_noise"]) if latent == "gaussian" else Ball(dim, 1.0)


def make_prior(settings: Mapping[str, Any], space: Latent) -> CodePrior | MixturePrior | None:
    """p(z | x) over `space`; least squares has none."""
    if settings["objective"] == "least_squares":
        return None
    if isinstance(space, FiniteLatent):
        return CodePrior(settings["features"], space.codes)
    return MixturePrior(settings["features"], space.dim)


def explanation(
    energy: PredictiveEnergy,
    inference: Inference,
    y: Tensor,
    h: Any,
    found: Inferred,
    beta: float,
    noisy: bool,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """How well z explains y, to be minimised, and which z did, without gradient.

    Args:
        energy, inference, y, h, found: what `energy.infer` was given, and gave.
        beta: inverse temperature of a finite latent.
        noisy: whether a continuous z is perturbed, which limits what it can say.
        generator: of that noise.

    Returns:
        Finite latent: F_beta (B,) and p(k | x, y) (B, K). Continuous: E at z* (B,), plus the squared distance
        that an encoder's proposal has to z*, and z* (B, D).
    """
    if isinstance(energy.latent, FiniteLatent):
        return free_energy(found.energies, beta), posterior(found.energies.detach(), beta)
    z = found.z
    if isinstance(inference, Amortised):  # the energy itself teaches the encoder
        assert found.proposal is not None
        z = energy.latent.project(found.proposal)
    fit = energy.energy(y, h, (energy.latent.perturb(z, generator) if noisy else z)[:, None])[:, 0]
    if found.proposal is not None:  # the encoder learns to foresee where the descent ends
        fit = fit + (found.proposal - found.z).square().sum(1)
    return fit, found.z
