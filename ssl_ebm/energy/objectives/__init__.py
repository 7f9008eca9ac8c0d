"""How an energy is shaped: seven strategies. All are `objective(model, y, generator, index) -> loss`.

    C1  down on data, up everywhere        GridLikelihood
    C2  down on data, up at chosen points  MonteCarloLikelihood, SampledLikelihood, ContrastiveDivergence,
                                           PersistentContrastiveDivergence, NoiseContrastive, Margin
    C3  a map back to the manifold         Denoising
    A1  low energy in a bounded volume     PushDown: PCA, K-means, Gaussian mixture
    A2  low energy in a limited volume     PushDown (sparse coding), Amortisation (LISTA, sparse autoencoder),
                                           Variational, VectorQuantisation, LatentBank
    A3  a map as constant as can be        Contractive
    A4  flat at the data, curved around    ScoreMatching, SlicedScoreMatching, DenoisingScoreMatching

Source: LeCun, NYU Deep Learning 2020, week 7-2 (seven strategies to shape the energy function).
"""

from ssl_ebm.energy.objectives.base import Objective
from ssl_ebm.energy.objectives.contrastive import (
    ContrastiveDivergence,
    Margin,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    ReplayBuffer,
)
from ssl_ebm.energy.objectives.latent import (
    Amortisation,
    LatentBank,
    PushDown,
    Variational,
    VectorQuantisation,
)
from ssl_ebm.energy.objectives.likelihood import (
    GridLikelihood,
    MonteCarloLikelihood,
    SampledLikelihood,
    contrast,
)
from ssl_ebm.energy.objectives.reconstruction import Contractive, Denoising
from ssl_ebm.energy.objectives.score_matching import (
    DenoisingScoreMatching,
    ScoreMatching,
    SlicedScoreMatching,
)

__all__ = [
    "Amortisation",
    "Contractive",
    "ContrastiveDivergence",
    "Denoising",
    "DenoisingScoreMatching",
    "GridLikelihood",
    "LatentBank",
    "Margin",
    "MonteCarloLikelihood",
    "NoiseContrastive",
    "Objective",
    "PersistentContrastiveDivergence",
    "PushDown",
    "ReplayBuffer",
    "SampledLikelihood",
    "ScoreMatching",
    "SlicedScoreMatching",
    "Variational",
    "VectorQuantisation",
    "contrast",
]
