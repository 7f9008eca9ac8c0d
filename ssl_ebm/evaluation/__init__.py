"""Callbacks and metrics: quality of prediction, collapse, probes."""

from ssl_ebm.evaluation.callbacks import FutureFigures
from ssl_ebm.evaluation.collapse import CollapseCheck
from ssl_ebm.evaluation.completion_figures import CompletionFigures
from ssl_ebm.evaluation.density_figures import DensityFigures
from ssl_ebm.evaluation.probing import (
    AttentiveProbe,
    CollapseMonitor,
    KNNProbe,
    LinearProbe,
    OnlineProbe,
    RegressionProbe,
)
from ssl_ebm.evaluation.text_quality import TextQuality

__all__ = [
    "AttentiveProbe",
    "CollapseCheck",
    "CollapseMonitor",
    "CompletionFigures",
    "DensityFigures",
    "FutureFigures",
    "KNNProbe",
    "LinearProbe",
    "OnlineProbe",
    "RegressionProbe",
    "TextQuality",
]
