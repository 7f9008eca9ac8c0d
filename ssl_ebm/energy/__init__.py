"""Energy-based models with latent variables, in plain torch: no image, no video, no text, no Lightning.

    E(x, y, z)  energy, low for what fits together   PredictiveEnergy
    z           what x does not tell, limited        OneHot, Quantised, Gaussian, Ball, Sphere, Sparse
    z*          argmin_z E                           Enumeration, GradientDescent, Lbfgs, Ista, Fista,
                                                     Amortised, AmortisedRefined; Lista is an encoder
    z ~ p(z|y)  drawn in place of minimised          PosteriorSampling
    F, F_beta   z minimised or averaged out          free_energy, importance_free_energy, posterior
    y ~ p(y)    drawn from exp(-beta E)              ssl_ebm.energy.sampling; faster from a CompiledEnergy

An unconditional example, K-means as an energy:

    model = PredictiveEnergy(decoder=nn.Linear(10, 2, bias=False), latent=OneHot(10))
    loss = model.infer(Enumeration(), y, h=None).energy.mean()  # min_k |y - w_k|^2: moves the nearest w_k
"""

from ssl_ebm.energy.compiled import CompiledEnergy
from ssl_ebm.energy.energies import Cost, PredictiveEnergy, check_finite, squared_error
from ssl_ebm.energy.free_energy import (
    ImportanceEstimate,
    effective_sample_size,
    free_energy,
    importance_free_energy,
    posterior,
)
from ssl_ebm.energy.inference import (
    Amortised,
    AmortisedRefined,
    EnergyOfLatent,
    Enumeration,
    Fista,
    GradientDescent,
    Inference,
    Inferred,
    Ista,
    Lbfgs,
    Lista,
    PosteriorSampling,
    SplitEnergy,
)
from ssl_ebm.energy.latents import Ball, FiniteLatent, Gaussian, Latent, OneHot, Quantised, Sparse, Sphere
from ssl_ebm.energy.quadrature import Quadrature
from ssl_ebm.energy.temperature import check_beta

__all__ = [
    "Amortised",
    "AmortisedRefined",
    "Ball",
    "CompiledEnergy",
    "Cost",
    "EnergyOfLatent",
    "Enumeration",
    "FiniteLatent",
    "Fista",
    "Gaussian",
    "GradientDescent",
    "ImportanceEstimate",
    "Inference",
    "Inferred",
    "Ista",
    "Latent",
    "Lbfgs",
    "Lista",
    "OneHot",
    "PosteriorSampling",
    "PredictiveEnergy",
    "Quadrature",
    "Quantised",
    "Sparse",
    "Sphere",
    "SplitEnergy",
    "check_beta",
    "check_finite",
    "effective_sample_size",
    "free_energy",
    "importance_free_energy",
    "posterior",
    "squared_error",
]
