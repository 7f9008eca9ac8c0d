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
"""

__version__ = "0.1.0"
