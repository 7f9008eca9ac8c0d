"""The spaces that a latent variable z lives in.

A latent says what the observed x does not. One that can say everything makes the energy flat (every y is
cheap), one that can say nothing gives back the average of all y, so each space here limits what z can say by
a setting that is seen: the number of codes, the noise added to z, the radius of a ball.

Every space carries a probability measure pi, its *reference measure*: `sample` draws from it and
`log_density` is its log-density (log-probability for a finite space). The free energy at inverse temperature
beta is an average under pi (`ssl_ebm.energy.free_energy`); for the uniform pi of a finite space or a ball
that is the 1/|Z| of the textbook formula.

Source: LeCun, Chopra, Hadsell, Ranzato, Huang, "A tutorial on energy-based learning" (2006), section 4
(latent variable architectures).
"""

from ssl_ebm.energy.latents.continuous import Ball, Gaussian, Sparse, Sphere
from ssl_ebm.energy.latents.finite import OneHot, Quantised
from ssl_ebm.energy.latents.space import FiniteLatent, Latent

__all__ = [
    "Ball",
    "FiniteLatent",
    "Gaussian",
    "Latent",
    "OneHot",
    "Quantised",
    "Sparse",
    "Sphere",
]
