"""LightningModules: one per pretext task, and fine-tuning."""

from ssl_ebm.tasks.checkpoints import load_task
from ssl_ebm.tasks.density_estimation import DensityEstimation
from ssl_ebm.tasks.fine_tuning import FineTuning
from ssl_ebm.tasks.frame_prediction import FramePrediction
from ssl_ebm.tasks.inpainting import Inpainting
from ssl_ebm.tasks.masked_text import MaskedText

__all__ = ["DensityEstimation", "FineTuning", "FramePrediction", "Inpainting", "MaskedText", "load_task"]
