"""The theory in plain torch: energies, latents, inference. Knows no image, no video, no text, no Lightning."""

from ssl_ebm.energy.energies import Cost, PredictiveEnergy, check_finite, squared_error
from ssl_ebm.energy.inference import (
    Amortised,
    AmortisedRefined,
    EnergyOfLatent,
    Enumeration,
    GradientDescent,
    Inference,
    Inferred,
)
from ssl_ebm.energy.latents import Ball, FiniteLatent, Gaussian, Latent, OneHot, Quantised
from ssl_ebm.energy.quadrature import Quadrature

__all__ = [
    "Amortised",
    "AmortisedRefined",
    "Ball",
    "Cost",
    "EnergyOfLatent",
    "Enumeration",
    "FiniteLatent",
    "Gaussian",
    "GradientDescent",
    "Inference",
    "Inferred",
    "Latent",
    "OneHot",
    "PredictiveEnergy",
    "Quadrature",
    "Quantised",
    "check_finite",
    "squared_error",
]
