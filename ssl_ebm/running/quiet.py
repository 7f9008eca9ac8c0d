"""What is printed at the start of a run."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Drops the advice and small talk that Lightning prints at every start; its warnings stay."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_worth_printing)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Tasks take the labels out of a batch, whatever the data.
    hook = "You have overridden `on_before_batch_transfer` in `LightningModule` but"
    warnings.filterwarnings("ignore", message=f".*{hook}.*")


def _worth_printing(record: logging.LogRecord) -> bool:
    small_talk = ("💡", "GPU available", "TPU available", "HPU available", "Seed set to", "Restoring states")
    return not any(phrase in record.getMessage() for phrase in small_talk)
