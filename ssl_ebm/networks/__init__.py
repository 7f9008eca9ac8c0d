"""Networks in plain torch: encoders, decoders, predictors, priors. They know no Lightning."""

from ssl_ebm.networks.encoders import BasisEncoder
from ssl_ebm.networks.images import ImageDecoder, ImageEncoder, ImageEnergy
from ssl_ebm.networks.motion import block_matching, displacements, moved_by, part_motions, shifted, shifts
from ssl_ebm.networks.priors import CodePrior, MixturePrior, Source, draw_codes
from ssl_ebm.networks.refinement import Refinement
from ssl_ebm.networks.scalars import Dictionary, Mlp, PointEnergy
from ssl_ebm.networks.transport import Context, TransportDecoder, TransportPredictor

__all__ = [
    "BasisEncoder",
    "CodePrior",
    "Context",
    "Dictionary",
    "ImageDecoder",
    "ImageEncoder",
    "ImageEnergy",
    "MixturePrior",
    "Mlp",
    "PointEnergy",
    "Refinement",
    "Source",
    "TransportDecoder",
    "TransportPredictor",
    "block_matching",
    "displacements",
    "draw_codes",
    "moved_by",
    "part_motions",
    "shifted",
    "shifts",
]
