"""LightningModules: one per pretext task."""

from ssl_ebm.tasks.checkpoints import load_task
from ssl_ebm.tasks.frame_prediction import FramePrediction

__all__ = ["FramePrediction", "load_task"]
