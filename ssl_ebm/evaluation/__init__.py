"""Callbacks and metrics: quality of prediction, collapse, progress."""

from ssl_ebm.evaluation.callbacks import FutureFigures
from ssl_ebm.evaluation.collapse import CollapseCheck
from ssl_ebm.evaluation.completion_figures import CompletionFigures
from ssl_ebm.evaluation.density_figures import DensityFigures

__all__ = ["CollapseCheck", "CompletionFigures", "DensityFigures", "FutureFigures"]
