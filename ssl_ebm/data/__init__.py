"""Datasets and LightningDataModules: the synthetic world of moving digits, and video."""

from ssl_ebm.data.loading import ClipData
from ssl_ebm.data.moving_digits import Futures, MovingDigits, MovingDigitsDataset

__all__ = ["ClipData", "Futures", "MovingDigits", "MovingDigitsDataset"]
