"""Callbacks and metrics: quality of prediction, collapse, progress."""

from ssl_ebm.evaluation.callbacks import FutureFigures
from ssl_ebm.evaluation.collapse import CollapseCheck

__all__ = ["CollapseCheck", "FutureFigures"]
