"""Inference: z* = argmin_z E(x, y, z), for a batch of (x, y) at once.

Every inference here is a callable over `energy_of_z`, a function of candidates z (B, S, D) that returns
their energies (B, S). That function is all it knows of the model, so it serves any energy, conditional or
not.

No gradient flows through the argmin. It need not: by the envelope theorem the derivative of F(x, y) = min_z
E(x, y, z) in the parameters is the partial derivative of E at z* (Danskin 1967; Milgrom & Segal, "Envelope
theorems for arbitrary choice sets", 2002, theorem 1). So the returned z is detached, and the returned energy
is a function of the parameters at that fixed z. Where z* is not fully converged the same gradient is that of
the upper bound E(x, y, z*) of F.
"""

from ssl_ebm.energy.inference.base import EnergyOfLatent, Inference, Inferred, SplitEnergy
from ssl_ebm.energy.inference.descent import GradientDescent, OptimizerName
from ssl_ebm.energy.inference.encoders import Amortised, AmortisedRefined
from ssl_ebm.energy.inference.enumeration import Enumeration
from ssl_ebm.energy.inference.lbfgs import Lbfgs
from ssl_ebm.energy.inference.sampled import PosteriorSampling
from ssl_ebm.energy.inference.sparse import Fista, Ista, Lista

__all__ = [
    "Amortised",
    "AmortisedRefined",
    "EnergyOfLatent",
    "Enumeration",
    "Fista",
    "GradientDescent",
    "Inference",
    "Inferred",
    "Ista",
    "Lbfgs",
    "Lista",
    "OptimizerName",
    "PosteriorSampling",
    "SplitEnergy",
]
