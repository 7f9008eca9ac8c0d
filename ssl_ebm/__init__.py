"""Self-supervised learning with energy-based models, on video, images and text.

The package is built in floors; imports point down only:

    cli                     commands
    report  lecture         pages, figures, animations
    evaluation              callbacks and metrics
    tasks                   LightningModules, one per pretext task
    data                    datasets and LightningDataModules
    networks                encoders, decoders, predictors
    energy                  the theory in plain torch

Importing the package imports none of them, so that ``ssl-ebm --help`` answers at once.

    from ssl_ebm import load_encoder

    encoder = load_encoder("runs/NAME/checkpoints/last.ckpt")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_ebm.tasks.encoder import load_encoder as load_encoder

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_encoder":
        from ssl_ebm.tasks.encoder import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
