"""The theory in plain torch: latents. Knows no image, no video, no text, no Lightning."""

from ssl_ebm.energy.latents import Ball, FiniteLatent, Gaussian, Latent, OneHot, Quantised
from ssl_ebm.energy.quadrature import Quadrature

__all__ = [
    "Ball",
    "FiniteLatent",
    "Gaussian",
    "Latent",
    "OneHot",
    "Quadrature",
    "Quantised",
]
