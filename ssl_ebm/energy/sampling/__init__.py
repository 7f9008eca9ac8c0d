"""Samplers from exp(-beta E) over states of y or z, many chains at once.

    every step is taken      Descent, Langevin
    steps may be refused     Metropolis, Mala, Hmc    leave exp(-beta E) invariant

All have `sample(energy, start, steps, generator, record_every) -> Chains`.
"""

from ssl_ebm.energy.sampling.chains import Chains, EnergyOfState, Sampler
from ssl_ebm.energy.sampling.diagnostics import autocorrelation_ess, split_r_hat
from ssl_ebm.energy.sampling.langevin import Descent, Langevin
from ssl_ebm.energy.sampling.metropolis import Hmc, Mala, Metropolis
from ssl_ebm.energy.sampling.schedules import Schedule, geometric, linear, polynomial

__all__ = [
    "Chains",
    "Descent",
    "EnergyOfState",
    "Hmc",
    "Langevin",
    "Mala",
    "Metropolis",
    "Sampler",
    "Schedule",
    "autocorrelation_ess",
    "geometric",
    "linear",
    "polynomial",
    "split_r_hat",
]
